"""The training loop: batches, what an epoch records, callbacks, optimizers, engines in a fit."""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
    ProgressBar,
)
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import DataLoader, Sampler

from mtlsk import DivergenceError, MultiTaskRegressor
from mtlsk.aggregators import MGDA, LinearScalarization
from mtlsk.descent import Descent
from mtlsk.engines import Exact, Online
from mtlsk.engines.linear import LinearGradients
from mtlsk.engines.one_label import OneLabelGradients
from mtlsk.estimators import printlog
from mtlsk.estimators.batches import SlicedBatches, batches
from mtlsk.gramian import min_cosine

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype(np.float32)
Y = np.c_[X @ [1, -1, 0.5, 0, 0, 0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)
SOME = np.where(RNG.random(Y.shape) < 0.3, np.nan, Y).astype(np.float32)
SOME[7] = np.nan  # a row without any label
ONE = np.where(np.arange(3) == RNG.choice(3, (50, 1), p=[0.6, 0.3, 0.1]), Y, np.nan)
LABELS = {"all-labels": Y, "some-labels": SOME, "one-label-a-row": ONE.astype(np.float32)}
CONV = {"module__trunk": "conv", "module__input_shape": (1, 2, 3)}
ENGINES = ["auto", "budget", "features", "online", {"name": "Exact", "every": 3}]


def make(**params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 3, "batch_size": 16, "random_state": 0}
    return MultiTaskRegressor(**{**small, "aggregator": "MGDA", **params})


def parameters(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def same(a, b, **tolerance):
    torch.testing.assert_close(parameters(a), parameters(b), **({"rtol": 0, "atol": 0} | tolerance))


def nearly(a, b):
    same(a, b, rtol=1e-4, atol=1e-6)


# ---- batches


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_slices_of_a_permutation(shuffle, drop_last):
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        order = torch.randperm(50) if shuffle else torch.arange(50)
        torch.manual_seed(0)
        loader = SlicedBatches(x, y, 16, shuffle=shuffle, drop_last=drop_last)
        found = list(loader)
        again = list(loader)
    assert len(loader) == len(found) == (3 if drop_last else 4)
    for i, (xi, yi) in enumerate(found):
        assert torch.equal(xi, x[order[16 * i : 16 * i + 16]])
        assert torch.equal(yi, y[order[16 * i : 16 * i + 16]])
    assert torch.equal(again[0][0], found[0][0]) != shuffle  # another pass, another order


def test_label_counts_are_those_of_each_batch():
    y = torch.from_numpy(SOME)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loader = SlicedBatches(torch.from_numpy(X), y, 16, shuffle=True, count_labels=True)
        for _, yi in loader:
            assert loader.label_counts.tolist() == (~yi.isnan()).sum(0).tolist()
    plain = SlicedBatches(torch.from_numpy(X), y, 16)
    assert [plain.label_counts for _ in plain] == [None] * 4


@pytest.mark.parametrize(
    ("dataset", "options", "ours"),
    [
        (Dataset(X, Y), {}, True),
        (Dataset(X, Y), {"shuffle": True, "drop_last": True}, True),
        (Dataset(X), {}, True),
        (Dataset(sparse.csr_matrix(X), Y), {}, True),
        (Dataset(X, Y), {"num_workers": 0}, False),
        (Dataset({"x": X}, Y), {}, False),
        (Dataset(pd.DataFrame(X), Y), {}, False),
        (torch.utils.data.TensorDataset(torch.from_numpy(X)), {}, False),
    ],
    ids=("arrays", "shuffled", "no y", "sparse", "loader", "dict", "frame", "other dataset"),
)
def test_arrays_are_sliced_and_everything_else_is_loaded_by_torch(dataset, options, ours):
    loader = batches(dataset, 16, **options)
    assert isinstance(loader, SlicedBatches if ours else DataLoader)
    assert len(loader) == (3 if options.get("drop_last") else 4)


class Backwards(Sampler):
    """The rows in reverse order."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def __iter__(self):
        return iter(range(self.n - 1, -1, -1))

    def __len__(self):
        return self.n


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("gramian", ["auto", "online", "budget"])
def test_the_numbers_are_those_of_torch_s_own_loader(gramian, y):
    n = int((~np.isnan(y).all(1)).sum())
    ways = [
        {"iterator_train__shuffle": False},
        {"iterator_train": DataLoader},
        {"iterator_train": DataLoader, "iterator_train__sampler": Backwards(n)},
        {"iterator_train__sampler": Backwards(n)},
    ]
    ours, theirs, *backwards = (make(gramian=gramian, **way).fit(X, y) for way in ways)
    for one, other in ((ours, theirs), backwards):
        same(one, other)
        for row, other_row in zip(one.history_, other.history_, strict=True):
            for name in ("train_loss", "train_losses", "task_weights", "train_batch_count"):
                assert row[name] == other_row[name]
    assert not torch.equal(parameters(ours), parameters(backwards[0]))


def test_an_iterator_of_one_s_own_is_respected():
    seen = []

    class Loader(DataLoader):
        def __init__(self, dataset, **options):
            seen.append((len(dataset), options))
            super().__init__(dataset, **options)

    make(iterator_train=Loader, iterator_train__drop_last=True, max_epochs=1).fit(X, Y)
    assert seen == [(50, {"batch_size": 16, "drop_last": True})]


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_sparse_rows_are_dense_ones(form):
    thin = np.where(np.abs(X) > 0.8, X, 0).astype(np.float32)
    for gramian, y in (("auto", Y), ("online", SOME)):
        dense, other = make(gramian=gramian).fit(thin, y), make(gramian=gramian).fit(form(thin), y)
        same(dense, other)
        np.testing.assert_array_equal(dense.predict(thin), other.predict(form(thin)))


def test_data_frames_are_arrays():
    frame, targets = pd.DataFrame(X, columns=list("abcdef")), pd.DataFrame(SOME)
    same(make().fit(X, SOME), make().fit(frame, targets))


def test_the_whole_data_in_one_batch():
    same(make(batch_size=-1).fit(X, Y), make(batch_size=50).fit(X, Y))
    assert make(batch_size=-1, max_epochs=1).fit(X, Y).history_[-1]["train_batch_count"] == 1


# ---- what an epoch records


class Watch(Callback):
    def __init__(self):
        self.seen = []

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        self.seen.append(("begin", len(batch[0]), training))

    def on_batch_end(self, net, batch=None, training=None, loss=None, y_pred=None, **kwargs):
        self.seen.append(("end", len(y_pred), training))
        assert math.isfinite(float(loss))

    def on_grad_computed(self, net, named_parameters=None, **kwargs):
        named = dict(named_parameters)
        self.seen.append(("grad", all(p.grad is not None for p in named.values()), True))


def test_batches_are_in_the_history_only_where_somebody_looks_at_batches():
    quiet = make(train_split=ValidSplit(5)).fit(X, Y)
    assert [len(row["batches"]) for row in quiet.history_] == [0, 0, 0]
    watch = Watch()
    watched = make(train_split=ValidSplit(5), callbacks=[("watch", watch)]).fit(X, Y)
    same(quiet, watched)
    for row in watched.history_:
        sizes = [b["train_batch_size"] for b in row["batches"] if "train_batch_size" in b]
        assert sizes == [16, 16, 8]
        means = [b["train_loss"] for b in row["batches"] if "train_loss" in b]
        assert np.average(means, weights=sizes) == pytest.approx(row["train_loss"], rel=1e-5)
    seen = watched.callbacks_  # the net holds copies
    seen = dict(seen)["watch"].seen
    assert [s[0] for s in seen[:3]] == ["begin", "grad", "end"]
    assert seen[1] == ("grad", True, True)
    assert [s[1] for s in seen if s[0] == "end" and s[2]] == [16, 16, 8] * 3
    assert [s[1] for s in seen if s[0] == "end" and not s[2]] == [10] * 3


def test_a_subclass_that_looks_at_batches_sees_them():
    class Looks(MultiTaskRegressor):
        def on_batch_end(self, net, **kwargs):
            self.looked_ = getattr(self, "looked_", 0) + 1

    net = Looks((8,), "MGDA", max_epochs=2, batch_size=16, random_state=0).fit(X, Y)
    assert net.looked_ == 8
    assert len(net.history_[0]["batches"]) == 4


def test_losses_and_the_best_of_them():
    net = make(train_split=ValidSplit(5), max_epochs=6, lr=0.05).fit(X, Y)
    for name in ("train_loss", "valid_loss"):
        values = net.history_[:, name]
        best = [v == min(values[: i + 1]) for i, v in enumerate(values)]
        assert net.history_[:, f"{name}_best"] == best
        assert [np.mean(losses) for losses in net.history_[:, f"{name}es"]] == pytest.approx(values)
    assert net.history_[:, "train_batch_count"] == [3] * 6
    assert net.history_[:, "valid_batch_count"] == [1] * 6


@pytest.mark.parametrize("y", [SOME, LABELS["one-label-a-row"]], ids=["some", "one"])
@pytest.mark.parametrize("loader", [{}, {"iterator_train": DataLoader}])
def test_missing_labels_are_counted_batch_by_batch(y, loader):
    """With a learning rate of zero the history is what one pass of the net gives."""
    net = make(optimizer="SGD", lr=0.0, max_epochs=2, batch_size=7, **loader).fit(X, y)
    error = (net.predict(X) - y) ** 2
    for row in net.history_:
        assert row["train_losses"] == pytest.approx(np.nanmean(error, 0).tolist(), rel=1e-5)


def test_a_task_absent_from_a_batch_gets_no_weight_there():
    y = Y.copy()
    y[16:, 2] = np.nan
    net = make(max_epochs=1, iterator_train__shuffle=False, optimizer="SGD", lr=0.0).fit(X, y)
    assert net.history_[0, "task_weights"][2] <= 1 / 4  # one batch of four
    twin = make(max_epochs=1, iterator_train__shuffle=False, optimizer="SGD", lr=0.0)
    first = twin.fit(X[:16], y[:16]).history_[0, "task_weights"][2]
    assert net.history_[0, "task_weights"][2] == pytest.approx(first / 4)


@pytest.mark.parametrize("held", [2, 64])
@pytest.mark.parametrize("y", [Y, SOME], ids=["all", "some"])
def test_min_cosine_is_the_mean_over_the_steps(monkeypatch, held, y):
    monkeypatch.setattr(printlog, "HELD", held)
    gramians, backward = [], Descent.backward

    def watched(self, *args):
        record = backward(self, *args)
        gramians.append(record.gramian)
        return record

    monkeypatch.setattr(Descent, "backward", watched)
    net = make(batch_size=3, max_epochs=2).fit(X, y)
    half, expected = len(gramians) // 2, []
    assert half == net.history_[0, "train_batch_count"] == 17
    for part in (gramians[:half], gramians[half:]):  # of the steps with two tasks or more
        expected.append(np.mean([float(min_cosine(g)) for g in part if len(g) > 1]))
    assert net.history_[:, "min_cosine"] == pytest.approx(expected)


@pytest.mark.parametrize("every", [1, 3])
def test_min_cosine_where_weights_are_kept(every):
    history = make(gramian={"every": every}, max_epochs=2).fit(X, Y).history_
    assert all(-1 <= c < 1 for c in history[:, "min_cosine"])


def test_the_history_of_an_online_fit():
    net = make(gramian="online", max_epochs=4).fit(X, Y)
    for row in net.history_:
        assert "min_cosine" not in row
        assert sum(row["task_weights"]) == pytest.approx(1)
        assert all(type(v) is float for v in row["train_losses"] + row["task_weights"])
    assert net.history_[0, "train_loss"] > net.history_[-1, "train_loss"]
    assert net.aggregator_.dual_.tolist() != [1 / 3] * 3


# ---- callbacks


@pytest.mark.parametrize("options", [{}, {"f_criterion": None}], ids=["default", "no-criterion"])
def test_early_stopping_and_checkpoint(tmp_path, options):
    stop = EarlyStopping(patience=2, monitor="valid_loss", sink=lambda *_: None)
    save = Checkpoint(
        dirname=str(tmp_path), monitor="valid_loss_best", load_best=True, sink=print, **options
    )
    net = make(train_split=ValidSplit(5), max_epochs=200, lr=0.1, callbacks=[stop, save]).fit(X, Y)
    assert len(net.history_) < 200
    # the history of the best epoch came back with its parameters
    assert net.history_[-1, "valid_loss"] == min(net.history_[:, "valid_loss"])
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    assert all(torch.equal(saved[n], p) for n, p in net.module_.state_dict().items())


def test_learning_rate_schedules():
    each_batch = LRScheduler(policy="StepLR", step_size=1, gamma=0.5, step_every="batch")
    net = make(max_epochs=2, lr=0.1, callbacks=[each_batch]).fit(X, Y)
    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**8)
    assert [b["event_lr"] for b in net.history_[0, "batches"]] == pytest.approx(
        [0.1, 0.05, 0.025, 0.0125]
    )


def test_scoring_progress_and_clipping(capsys):
    scoring = EpochScoring("r2", lower_is_better=False, on_train=True, name="r2")
    clip = GradientNormClipping(0.01)
    callbacks = [scoring, clip, ProgressBar()]
    net = make(max_epochs=2, optimizer="SGD", lr=1.0, batch_size=-1, callbacks=callbacks)
    before = parameters(copy.deepcopy(net).initialize_for(X, Y))
    after = parameters(net.fit(X, Y))
    assert float((after - before).norm()) <= 0.02 * 1.001
    assert len(net.history_[:, "r2"]) == 2
    assert "it/s" in capsys.readouterr().err


# ---- optimizers


@pytest.mark.filterwarnings("ignore:LBFGS evaluates a batch several times")
def test_lbfgs_works_through_its_closure():
    options = {"optimizer": "LBFGS", "lr": 0.1, "batch_size": -1, "optimizer__max_iter": 5}
    net = make(aggregator="LinearScalarization", **options)
    module = copy.deepcopy(net).initialize_for(X, Y).module_
    optimizer = torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=5)
    evaluated = []

    def closure():
        optimizer.zero_grad()
        loss = ((module(torch.from_numpy(X)) - torch.from_numpy(Y)) ** 2).mean()
        loss.backward()
        evaluated.append(float(loss.detach()))
        return loss

    for epoch in range(3):
        evaluated.clear()
        optimizer.step(closure)
        if epoch == 0:
            first = np.mean(evaluated)
    net.fit(X, Y)
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(parameters(net), expected, rtol=1e-2, atol=1e-3)
    # an epoch's mean is over all evaluations
    assert net.history_[0, "train_loss"] == pytest.approx(first, rel=1e-4)
    assert net.history_[-1, "train_loss"] == pytest.approx(np.mean(evaluated), rel=1e-3)
    better = make(aggregator="MGDA", **options).fit(X, Y)
    assert better.history_[-1, "train_loss"] < better.history_[0, "train_loss"]


def test_an_optimizer_of_one_s_own_gets_a_closure_that_returns_the_loss():
    seen = []

    class Plain(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(float(closure()))
            return super().step()

    Plain.__module__ = "somewhere"
    net = make(optimizer=Plain, optimizer__fused=False, max_epochs=1).fit(X, Y)
    assert np.average(seen, weights=[16, 16, 16, 2]) == pytest.approx(net.history_[0, "train_loss"])


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "Adagrad", torch.optim.AdamW])
def test_fused_kernels_are_the_default_and_change_nothing(optimizer):
    options = {"optimizer": optimizer, "lr": 0.01, "max_epochs": 5}
    fused = make(**options).fit(X, Y)
    assert fused.optimizer_.param_groups[0]["fused"] is True
    for said in ({"optimizer__fused": False}, {"optimizer__foreach": True}):
        plain = make(**options, **said).fit(X, Y)
        assert not plain.optimizer_.param_groups[0]["fused"]
        assert bool(plain.optimizer_.param_groups[0]["foreach"]) == ("optimizer__foreach" in said)
        same(fused, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["RMSprop", "Adadelta", "NAdam", "Rprop"])
def test_optimizers_without_fused_kernels_work_as_before(optimizer):
    net = make(optimizer=optimizer, max_epochs=1).fit(X, Y)
    assert not net.optimizer_.param_groups[0].get("fused")
    assert bool(parameters(net).isfinite().all())


class Words(nn.Module):
    """Rows of a table with sparse gradients."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(9, 4, sparse=True), nn.Linear(4, n_outputs)

    def forward(self, x):
        return self.head(self.table(x.abs().long() % 9))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("optimizer", ["SGD", "Adagrad"])
def test_sparse_gradients_still_work(optimizer):
    options = {"aggregator": "LinearScalarization", "hidden_layer_sizes": (64, 64), "lr": 0.1}
    nets = [
        make(module=Words, optimizer=optimizer, **options, **said)
        for said in ({}, {"optimizer__fused": False})
    ]
    first, second = (net.fit(X, Y) for net in nets)
    nearly(first, second)


# ---- engines in a fit


@pytest.mark.parametrize("options", [{}, CONV], ids=["linear", "conv"])
@pytest.mark.parametrize("gramian", ENGINES, ids=str)
@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_a_second_fit_is_the_first(gramian, options, y):
    net = make(gramian=gramian, **options)
    first = parameters(net.fit(X, y)).clone()
    history = [row["train_losses"] for row in net.history_]
    assert torch.equal(parameters(net.fit(X, y)), first)
    assert [row["train_losses"] for row in net.history_] == history
    assert bool(first.isfinite().all())


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("aggregator", ["MGDA", "ConicGrad", "CAGrad"])
def test_every_exact_route_gives_the_same_fit(y, aggregator):
    options = {"aggregator": aggregator, "optimizer": "SGD", "lr": 0.05, "batch_size": 5}
    nets = [
        make(gramian=gramian, **options).fit(X, y)
        for gramian in ("auto", *({"name": "Exact", "route": r} for r in ("linear", "autograd")))
    ]
    for other in nets[1:]:
        nearly(nets[0], other)


def test_which_route_a_fit_takes(monkeypatch):
    kinds, original = [], Exact.differentiate

    def watched(self, *args):
        gradients = original(self, *args)
        kinds.append(type(gradients).__name__)
        return gradients

    monkeypatch.setattr(Exact, "differentiate", watched)
    for y, options, expected in (
        (Y, {}, LinearGradients.__name__),
        (SOME, {}, LinearGradients.__name__),
        (LABELS["one-label-a-row"], {}, OneLabelGradients.__name__),
        (Y, CONV, "AutogradGradients"),
        (Y[:, 0], {}, LinearGradients.__name__),
    ):
        kinds.clear()
        make(max_epochs=1, **options).fit(X, y)
        assert set(kinds) == {expected}


class TwoOutputs(nn.Module):
    """A module that returns more than its prediction."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.trunk, self.head = nn.Linear(n_features, 8), nn.Linear(8, n_outputs)

    def forward(self, x):
        hidden = torch.tanh(self.trunk(x))
        return self.head(hidden), hidden

    def shared_parameters(self):
        return self.trunk.parameters()


class Halved(MultiTaskRegressor):
    """A loss that mixes the outputs of two tasks."""

    def element_losses(self, y_pred, y, X=None):
        losses, mask = super().element_losses(y_pred, y, X)
        return losses + losses.flip(1) * 0.5, mask


class HalvedMeans(MultiTaskRegressor):
    """The same of the means."""

    def task_losses(self, y_pred, y, X=None):
        losses, rows = super().task_losses(y_pred, y, X)
        return losses + losses.flip(0) * 0.5, rows


class OneARow(MultiTaskRegressor):
    """One loss for all tasks of a row."""

    def element_losses(self, y_pred, y, X=None):
        losses, mask = super().element_losses(y_pred, y, X)
        return losses.mean(1, keepdim=True), mask


@pytest.mark.parametrize("gramian", ["auto", "online", "budget"])
def test_what_is_not_separable_is_differentiated_by_autograd(gramian):
    own = {"gramian": gramian, "optimizer": "SGD", "lr": 0.05}
    plain = {**own, "gramian": {"name": "Exact", "route": "autograd"}}
    tuples = make(module=TwoOutputs, hidden_layer_sizes=(64, 64), **own).fit(X, Y)
    small = {"hidden_layer_sizes": (8,), "max_epochs": 3, "batch_size": 16, "random_state": 0}
    mixed = Halved(aggregator="MGDA", **small, **own).fit(X, Y)
    if gramian != "online":
        wide = {"hidden_layer_sizes": (64, 64)}
        nearly(tuples, make(module=TwoOutputs, **wide, **plain).fit(X, Y))
        nearly(mixed, Halved(aggregator="MGDA", **small, **plain).fit(X, Y))
        means = HalvedMeans(aggregator="MGDA", **small, **own).fit(X, Y)
        nearly(means, mixed)
    assert tuples.predict(X).shape == Y.shape
    assert bool(parameters(tuples).isfinite().all())
    assert not torch.equal(parameters(mixed), parameters(make(**own).fit(X, Y)))


def test_losses_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"losses have shape \(50, 1\) for labels of .*\(50, 3\)"):
        OneARow(max_epochs=1).fit(X, Y)


class Regularised(nn.Module):
    """Batch normalisation and dropout on the way."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        layers = (nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2))
        self.trunk, self.head = nn.Sequential(*layers), nn.Linear(8, n_outputs)

    def forward(self, x):
        return self.head(self.trunk(x))

    def shared_parameters(self):
        return self.trunk.parameters()


def test_running_statistics_see_each_batch_once():
    options = {"module": Regularised, "hidden_layer_sizes": (64, 64), "max_epochs": 2}
    nets = [
        make(aggregator=a, gramian=g, optimizer="SGD", lr=0.0, **options).fit(X, Y)
        for a, g in (("LinearScalarization", "auto"), ("MGDA", "auto"), ("MGDA", "online"))
    ]
    for net in nets:
        assert int(net.module_.trunk[1].num_batches_tracked) == 8
        for a, b in zip(net.module_.buffers(), nets[0].module_.buffers(), strict=True):
            assert torch.equal(a, b)
        # and the same masks were drawn
        assert net.history_[:, "train_losses"] == nets[0].history_[:, "train_losses"]


@pytest.mark.parametrize("gramian", ["auto", "online", "budget", "features"])
@pytest.mark.parametrize("options", [{}, CONV], ids=["linear", "conv"])
def test_divergence_is_reported(gramian, options):
    net = make(gramian=gramian, optimizer="SGD", lr=1e6, max_epochs=30, **options)
    with pytest.raises(DivergenceError, match=r"training diverged: .* in epoch \d+ at lr=1e\+06"):
        net.fit(X, Y)


@pytest.mark.parametrize("gramian", ["auto", "online"])
def test_six_partial_fits_are_six_epochs(gramian):
    whole = make(gramian=gramian, max_epochs=6).fit(X, SOME)
    parts = make(gramian=gramian)
    for _ in range(6):
        parts.partial_fit(X, SOME)
    same(whole, parts)
    if gramian == "online":
        assert torch.equal(whole.aggregator_.dual_, parts.aggregator_.dual_)


def test_the_engine_s_words_are_checked_before_a_fit():
    for gramian, words in (
        ({"name": "budget", "rows": 0}, "Budget: rows=0"),
        ({"name": "online", "dual_lr": -1.0}, r"Online: dual_lr=-1\.0"),
        ("onlin", "unknown gramian 'onlin'"),
        ({"every": 0}, "Exact: every=0"),
        ({"name": "exact", "routes": 1}, "Exact has no parameter 'routes'"),
    ):
        with pytest.raises(ValueError, match=words):
            make(gramian=gramian).fit(X, Y)


def test_an_engine_instance_is_not_touched():
    engine = Online(dual_lr=0.2)
    net = make(gramian=engine).fit(X, Y)
    assert set(vars(engine)) == {"dual_lr", "every"}
    assert net.gramian is engine


@pytest.mark.parametrize("aggregator", [LinearScalarization(), MGDA()], ids=str)
def test_optimizer_steps_follow_the_written_gradients(aggregator):
    """One epoch by hand: the descent on the same batches and a plain SGD step."""
    net = make(aggregator=aggregator, optimizer="SGD", lr=0.05, max_epochs=1, gramian="auto")
    net.set_params(iterator_train__shuffle=False)
    module = copy.deepcopy(net).initialize_for(X, SOME).module_
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    live = Descent(module, optimizer, aggregator, n_tasks=3)
    labelled = ~np.isnan(SOME).all(1)
    x, y = torch.from_numpy(X[labelled]), torch.from_numpy(SOME[labelled])
    for i in range(0, len(x), 16):
        there = ~y[i : i + 16].isnan()
        error = (module(x[i : i + 16]) - y[i : i + 16].nan_to_num()) ** 2
        losses = (error * there).sum(0) / there.sum(0)
        live.backward(losses)
        optimizer.step()
    net.fit(X, SOME)
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(parameters(net), expected, rtol=1e-4, atol=1e-6)


def test_a_fit_on_the_cpu_leaves_the_generators_of_gpus_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    state = torch.get_rng_state()
    MultiTaskRegressor((4,), max_epochs=2, random_state=0).fit(np.eye(8), np.eye(8)[:, :2])
    assert seeded == []
    assert torch.equal(torch.get_rng_state(), state)
