"""MultiTaskRegressor: inputs, training against plain torch loops, life cycle, callbacks."""

import copy
import inspect
import json
import pickle
import random
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import r2_score
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
)
from skorch.dataset import ValidSplit
from torch import nn

from mtlsk import DivergenceError, MultiTaskRegressor
from mtlsk.aggregators import ConicGrad

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)
NAMES = ["load", "tau 1", "sin"]


def make(**params):
    """Return a small net; ``params`` win."""
    small = {"hidden_layer_sizes": (8,), "max_epochs": 3, "batch_size": 16, "random_state": 0}
    return MultiTaskRegressor(**{**small, **params})


def initial_module(net, X=X, y=Y):
    """Return a copy of the module that ``net`` starts from."""
    return copy.deepcopy(clone(net).initialize_for(X, y).module_)


def same_tensors(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def parameters(net):
    return [p.detach().clone() for p in net.module_.parameters()]


# ---- the signature and the shapes


def test_signature_order_and_defaults():
    shown = list(inspect.signature(MultiTaskRegressor).parameters.items())[:13]
    assert [(n, p.default) for n, p in shown] == [
        ("hidden_layer_sizes", (64, 64)),
        ("aggregator", "LinearScalarization"),
        ("controller", None),
        ("optimizer", "AdamW"),
        ("lr", 3e-3),
        ("max_epochs", 100),
        ("batch_size", 64),
        ("activation", "relu"),
        ("task_scale", None),
        ("update_norm", "native"),
        ("random_state", None),
        ("device", "cpu"),
        ("verbose", 0),
    ]


@pytest.mark.parametrize(
    ("y", "shape", "names"),
    [
        (Y, (48, 3), ["y0", "y1", "y2"]),
        (Y[:, 0], (48,), ["y"]),
        (Y[:, :1], (48, 1), ["y"]),
        (pd.Series(Y[:, 0], name="load"), (48,), ["load"]),
        (pd.Series(Y[:, 0]), (48,), ["y"]),
        (pd.DataFrame(Y, columns=NAMES), (48, 3), NAMES),
        (pd.DataFrame(Y), (48, 3), ["0", "1", "2"]),
        (Y.tolist(), (48, 3), ["y0", "y1", "y2"]),
        (torch.tensor(Y), (48, 3), ["y0", "y1", "y2"]),
        (np.arange(48), (48,), ["y"]),
    ],
    ids=[
        "2d",
        "1d",
        "column",
        "Series",
        "unnamed",
        "DataFrame",
        "numbered",
        "list",
        "tensor",
        "int",
    ],
)
def test_y_shapes_and_names(y, shape, names):
    net = make(max_epochs=1).fit(X, y)
    prediction = net.predict(X)
    assert prediction.shape == shape
    assert prediction.dtype == np.float64
    assert type(prediction) is np.ndarray
    assert net.task_names_ == names


def test_containers_of_the_same_numbers_give_the_same_net():
    wanted = make().fit(X, Y).predict(X)
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert np.array_equal(make().fit(frame, pd.DataFrame(Y)).predict(frame), wanted)
    assert np.array_equal(make().fit(X.astype(float), Y.tolist()).predict(X.tolist()), wanted)
    column, flat = make().fit(X, Y[:, :1]).predict(X), make().fit(X, Y[:, 0]).predict(X)
    assert np.array_equal(column[:, 0], flat)


def test_feature_names_are_remembered():
    frame = pd.DataFrame(X, columns=list("abcd"))
    net = make(max_epochs=1).fit(frame, Y)
    assert list(net.feature_names_in_) == list("abcd")
    assert net.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        net.predict(frame[list("bacd")])


def test_read_only_and_integer_input_is_not_written_to():
    features, targets = X.copy(), Y.copy()
    targets[3, 1] = np.nan
    features.flags.writeable = targets.flags.writeable = False
    before = features.copy(), targets.copy()
    make(max_epochs=1).fit(features, targets)
    assert np.array_equal(features, before[0])
    assert np.array_equal(targets, before[1], equal_nan=True)


# ---- the step, against plain torch


def plain_loop(module, optimizer, epochs, batch_size, X=X, y=Y):
    """Train in order with the mean over present tasks of each one's mean over labelled rows."""
    for _ in range(epochs):
        for i in range(0, len(X), batch_size):
            a, b = torch.tensor(X[i : i + batch_size]), torch.tensor(y[i : i + batch_size])
            output = module(a)
            losses = []
            for k in range(y.shape[1]):
                there = ~torch.isnan(b[:, k])
                if there.any():
                    losses.append(((output[there, k] - b[there, k]) ** 2).mean())
            optimizer.zero_grad()
            (sum(losses) / len(losses)).backward()
            optimizer.step()
    return module


@pytest.mark.parametrize("y", [Y, Y[:, :2], Y[:, :1]], ids=["K=3", "K=2", "K=1"])
def test_one_full_batch_epoch_of_sgd_is_the_plain_torch_step(y):
    net = make(optimizer="SGD", lr=0.05, max_epochs=1, batch_size=-1)
    module = initial_module(net, y=y)
    hand = plain_loop(module, torch.optim.SGD(module.parameters(), lr=0.05), 1, len(X), y=y)
    net.fit(X, y)
    for ours, theirs in zip(net.module_.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_default_optimizer_is_adamw_without_weight_decay_over_all_rows():
    net = make(hidden_layer_sizes=(6, 5), lr=0.01, iterator_train__shuffle=False)
    module = initial_module(net)
    adamw = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.0)
    hand = plain_loop(module, adamw, 3, 16)
    net.fit(X, Y)
    with torch.no_grad():
        np.testing.assert_allclose(net.predict(X), hand(torch.tensor(X)), rtol=1e-4, atol=1e-6)
    decayed = make(
        hidden_layer_sizes=(6, 5),
        lr=0.01,
        iterator_train__shuffle=False,
        optimizer__weight_decay=1.0,
    )
    assert not np.allclose(decayed.fit(X, Y).predict(X), net.predict(X), atol=1e-3)


def test_no_validation_split_by_default():
    net = make(max_epochs=2, callbacks=[Callback()]).fit(X, Y)
    for row in net.history_:
        assert "valid_losses" not in row
        assert sum(batch["train_batch_size"] for batch in row["batches"]) == len(X)


def test_task_losses_in_the_history_are_those_of_the_net_before_the_step():
    net = make(optimizer="SGD", lr=0.05, batch_size=-1, max_epochs=1, random_state=5)
    module = initial_module(net)
    net.fit(X, Y)
    for epoch in range(3):
        with torch.no_grad():
            by_hand = ((module(torch.tensor(X)) - torch.tensor(Y)) ** 2).mean(0).tolist()
        row = net.history_[epoch]
        assert row["train_losses"] == pytest.approx(by_hand, rel=1e-5)
        assert row["train_loss"] == pytest.approx(np.mean(by_hand), rel=1e-5)
        assert row["task_weights"] == pytest.approx([1 / 3] * 3)
        module = copy.deepcopy(net.module_)
        net.partial_fit(X, Y)


def test_task_losses_weight_unequal_batches_by_rows():
    net = make(lr=0.0, batch_size=20, max_epochs=1)  # 20 + 20 + 8 rows; lr = 0 keeps the net
    module = initial_module(net)
    net.fit(X, Y)
    with torch.no_grad():
        by_hand = ((module(torch.tensor(X)) - torch.tensor(Y)) ** 2).mean(0).tolist()
    assert net.history_[-1]["train_losses"] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("criterion", ["absolute_error", "huber"])
def test_named_criteria_are_torch_s(criterion):
    net = make(criterion=criterion, lr=0.0, batch_size=-1, max_epochs=1)
    output = initial_module(net)(torch.tensor(X)).detach()
    function = {"absolute_error": nn.L1Loss, "huber": nn.HuberLoss}[criterion]
    by_hand = [float(function()(output[:, k], torch.tensor(Y[:, k]))) for k in range(3)]
    assert net.fit(X, Y).history_[-1]["train_losses"] == pytest.approx(by_hand, rel=1e-5)


def test_callable_criterion():
    def quartic(prediction, label):
        return (prediction[:, 0] - label) ** 4

    net = make(criterion=quartic, lr=0.0, batch_size=-1, max_epochs=1)
    output = initial_module(net)(torch.tensor(X)).detach()
    by_hand = ((output - torch.tensor(Y)) ** 4).mean(0).tolist()
    assert net.fit(X, Y).history_[-1]["train_losses"] == pytest.approx(by_hand, rel=1e-4)


def test_task_scale_scales_each_task_s_gradient():
    scale = [2.0, 0.0, 1.0]
    net = make(optimizer="SGD", lr=0.05, max_epochs=1, batch_size=-1, task_scale=scale)
    module = initial_module(net)
    losses = ((module(torch.tensor(X)) - torch.tensor(Y)) ** 2).mean(0)
    grads = torch.autograd.grad((losses * torch.tensor(scale)).mean(), list(module.parameters()))
    net.fit(X, Y)
    for p, before, g in zip(net.module_.parameters(), module.parameters(), grads, strict=True):
        torch.testing.assert_close(p, before - 0.05 * g, rtol=1e-5, atol=1e-7)
    assert net.history_[-1]["train_losses"] == pytest.approx(losses.tolist(), rel=1e-5)  # raw


def test_scalarization_weights_are_taken_as_they_are():
    weights = [0.7, 0.1, 0.4]
    net = make(optimizer="SGD", lr=0.05, max_epochs=1, batch_size=-1, aggregator__weights=weights)
    module = initial_module(net)
    losses = ((module(torch.tensor(X)) - torch.tensor(Y)) ** 2).mean(0)
    grads = torch.autograd.grad(losses @ torch.tensor(weights), list(module.parameters()))
    net.fit(X, Y)
    for p, before, g in zip(net.module_.parameters(), module.parameters(), grads, strict=True):
        torch.testing.assert_close(p, before - 0.05 * g, rtol=1e-5, atol=1e-7)


def test_cone_of_no_width_is_the_mean_gradient_for_the_whole_net():
    cone = make(aggregator="ConicGrad", aggregator__c=1.0).fit(X, Y)
    mean = make().fit(X, Y)
    np.testing.assert_allclose(cone.predict(X), mean.predict(X), rtol=1e-4, atol=1e-5)
    narrower = make(aggregator="ConicGrad", aggregator__c=0.3).fit(X, Y)
    assert np.abs(narrower.predict(X) - mean.predict(X)).max() > 1e-3


def two_task_mgda(g):
    """Return the min-norm weights of two gradients (2, M) in closed form."""
    difference = g[0] - g[1]
    share = float((-g[1] @ difference) / (difference @ difference))
    share = min(max(share, 0.0), 1.0)
    return torch.tensor([share, 1 - share])


@pytest.mark.parametrize("update_norm", ["native", "mean"])
def test_two_task_mgda_step_by_hand(update_norm):
    y = np.c_[Y[:, 0], -0.7 * Y[:, 0] + Y[:, 1]]
    net = make(
        aggregator="MGDA",
        optimizer="SGD",
        lr=0.1,
        max_epochs=1,
        batch_size=-1,
        update_norm=update_norm,
    )
    module = initial_module(net, y=y)
    losses = ((module(torch.tensor(X)) - torch.tensor(y)) ** 2).mean(0)
    trunk, head = list(module.trunk.parameters()), list(module.head.parameters())
    rows = [torch.autograd.grad(loss, trunk, retain_graph=True) for loss in losses]
    g = torch.stack([torch.cat([t.reshape(-1) for t in row]) for row in rows])
    w = two_task_mgda(g)
    assert 0.01 < float(w[0]) < 0.99  # not at a corner, where less could go wrong
    update = w @ g
    if update_norm == "mean":
        update = update * g.mean(0).norm() / update.norm()
    of_head = torch.autograd.grad(losses.mean(), head)
    net.fit(X, y)
    moved = torch.cat(
        [(a - b).reshape(-1) for a, b in zip(net.module_.trunk.parameters(), trunk, strict=True)]
    )
    torch.testing.assert_close(moved.detach(), -0.1 * update, rtol=1e-3, atol=1e-6)
    for p, before, grad in zip(net.module_.head.parameters(), head, of_head, strict=True):
        torch.testing.assert_close(p, before - 0.1 * grad, rtol=1e-4, atol=1e-6)
    cosine = float(g[0] @ g[1] / g[0].norm() / g[1].norm())
    assert net.history_[-1]["min_cosine"] == pytest.approx(cosine, abs=1e-4)


# ---- missing labels


def test_missing_labels_are_left_out_task_by_task():
    y = Y.copy()
    y[::3, 0] = np.nan
    y[5:9, 2] = np.nan
    net = make(lr=0.05, optimizer="SGD", iterator_train__shuffle=False)
    module = initial_module(net, y=y)
    hand = plain_loop(module, torch.optim.SGD(module.parameters(), lr=0.05), 3, 16, y=y)
    net.fit(X, y)
    for ours, theirs in zip(net.module_.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aggregator", ["LinearScalarization", "MGDA", "CAGrad", "ConicGrad"])
def test_a_task_without_labels_in_a_batch_is_absent_from_that_step(aggregator):
    y = Y.copy()
    y[:16, 0] = np.nan  # the whole first batch
    y[16:, 0] = 1e3  # a later batch: not seen below
    net = make(aggregator=aggregator, optimizer="SGD", lr=0.01, iterator_train__shuffle=False)
    net.initialize_for(X, y)
    head = net.module_.head.weight.detach().clone()
    records = []

    class FirstStep(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if not records:
                records.append(net.module_.head.weight.detach().clone())

    net = make(
        aggregator=aggregator,
        optimizer="SGD",
        lr=0.01,
        iterator_train__shuffle=False,
        callbacks=[FirstStep()],
        max_epochs=1,
    ).fit(X, y)
    moved = (records[0] - head).abs().sum(1)
    assert float(moved[0]) == 0.0
    assert float(moved[1:].min()) > 0.0
    two = make(
        aggregator=aggregator, optimizer="SGD", lr=0.01, batch_size=-1, max_epochs=1
    ).initialize_for(X[:16], y[:16, 1:])
    two.module_.trunk.load_state_dict(clone(net).initialize_for(X, y).module_.trunk.state_dict())
    with torch.no_grad():
        start = clone(net).initialize_for(X, y).module_.head
        two.module_.head.weight.copy_(start.weight[1:])
        two.module_.head.bias.copy_(start.bias[1:])
    two.partial_fit(X[:16], y[:16, 1:])
    torch.testing.assert_close(two.module_.head.weight, records[0][1:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aggregator", ["LinearScalarization", "ConicGrad"])
def test_batch_without_any_label_teaches_nothing(aggregator):
    y = Y.copy()
    y[:16] = np.nan
    options = {"aggregator": aggregator, "iterator_train__shuffle": False}
    net = make(**options).fit(X, y)
    without = make(**options).fit(X[16:], y[16:])
    np.testing.assert_allclose(net.predict(X), without.predict(X), rtol=1e-5, atol=1e-6)
    assert np.isfinite(net.history_[:, "train_losses"]).all()
    assert np.isfinite(net.history_[:, "train_loss"]).all()


def test_losses_in_the_history_are_means_over_labelled_rows():
    y = Y.copy()
    y[:40, 1] = np.nan
    net = make(lr=0.0, batch_size=20, max_epochs=1)
    output = initial_module(net, y=y)(torch.tensor(X)).detach().numpy()
    net.fit(X, y)
    by_hand = np.nanmean((output - y) ** 2, axis=0)
    assert net.history_[-1]["train_losses"] == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_score_is_the_mean_r2_over_labelled_rows():
    net = make().fit(X, Y)
    prediction = net.predict(X)
    assert net.score(X, Y) == pytest.approx(r2_score(Y, prediction))
    y = Y.copy()
    y[10:, 1] = np.nan
    by_hand = [r2_score(Y[:, k], prediction[:, k]) for k in (0, 2)]
    by_hand.append(r2_score(Y[:10, 1], prediction[:10, 1]))
    assert net.score(X, y) == pytest.approx(np.mean(by_hand))
    flat = make().fit(X, Y[:, 0])
    assert flat.score(X, Y[:, 0]) == pytest.approx(r2_score(Y[:, 0], flat.predict(X)))


def test_a_task_without_labels_has_no_part_in_the_score():
    net, y = make().fit(X, Y), Y.copy()
    y[:, 1] = np.nan
    scores = r2_score(Y, net.predict(X), multioutput="raw_values")
    assert net.score(X, y) == pytest.approx((scores[0] + scores[2]) / 2)
    with pytest.raises(ValueError, match="no task with enough labels"):
        net.score(X[:1], Y[:1])


def test_the_loss_that_callbacks_get_is_of_the_tasks_that_have_labels():
    net, y = make().fit(X, Y), torch.tensor(Y)
    output = net.forward(X)
    y[:, 1] = torch.nan
    wanted = ((output - y)[:, [0, 2]] ** 2).mean()
    torch.testing.assert_close(net.get_loss(output, y), wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_is_predicted_the_same_with_any_others(dtype):
    """Bit for bit: 64 + 1 rows are two whole blocks and a rest."""
    net = make(dtype=dtype, hidden_layer_sizes=(64, 64)).fit(X, Y)
    rows = np.random.default_rng(1).normal(size=(65, 4))
    whole = net.predict(rows)
    for n in (1, 2, 3, 31, 33, 48):
        assert np.array_equal(net.predict(rows[:n]), whole[:n])


# ---- history and table


def test_history_is_plain_data():
    net = make(
        aggregator="ConicGrad", controller="APT", train_split=ValidSplit(4), max_epochs=2
    ).fit(X, Y)
    row = json.loads(json.dumps(list(net.history_)))[-1]
    assert [len(row[name]) for name in ("train_losses", "valid_losses", "task_weights")] == [3] * 3
    for name in ("train_losses", "valid_losses", "task_weights"):
        assert type(net.history_[-1][name]) is list
        assert {type(v) for v in net.history_[-1][name]} == {float}
    assert type(net.history_[-1]["min_cosine"]) is float
    assert 0.5 <= row["optimizer__momentum"] <= 0.95


def table(text):
    """Return headers and rows of a printed table, cells apart by two blanks."""
    lines = [line for line in text.splitlines() if line.strip()]
    split = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return split[0], split[2:]


@pytest.mark.parametrize("names", [["load", "tau 1", "sin"], ["dur", "epoch", "train_loss"]])
def test_table_has_a_column_a_task(capsys, names):
    net = make(verbose=1, max_epochs=2).fit(X, pd.DataFrame(Y, columns=names))
    headers, rows = table(capsys.readouterr().out)
    assert headers == ["epoch", "train_loss", *names, "dur"]
    assert len(rows) == 2
    for printed, row in zip(rows, net.history_, strict=True):
        cells = [float(cell) for cell in printed]
        assert cells[0] == row["epoch"]
        assert cells[2:5] == pytest.approx(row["train_losses"], abs=6e-5)
        assert cells[5] == pytest.approx(row["dur"], abs=6e-5)


def test_table_shows_validation_losses_where_there_are_any(capsys):
    net = make(verbose=1, max_epochs=1, train_split=ValidSplit(4)).fit(X, Y)
    headers, rows = table(capsys.readouterr().out)
    assert headers == ["epoch", "train_loss", "valid_loss", "y0", "y1", "y2", "dur"]
    cells = [float(cell) for cell in rows[0]]
    assert cells[3:6] == pytest.approx(net.history_[-1]["valid_losses"], abs=6e-5)


def test_quiet_by_default(capsys):
    make(max_epochs=1).fit(X, Y)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# ---- random numbers


def rng_states():
    return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002


ACTS = {
    "initialize_for": lambda net: clone(net).initialize_for(X, Y),
    "fit": lambda net: clone(net).fit(X, Y),
    "fit with split": lambda net: clone(net).set_params(train_split=ValidSplit(4)).fit(X, Y),
    "partial_fit": lambda net: net.partial_fit(X, Y),
    "predict": lambda net: net.predict(X),
    "score": lambda net: net.score(X, Y),
    "task_gramian": lambda net: net.task_gramian(X, Y),
    "another module": lambda net: net.set_params(module__skip=True),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_the_caller_s_generators_are_untouched(act):
    net = make(random_state=np.int64(3)).fit(X, Y)
    torch.manual_seed(123)
    before = rng_states()
    act(net)
    after = rng_states()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]


def test_refit_is_from_scratch_and_blind_to_the_caller_s_generators():
    net = make().fit(X, Y)
    first, epochs = net.predict(X), len(net.history_)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert np.array_equal(net.fit(X, Y).predict(X), first)
    assert len(net.history_) == epochs
    assert np.array_equal(make().fit(X, Y).predict(X), first)
    assert not np.allclose(make(random_state=1).fit(X, Y).predict(X), first)


def test_refit_on_other_shapes():
    net = make().fit(X, Y)
    net.fit(X[:, :2], Y[:, :2])
    assert net.predict(X[:, :2]).shape == (48, 2)
    assert np.array_equal(net.predict(X[:, :2]), make().fit(X[:, :2], Y[:, :2]).predict(X[:, :2]))


def test_every_epoch_has_its_own_order():
    orders = []

    class Order(Callback):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            orders.append(batch[0][:, 0].tolist())

    make(max_epochs=2, batch_size=48, callbacks=[Order()]).fit(X, Y)
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(X[:, 0].tolist())
    assert orders[0] != orders[1]
    assert orders[0] != X[:, 0].tolist()


# ---- going on: partial_fit, warm_start, pickle


def test_partial_fit_is_one_pass():
    net = make(max_epochs=7, callbacks=[Callback()])
    net.partial_fit(X, Y)
    assert len(net.history_) == 1
    assert sum(b["train_batch_size"] for b in net.history_[-1]["batches"]) == len(X)
    net.partial_fit(X[:20], Y[:20])
    assert [row["epoch"] for row in net.history_] == [1, 2]
    assert sum(b["train_batch_size"] for b in net.history_[-1]["batches"]) == 20


def test_a_part_of_a_stream_may_lack_a_task_s_labels():
    net = make().fit(X, Y)
    before = net.predict(X)
    gap = Y.copy()
    gap[:, 1] = np.nan
    net.partial_fit(X, gap)
    assert not np.array_equal(net.predict(X), before)
    with pytest.raises(ValueError, match="no task has a label"):
        net.partial_fit(X, np.full_like(Y, np.nan))


def test_targets_may_be_a_tensor_that_requires_a_gradient():
    y = torch.tensor(Y, requires_grad=True)
    assert np.array_equal(make().fit(X, y).predict(X), make().fit(X, Y).predict(X))


STATEFUL = {
    "scalarization": {},
    "cone": {"aggregator": "ConicGrad"},
    "cone with memory": {"aggregator": "ConicGrad", "aggregator__solver": "flip"},
    "momentum": {"controller": "APT", "aggregator": "CAGrad"},
    "sgd momentum": {"controller": "APT", "optimizer": "SGD", "lr": 0.01},
}


@pytest.mark.parametrize("params", STATEFUL.values(), ids=STATEFUL.keys())
def test_six_partial_fits_are_six_epochs_bit_for_bit(params):
    whole = make(max_epochs=6, **params).fit(X, Y)
    parts = make(max_epochs=6, **params)
    for _ in range(3):
        parts.partial_fit(X, Y)
    parts = pickle.loads(pickle.dumps(parts))
    for _ in range(3):
        parts.partial_fit(X, Y)
    assert same_tensors(parameters(parts), parameters(whole))
    assert parts.history_[:, "train_losses"] == whole.history_[:, "train_losses"]
    assert parts.history_[:, "task_weights"] == whole.history_[:, "task_weights"]
    other = make(max_epochs=5, **params).fit(X, Y)
    assert not same_tensors(parameters(other), parameters(whole))


def test_warm_start_goes_on():
    net = make(warm_start=True).fit(X, Y).fit(X, Y)
    assert np.array_equal(net.predict(X), make(max_epochs=6).fit(X, Y).predict(X))
    with pytest.raises(ValueError, match="3 features"):
        net.fit(X[:, :3], Y)


def test_no_epochs_is_the_initial_net():
    net = make(max_epochs=0).fit(X, Y)
    with torch.no_grad():
        wanted = initial_module(net)(torch.tensor(X)).numpy()
    assert np.array_equal(net.predict(X), wanted.astype(np.float64))


def test_pickle_keeps_everything():
    net = make(aggregator="ConicGrad", aggregator__solver="flip", controller="APT").fit(X, Y)
    twin = pickle.loads(pickle.dumps(net))
    assert np.array_equal(twin.predict(X), net.predict(X))
    assert twin.history_ == net.history_
    assert torch.equal(twin.aggregator_.logits_, net.aggregator_.logits_)
    assert twin.controller_.beta_ == net.controller_.beta_
    assert twin.partial_fit(X, Y).predict(X).tolist() == net.partial_fit(X, Y).predict(X).tolist()


def test_pickle_of_an_unfitted_net():
    net = pickle.loads(pickle.dumps(make(aggregator="MGDA")))
    assert np.array_equal(net.fit(X, Y).predict(X), make(aggregator="MGDA").fit(X, Y).predict(X))


# ---- parameters


def without_callbacks(net):
    return {n: v for n, v in net.get_params().items() if not n.startswith("callbacks__")}


def test_controllers_never_alter_parameters():
    net = make(
        controller="APT",
        controller__beta_max=0.9,
        aggregator=ConicGrad(c=0.3),
        task_scale=[1, 2, 0.5],
    )
    before = without_callbacks(clone(net))
    net.fit(X, Y)
    assert net.optimizer_.param_groups[0]["betas"][0] != 0.9  # it did act
    after = without_callbacks(clone(net))
    assert repr(after) == repr(before)
    assert repr(without_callbacks(net)) == repr(before)
    assert clone(net).__sklearn_is_fitted__() is False


def test_the_user_s_instance_is_never_touched():
    mine = ConicGrad(c=0.3, solver="flip")
    net = make(aggregator=mine).fit(X, Y).set_params(aggregator__c=0.7)
    assert mine.c == 0.3
    assert vars(mine) == vars(ConicGrad(c=0.3, solver="flip"))
    assert net.aggregator_ is not mine
    assert net.aggregator_.c == 0.7


def test_later_words_win_over_what_the_spec_says():
    specs = ["ConicGrad", {"name": "conicgrad", "c": 0.2}, ConicGrad, ConicGrad(c=0.2)]
    for spec in specs:
        net = make(aggregator=spec, aggregator__c=0.75, max_epochs=1)
        assert clone(net).fit(X, Y).aggregator_.c == 0.75


@pytest.mark.parametrize("fitted", [False, True])
def test_a_new_aggregator_drops_its_predecessor_s_parameters(fitted):
    net = make(aggregator="ConicGrad", aggregator__c=0.25)
    if fitted:
        net.fit(X, Y)
    net.set_params(aggregator="MGDA")
    assert not [n for n in net.get_params() if n.startswith("aggregator__")]
    assert type(net.fit(X, Y).aggregator_).__name__ == "MGDA"
    net.set_params(aggregator="CAGrad", aggregator__c=0.4)
    assert net.get_params()["aggregator__c"] == 0.4
    assert net.aggregator_.c == 0.4
    assert clone(net).fit(X, Y).aggregator_.c == 0.4


def test_aggregator_parameter_on_a_fitted_net_goes_to_the_live_object_and_keeps_its_memory():
    net = make(aggregator="ConicGrad", aggregator__solver="flip").fit(X, Y)
    logits = net.aggregator_.logits_.clone()
    net.set_params(aggregator__c=0.25)
    assert net.aggregator_.c == 0.25
    assert net.aggregator_.solver == "flip"
    assert torch.equal(net.aggregator_.logits_, logits)
    assert net.get_params()["aggregator__c"] == 0.25


@pytest.mark.parametrize("wrong", [{"aggregator__c": 7.0}, {"aggregator__bogus": 1}])
def test_a_wrong_live_parameter_raises_and_changes_nothing(wrong):
    net = make(aggregator="ConicGrad", aggregator__c=0.25).fit(X, Y)
    live, words = net.aggregator_, without_callbacks(net)
    with pytest.raises(ValueError, match="ConicGrad"):
        net.set_params(max_epochs=9, **wrong)
    assert net.aggregator_ is live
    assert live.c == 0.25
    assert without_callbacks(net) == words


def test_momentum_is_the_first_beta_of_adamw():
    net = make(optimizer__momentum=0.7).fit(X, Y)
    assert net.optimizer_.param_groups[0]["betas"] == (0.7, 0.999)
    net.set_params(optimizer__momentum=0.5)
    assert net.optimizer_.param_groups[0]["betas"] == (0.5, 0.999)
    assert net.get_params()["optimizer__momentum"] == 0.5
    assert clone(net).fit(X, Y).optimizer_.param_groups[0]["betas"] == (0.5, 0.999)
    sgd = make(optimizer="SGD", optimizer__momentum=0.3).fit(X, Y)
    assert sgd.optimizer_.param_groups[0]["momentum"] == 0.3


def test_lr_on_a_fitted_net_is_live_and_keeps_the_optimizer_s_state():
    net = make().fit(X, Y)
    live = net.optimizer_
    net.set_params(lr=0.5)
    assert net.optimizer_ is live
    assert live.param_groups[0]["lr"] == 0.5
    assert len(live.state) == 4


def test_optimizer_replaced_on_a_fitted_net():
    net = make(lr=0.01).fit(X, Y)
    before = net.predict(X)
    net.set_params(optimizer="SGD", optimizer__momentum=0.4)
    assert type(net.optimizer_) is torch.optim.SGD
    assert net.optimizer_.param_groups[0]["lr"] == 0.01
    assert net.optimizer_.param_groups[0]["momentum"] == 0.4
    assert np.array_equal(net.predict(X), before)
    net.partial_fit(X, Y)
    assert not np.array_equal(net.predict(X), before)  # it drives this module's parameters


def test_optimizer_replaced_together_with_a_parameter_only_the_new_one_has():
    net = make().fit(X, Y)
    net.set_params(optimizer="SGD", optimizer__momentum=0.9, optimizer__nesterov=True)
    assert net.optimizer_.param_groups[0]["nesterov"] is True


@pytest.mark.parametrize("controller", ["APT", None])
def test_controller_set_on_a_fitted_net(controller):
    net = make(controller="APT" if controller is None else None).fit(X, Y)
    net.set_params(controller=controller).partial_fit(X, Y)
    assert (net.controller_ is None) == (controller is None)
    assert ("optimizer__momentum" in net.history_[-1]) == (controller is not None)


def test_params_round_trip():
    net = make(aggregator="ConicGrad", aggregator__c=0.25, controller="APT", task_scale=[1, 1, 2])
    again = MultiTaskRegressor(**net.get_params(deep=False))
    assert again.get_params(deep=False) == net.get_params(deep=False)
    assert np.array_equal(again.fit(X, Y).predict(X), net.fit(X, Y).predict(X))


def test_repr_shows_what_is_not_default():
    net = make(aggregator="ConicGrad", aggregator__c=0.25)
    wanted = {"aggregator='ConicGrad'", "aggregator__c=0.25", "max_epochs=3", "random_state=0"}
    for shown in (repr(net), repr(net.fit(X, Y))):
        assert shown.startswith("MultiTaskRegressor(")
        assert all(part in shown for part in wanted)
        assert "lr=" not in shown
    assert "MultiTaskRegressor" in net._repr_html_()


# ---- modules


class Plain(nn.Module):
    """No protocol: every parameter is shared."""

    def __init__(self, n_features, n_outputs, width=6):
        super().__init__()
        self.body = nn.Linear(n_features, width)
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(n_outputs))

    def forward(self, X):
        z = torch.tanh(self.body(X))
        return torch.cat([head(z) for head in self.heads], 1)


class SaysShared(Plain):
    def shared_parameters(self):
        return self.body.parameters()


class SaysOwn(Plain):
    def task_parameters(self, k):
        return self.heads[k].parameters()


UNCHANGED = {"hidden_layer_sizes": (64, 64)}


@pytest.mark.parametrize("cls", [Plain, SaysShared, SaysOwn])
def test_which_parameters_of_a_module_are_shared(cls):
    y = np.c_[Y[:, 0], -0.7 * Y[:, 0] + Y[:, 1]]
    net = make(
        module=cls,
        module__width=7,
        aggregator="MGDA",
        optimizer="SGD",
        lr=0.1,
        max_epochs=1,
        batch_size=-1,
        **UNCHANGED,
    )
    module = initial_module(net, y=y)
    assert module.body.out_features == 7
    everything = dict(module.named_parameters())
    shared = [n for n in everything if cls is Plain or n.startswith("body")]
    losses = ((module(torch.tensor(X)) - torch.tensor(y)) ** 2).mean(0)
    rows = [
        torch.autograd.grad(
            loss, [everything[n] for n in shared], retain_graph=True, materialize_grads=True
        )
        for loss in losses
    ]
    g = torch.stack([torch.cat([t.reshape(-1) for t in row]) for row in rows])
    w = two_task_mgda(g)
    net.fit(X, y)
    for k, (name, p) in enumerate(net.module_.named_parameters()):
        loss = (w * losses).sum() if name in shared else losses.mean()
        (grad,) = torch.autograd.grad(loss, [everything[name]], retain_graph=True)
        message = f"parameter {k}, {name}"
        torch.testing.assert_close(
            p, everything[name] - 0.1 * grad, rtol=1e-3, atol=1e-6, msg=message
        )


def test_a_module_instance_is_never_trained():
    torch.manual_seed(0)
    mine = nn.Linear(4, 3)
    before = [p.detach().clone() for p in mine.parameters()]
    net = make(module=mine, **UNCHANGED).fit(X, Y)
    assert same_tensors(before, [p.detach() for p in mine.parameters()])
    assert net.module is mine
    assert not same_tensors(before, parameters(net))
    again = clone(net).fit(X, Y)  # starts from the same weights
    assert np.array_equal(again.predict(X), net.predict(X))
    net.partial_fit(X, Y)
    assert same_tensors(before, [p.detach() for p in mine.parameters()])


def test_torch_s_own_module_class_with_parameters():
    net = make(
        module=nn.Linear, module__in_features=4, module__out_features=3, max_epochs=1, **UNCHANGED
    ).fit(X, Y)
    assert type(net.module_) is nn.Linear
    with torch.no_grad():
        wanted = net.module_(torch.tensor(X)).double().numpy()
    assert np.array_equal(net.predict(X), wanted)


def test_equal_hidden_layer_sizes_in_a_list_are_no_parameter_of_another_module():
    net = make(module=nn.Linear(4, 3), hidden_layer_sizes=[64, 64], max_epochs=1)
    assert net.fit(X, Y).predict(X).shape == (48, 3)


def test_dropout_and_batch_norm_know_training_from_prediction():
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    net = make(module=module, **UNCHANGED).fit(X, Y)
    assert np.array_equal(net.predict(X), net.predict(X))
    np.testing.assert_allclose(net.predict(X[:1]), net.predict(X)[:1], rtol=1e-5, atol=1e-6)
    assert int(net.module_[1].num_batches_tracked) == 9


def test_linear_model_without_a_trunk():
    net = make(hidden_layer_sizes=(), aggregator="ConicGrad", max_epochs=1).fit(X, Y)
    assert sum(p.numel() for p in net.module_.parameters()) == 4 * 3 + 3
    assert net.predict(X).shape == (48, 3)


def test_device_auto():
    net = make(device="auto", max_epochs=1).fit(X, Y)
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    assert next(net.module_.parameters()).device.type == wanted
    assert net.get_params()["device"] == "auto"
    twin = pickle.loads(pickle.dumps(net))
    assert twin.get_params()["device"] == "auto"
    assert np.array_equal(twin.predict(X), net.predict(X))
    assert type(net.predict(X)) is np.ndarray
    if wanted == "cpu":
        assert np.array_equal(net.predict(X), make(max_epochs=1).fit(X, Y).predict(X))


# ---- skorch


def test_valid_split_holds_rows_out():
    net = make(train_split=ValidSplit(4), lr=0.0, max_epochs=1, callbacks=[Callback()])
    module = initial_module(net)
    net.fit(X, Y)
    row = net.history_[-1]
    sizes = [sum(b.get(f"{p}_batch_size", 0) for b in row["batches"]) for p in ("train", "valid")]
    assert sizes == [36, 12]
    with torch.no_grad():
        element = ((module(torch.tensor(X)) - torch.tensor(Y)) ** 2).numpy()
    both = 36 * np.array(row["train_losses"]) + 12 * np.array(row["valid_losses"])
    np.testing.assert_allclose(both, element.sum(0), rtol=1e-4)
    assert row["valid_loss"] == pytest.approx(np.mean(row["valid_losses"]), rel=1e-5)


def test_valid_split_with_missing_labels():
    y = Y.copy()
    y[::2, 0] = np.nan
    net = make(train_split=ValidSplit(4)).fit(X, y)
    assert np.isfinite(net.history_[:, "valid_losses"]).all()
    assert np.isfinite(net.history_[:, "valid_loss"]).all()


@pytest.mark.parametrize("on_train", [True, False])
def test_epoch_scoring(on_train):
    scoring = EpochScoring("r2", name="r2", on_train=on_train, lower_is_better=False)
    net = make(train_split=ValidSplit(4), callbacks=[scoring], lr=0.0, max_epochs=1).fit(X, Y)
    rows = slice(12, None) if on_train else slice(12)  # the first of four folds in order
    by_hand = r2_score(Y[rows], net.predict(X[rows]))
    assert net.history_[-1]["r2"] == pytest.approx(by_hand, rel=1e-4)


def test_gradient_norm_clipping_bounds_the_step():
    clip = GradientNormClipping(0.01)
    net = make(optimizer="SGD", lr=1.0, max_epochs=1, batch_size=-1, callbacks=[clip])
    start = initial_module(net)
    net.fit(X, Y)
    moved = torch.cat(
        [
            (a - b).reshape(-1)
            for a, b in zip(net.module_.parameters(), start.parameters(), strict=True)
        ]
    )
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-3)


def test_lr_scheduler():
    net = make(lr=0.1, callbacks=[LRScheduler("StepLR", step_size=1, gamma=0.5)]).fit(X, Y)
    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)
    assert net.get_params()["lr"] == 0.1
    assert net.history_[:, "event_lr"] == pytest.approx([0.1, 0.05, 0.025])


def test_early_stopping_ends_fit_quietly():
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=10.0, sink=lambda text: None)
    net = make(max_epochs=20, callbacks=[stop])
    try:
        net.fit(X, Y)
    except KeyboardInterrupt:  # pytest itself would stop
        pytest.fail("EarlyStopping came out of fit as a KeyboardInterrupt")
    assert len(net.history_) == 3  # the first is the best, then two of patience
    assert np.isfinite(net.predict(X)).all()


class Interrupt(Callback):
    """Press Ctrl-C once, in the middle of an epoch."""

    def __init__(self, at=5):
        self.at = at
        self.seen = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt


def test_ctrl_c_propagates_and_leaves_a_usable_net():
    net = make(callbacks=[("ctrl_c", Interrupt())])
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y)
    assert net.n_steps_ == 5
    learned = net.predict(X)
    assert np.isfinite(learned).all()
    with torch.no_grad():
        assert not np.allclose(learned, initial_module(make())(torch.tensor(X)).numpy())
    twin = pickle.loads(pickle.dumps(net))
    assert np.array_equal(twin.predict(X), learned)
    net.partial_fit(X, Y)
    assert np.isfinite(net.history_[-1]["train_losses"]).all()
    assert len(net.fit(X, Y).history_) == 3


# ---- divergence


@pytest.mark.parametrize("aggregator", ["LinearScalarization", "MGDA", "ConicGrad"])
def test_divergence_names_epoch_task_and_learning_rate(aggregator):
    y = pd.DataFrame(Y, columns=NAMES)
    net = make(optimizer="SGD", lr=1e12, max_epochs=9, batch_size=-1, aggregator=aggregator)
    with pytest.raises(DivergenceError) as caught:
        net.fit(X, y)
    message = str(caught.value)
    assert "\n" not in message
    assert "1e+12" in message
    epoch = int(re.search(r"epoch (\d+)", message).group(1))
    assert epoch == len(net.history_)
    assert 2 <= epoch <= 9
    assert any(repr(name) in message for name in NAMES)
    assert isinstance(caught.value, ArithmeticError)


def test_divergence_names_the_task_that_diverged():
    def second_is_nan(prediction, label):
        return (prediction[:, 0] - label) ** 2 * torch.where(label > 100, torch.nan, 1.0)

    y = Y.copy()
    y[7, 1] = 200.0
    with pytest.raises(DivergenceError, match=r"'tau 1'.*nan.*epoch 1.*lr=0.003"):
        make(criterion=second_is_nan).fit(X, pd.DataFrame(y, columns=NAMES))


def test_divergence_in_the_very_last_step_does_not_pass_in_silence():
    net = make(optimizer="SGD", lr=1e38, max_epochs=1, batch_size=-1)
    with pytest.raises(DivergenceError, match="epoch 1"):
        net.fit(X, 1e3 * Y)


def test_divergence_writes_no_gradient_of_the_failed_step():
    net = make(optimizer="SGD", lr=0.1, batch_size=-1, max_epochs=1).fit(X, Y)
    before = parameters(net)
    with pytest.raises(DivergenceError):
        net.partial_fit(X, np.full_like(Y, 1e30))
    assert same_tensors(parameters(net), before)
