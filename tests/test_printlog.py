"""The mean cosines of an epoch in the history."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtlsk import MultiTaskRegressor
from mtlsk.descent import Descent
from mtlsk.estimators import printlog
from mtlsk.estimators.printlog import MeanCosines

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype(np.float32)
Y = np.c_[X[:, 0], X[:, 0] ** 2, np.sin(2 * X[:, 1]), -X[:, 0]].astype(np.float32)
SOME = np.where(RNG.random(Y.shape) < 0.4, np.nan, Y).astype(np.float32)
ONE = np.where(np.arange(4) == RNG.choice(4, (50, 1)), Y, np.nan).astype(np.float32)


def make(**params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 2, "batch_size": 16, "random_state": 0}
    return MultiTaskRegressor(**{**small, "aggregator": "MGDA", **params})


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_cosines_are_those_of_the_task_gradients():
    """One batch at a learning rate of zero, differentiated task by task."""
    scale = [1.0, 5.0, 0.0, 0.5]  # the aggregator sees no task 2, its own gradient is there
    net = make(batch_size=-1, optimizer="SGD", lr=0.0, task_scale=scale).fit(X, Y)
    losses = ((net.module_(torch.from_numpy(X)) - torch.from_numpy(Y)) ** 2).mean(0)
    shared = list(net.module_.shared_parameters())
    g = [
        torch.cat([p.flatten() for p in torch.autograd.grad(one, shared, retain_graph=True)])
        for one in losses
    ]
    expected = [[cosine(a, b) for b in g] for a in g]
    for found in net.history_[:, "cosines"]:
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert [found[k][k] for k in range(4)] == [1.0] * 4
    lowest = min(expected[i][j] for i in (1, 3) for j in (0, 1) if i != j)
    assert net.history_[:, "min_cosine"] == pytest.approx([lowest] * 2, abs=1e-5)


@pytest.mark.parametrize("held", [3, 64])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("y", [Y, SOME, ONE], ids=["all", "some", "one"])
def test_each_pair_is_averaged_over_the_steps_that_had_both(monkeypatch, y, batch_size, held):
    monkeypatch.setattr(printlog, "HELD", held)
    records, backward = [], Descent.backward

    def watched(self, *args):
        records.append(backward(self, *args))
        return records[-1]

    monkeypatch.setattr(Descent, "backward", watched)
    net = make(batch_size=batch_size).fit(X, y)
    for epoch, row in enumerate(net.history_):
        half = len(records) // 2
        seen = np.full((half, 4, 4), np.nan)
        for s, record in enumerate(records[epoch * half : (epoch + 1) * half]):
            for a, i in enumerate(record.present):
                for b, j in enumerate(record.present):
                    norms = record.task_gramian[a, a] * record.task_gramian[b, b]
                    if norms > 0:
                        seen[s, i, j] = float(record.task_gramian[a, b] / norms**0.5)
        counts = (~np.isnan(seen)).sum(0)
        expected = np.where(counts > 0, np.nansum(seen, 0) / np.maximum(counts, 1), np.nan)
        np.testing.assert_allclose(row["cosines"], expected, atol=1e-9)


def test_a_pair_that_never_was_is_nan_and_a_zero_gradient_has_no_cosine():
    mean = MeanCosines(3)
    mean.add(torch.tensor([[4.0, 1.0], [1.0, 1.0]], dtype=torch.float64), (0, 2))
    mean.add(torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64), (0, 2))
    found = mean.value()
    assert found[0] == pytest.approx([1.0, np.nan, 0.5], nan_ok=True)
    assert found[1] == pytest.approx([np.nan] * 3, nan_ok=True)
    assert found[2] == pytest.approx([0.5, np.nan, 1.0], nan_ok=True)
    mean.add(torch.zeros(1, 1, dtype=torch.float64), (1,))  # there, but never with a direction
    assert np.isnan(mean.value()[1]).all()


def test_one_task_has_a_cosine_with_itself_only():
    net = make().fit(X, Y[:, 0])
    assert net.history_[:, "cosines"] == [[[1.0]]] * 2
    assert "min_cosine" not in net.history_[0]


@pytest.mark.parametrize(
    "options", [{"aggregator": "LinearScalarization"}, {"gramian": "online"}], ids=str
)
def test_absent_where_no_gramian_was_made(options):
    assert all("cosines" not in row for row in make(**options).fit(X, Y).history_)


def test_weights_that_are_kept_leave_steps_without_a_gramian():
    often, seldom = (make(gramian={"every": n}, lr=0.0).fit(X, Y) for n in (1, 4))
    few = make(gramian={"every": 4}, lr=0.0, max_epochs=1).fit(X, Y)
    assert few.history_[0, "cosines"] == seldom.history_[0, "cosines"]  # that of the first batch
    assert np.shape(often.history_[0, "cosines"]) == (4, 4)
    assert often.history_[0, "cosines"] != seldom.history_[0, "cosines"]


def test_the_history_goes_through_a_file_as_skorch_writes_it(tmp_path):
    """NaN is written as skorch and Python's json write it, as for the loss of an absent task."""
    y = np.where(np.arange(50)[:, None] % 2 == np.array([0, 1, 0, 1]), Y, np.nan)
    net = make(batch_size=1).fit(X, y)  # tasks 0 and 1 are never together
    net.history_.to_file(tmp_path / "history.json")
    again = type(net.history_).from_file(tmp_path / "history.json")
    assert np.isnan(again[0, "cosines"][0][1])
    for a, b in zip(again[:, "cosines"], net.history_[:, "cosines"], strict=True):
        np.testing.assert_array_equal(a, b)
