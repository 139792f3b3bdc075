"""ConflictLog: what it records, and that training does not notice."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from skorch import NeuralNetRegressor
from skorch.dataset import ValidSplit
from torch import nn

from mtlsk import MultiTaskNet, MultiTaskRegressor
from mtlsk.callbacks import ConflictLog
from mtlsk.estimators.gradients import gramian_over
from mtlsk.estimators.printlog import EpochCallback
from mtlsk.gramian import cosines

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype(np.float32)
Y = np.c_[X[:, 0], X[:, 0] ** 2, -X[:, 0]].astype(np.float32)
SOME = np.where(RNG.random(Y.shape) < 0.3, np.nan, Y).astype(np.float32)


def make(*logs, **params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 3, "batch_size": 16, "random_state": 0}
    callbacks = [(f"log{i}", log) for i, log in enumerate(logs)]
    return MultiTaskRegressor(**{**small, "callbacks": callbacks, **params})


class Restless(nn.Module):
    """Counts its calls, draws in evaluation mode too, and keeps a part in evaluation mode."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_features)
        self.frozen = nn.Dropout(0.5).eval()
        self.linear = nn.Linear(n_features, n_outputs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        x = self.frozen(self.norm(x))
        return self.linear(x) * (1 + 0.1 * torch.rand(len(x), 1))


class Draws(EpochCallback):
    """Another callback, after ours, to which chance matters."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("drawn", float(torch.rand(())))


RESTLESS = {"module": Restless, "hidden_layer_sizes": (64, 64)}


@pytest.mark.parametrize("options", [{}, {"X": X[:20], "y": SOME[:20]}], ids=["sample", "given"])
@pytest.mark.parametrize("module", [{}, RESTLESS], ids=["HardSharing", "Restless"])
@pytest.mark.parametrize("aggregator", ["LinearScalarization", "MGDA"])
def test_training_is_the_same_to_the_bit(aggregator, module, options):
    params = {"aggregator": aggregator, **module}
    plain = make(Draws(), **params).fit(X, SOME)
    logged = make(ConflictLog(**options), Draws(), **params).fit(X, SOME)
    assert plain.history_[:, "drawn"] == logged.history_[:, "drawn"]
    a, b = plain.module_.state_dict(), logged.module_.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert plain.history_[:, "train_losses"] == logged.history_[:, "train_losses"]
    assert [len(row["batches"]) for row in logged.history_] == [0, 0, 0]
    assert [p.grad is None for p in plain.module_.parameters()] == [
        p.grad is None for p in logged.module_.parameters()
    ]


@pytest.mark.parametrize("aggregator", ["LinearScalarization", "FAMO", "MGDA"])
def test_what_is_recorded_after_the_last_epoch_is_that_of_the_fitted_net(aggregator):
    log = ConflictLog(pd.DataFrame(X[:20]), SOME[:20])
    net = make(log, aggregator=aggregator).fit(pd.DataFrame(X), SOME)
    expected = cosines(net.task_gramian(pd.DataFrame(X[:20]), SOME[:20])[0])
    found = np.array(net.history_[-1, "logged_cosines"])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not np.array_equal(net.history_[0, "logged_cosines"], found)
    assert ("cosines" in net.history_[0]) == (aggregator == "MGDA")


@pytest.mark.parametrize("features", [X, pd.DataFrame(X), sparse.csr_matrix(X)], ids=type)
def test_without_rows_the_training_rows_are_looked_at(features):
    net = make(ConflictLog()).fit(features, SOME)  # all 50 of them
    expected = cosines(net.task_gramian(features, SOME)[0])
    np.testing.assert_allclose(net.history_[-1, "logged_cosines"], expected, atol=1e-6)


def test_classes_and_weights_of_rows():
    """Inside a fit labels are class indices, beside their weights: neither disturbs it."""
    words = np.where(X[:, 0] > 0.5, "much", np.where(X[:, 1] > 0, "some", "none"))
    y = pd.DataFrame({"amount": words, "price": X[:, 2] ** 2})
    params = {"tasks": {"amount": "multiclass", "price": "regression"}}
    small = {"max_epochs": 2, "batch_size": 16, "random_state": 0, **params}
    log = ConflictLog(X[:30], y[:30], name="on_thirty")
    net = MultiTaskNet((8,), callbacks=[("a", ConflictLog()), ("b", log)], **small)
    net.fit(X, y, sample_weight=np.linspace(0.5, 1, 50))
    for name, rows in (("logged_cosines", slice(None)), ("on_thirty", slice(30))):
        expected = cosines(net.task_gramian(X[rows], y[rows])[0])
        np.testing.assert_allclose(net.history_[-1, name], expected, atol=1e-6)


def test_a_sample_is_limited_seeded_and_of_training_rows(monkeypatch):
    seen, plain = [], gramian_over

    def watched(net, features, targets, **options):
        seen.append(features)
        return plain(net, features, targets, **options)

    monkeypatch.setattr("mtlsk.callbacks.gramian_over", watched)
    split = ValidSplit(5)
    first = make(ConflictLog(n_rows=10), train_split=split).fit(X, Y)
    again = make(ConflictLog(n_rows=10), train_split=split).fit(X, Y)
    other = make(ConflictLog(n_rows=10, random_state=1), train_split=split).fit(X, Y)
    assert all(np.array_equal(rows, seen[0]) for rows in seen[:6])
    assert not np.array_equal(seen[6], seen[0])
    valid = split(net_dataset(first), Y)[1]
    held = {tuple(valid[i][0]) for i in range(len(valid))}
    for rows in seen:
        assert len(np.unique(rows, axis=0)) == 10
        assert not held & {tuple(row) for row in rows}
    names = first.history_[:, "logged_cosines"], again.history_[:, "logged_cosines"]
    assert names[0] == names[1] != other.history_[:, "logged_cosines"]


def net_dataset(net):
    return net.get_dataset(X, Y)


def test_every_and_two_logs_under_two_names():
    logs = ConflictLog(every=2), ConflictLog(X[:9], Y[:9], name="on_nine")
    net = make(*logs, max_epochs=4).fit(X, Y)
    assert ["logged_cosines" in row for row in net.history_] == [True, False, True, False]
    assert all("on_nine" in row for row in net.history_)
    net.partial_fit(X, Y)
    assert "logged_cosines" in net.history_[-1]


def test_a_task_without_a_label_in_the_sample_is_nan():
    y = Y.copy()
    y[1:, 2] = np.nan
    net = make(ConflictLog(n_rows=5, random_state=1)).fit(X, y)
    found = np.array(net.history_[-1, "logged_cosines"])
    assert np.isnan(found[2]).all()
    assert found[0, 0] == 1.0
    assert -1 <= found[0, 1] <= 1


def test_it_is_cloned_and_pickled_without_rows():
    net = make(ConflictLog()).fit(X, Y)
    assert pickle.loads(pickle.dumps(net)).history_[:, "logged_cosines"]
    assert dict(net.callbacks_)["log0"].rows_ is None
    again = clone(net).fit(X, Y)
    assert again.history_[:, "logged_cosines"] == net.history_[:, "logged_cosines"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"X": X}, "y is None"),
        ({"y": Y}, "X is None"),
        ({"every": 0}, "every=0"),
        ({"n_rows": 2.5}, "n_rows=2.5"),
    ],
)
def test_wrong_parameters_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        make(ConflictLog(**options)).fit(X, Y)


def test_another_net_is_refused():
    net = NeuralNetRegressor(nn.Linear, module__in_features=6, module__out_features=3)
    net.set_params(callbacks=[ConflictLog()], verbose=0, train_split=None, max_epochs=1)
    with pytest.raises(ValueError, match="needs an mtlsk net"):
        net.fit(X, Y)
