"""Sentences about gradients, each on a set made to have what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone

from mtlsk import MultiTaskRegressor
from mtlsk.findings import Measured, findings

RNG = np.random.default_rng(3)


def measured(j, **facts):
    """Return the measurement of gradients J (K, M)."""
    j = np.asarray(j, dtype=float)
    k = len(j)
    default = {
        "names": tuple(f"t{i}" for i in range(k)),
        "gramian": torch.from_numpy(j @ j.T),
        "losses": torch.ones(k, dtype=torch.float64),
        "labelled": (50,) * k,
        "n_rows": 50,
        "n_shared": 100,
    }
    return Measured(**{**default, **facts})


def by_topic(m):
    found = findings(m)
    assert found[0].topic == "measured"
    for finding in found:
        assert "nan" not in finding.sentence
        assert "\n" not in finding.sentence
        assert finding.sentence.endswith(".")
    return {f.topic: f for f in found}


def steps_down(m, weights):
    """Return the progress of every task along a weighted sum of gradients."""
    return m.seen.numpy() @ np.asarray(weights)


ORTHOGONAL = np.eye(3)
CONFLICT = np.array([[1.0, 0.0, 0.0], [-0.9, 1.0, 0.0], [-0.9, 0.0, 1.0]])
OPPOSED = np.array([[1.0, 0.0], [-1.0, 4e-3]])
SCALED = np.diag([100.0, 1.0, 2.0])


def test_orthogonal_gradients_need_nothing():
    found = by_topic(measured(ORTHOGONAL))
    assert found["conflict"].sentence.startswith("No pair of tasks conflicts")
    assert found["scalarization"].sentence.startswith("Equal weights are enough here")
    assert "every task 58% or more" in found["stationarity"].sentence  # 1 / sqrt(3)
    assert "within a factor of 1.0" in found["scales"].sentence
    assert found["try"].params == {"aggregator": "LinearScalarization"}
    assert "weights" not in found


def test_pairs_in_conflict_are_named_with_their_cosine():
    m = measured(CONFLICT)
    sentence = by_topic(m)["conflict"].sentence
    assert sentence.startswith("2 of 3 pairs of tasks conflict")
    assert f"'t0' and 't1' {-0.9 / math.hypot(0.9, 1):.2f}" in sentence
    assert "'t1' and 't2'" not in sentence
    single = by_topic(measured(CONFLICT[:2]))["conflict"].sentence
    assert single.startswith("1 of 1 pairs of tasks conflicts")


def test_a_cosine_just_below_zero_is_no_conflict():
    nearly = [[1.0, 0.0], [-0.05, 1.0]]
    assert by_topic(measured(nearly))["conflict"].sentence.startswith("No pair")
    clearly = [[1.0, 0.0], [-0.2, 1.0]]
    assert by_topic(measured(clearly))["conflict"].sentence.startswith("1 of 1")


def epochs(*values, first=1):
    """Return a history in which tasks 0 and 1 have these cosines, None for no record."""
    rows = []
    for epoch, value in enumerate(values, first):
        c = np.eye(3)
        c[0, 1] = c[1, 0] = math.nan if value is None else value
        rows.append({"epoch": epoch, "cosines": c.tolist(), "task_weights": [1 / 3] * 3})
    return rows


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (epochs(0.5, -0.2, -0.3), "(in training since epoch 2)"),
        (epochs(-0.5, 0.4, 0.2, -0.3), "(in training since epoch 4)"),
        (epochs(-0.5, None, -0.3), "(in training from the first epoch)"),
        (epochs(None, 0.5, -0.3, None), "(in training since epoch 3)"),
        (epochs(-0.5, 0.25), "(but 0.25 in training, at epoch 2)"),
        (epochs(None, None), "(in training there was nothing to compare)"),
    ],
)
def test_since_when_a_pair_conflicts(history, words):
    found = by_topic(measured(CONFLICT, history=history))
    assert f"'t0' and 't1' -0.67 {words}" in found["conflict"].sentence
    assert "record" not in found


def test_without_a_record_it_says_how_to_get_one():
    history = [{"epoch": 1, "task_weights": [1 / 3] * 3}]
    found = by_topic(measured(CONFLICT, history=history))
    assert "no record of cosines" in found["record"].sentence
    assert found["record"].params["aggregator__c"] == 1.0
    assert "since epoch" not in found["conflict"].sentence
    assert "record" not in by_topic(measured(CONFLICT))  # never trained: nothing to record


def test_a_mean_gradient_that_hurts_and_weights_that_do_not():
    j = [[10.0, 0.0], [-3.0, 1.0]]
    m = measured(j)
    finding = by_topic(m)["scalarization"]
    assert "'t1' (-0.89)" in finding.sentence
    weights = finding.params["aggregator__weights"]
    assert (steps_down(m, weights) > 0).all()
    assert (steps_down(m, [0.5, 0.5]) > 0).tolist() == [True, False]


@pytest.mark.parametrize("seed", range(30))
def test_the_weights_lower_every_task_wherever_that_is_said(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 7))
    m = measured(rng.standard_normal((k, 8)) * 10 ** rng.uniform(-2, 2, (k, 1)))
    found = by_topic(m)
    finding = found["scalarization"]
    if finding.params:
        progress = steps_down(m, finding.params["aggregator__weights"])
        assert (progress / m.norms > 0).all()
        assert "Weights that lower every task" in finding.sentence
    elif finding.sentence.startswith("Equal weights are enough"):
        assert (steps_down(m, np.ones(k)) >= -1e-3 * m.norms * m.norms.max()).all()
    _, share = m.common
    direction = np.linalg.norm(m.common[0] * m.norms)
    assert direction > 0
    assert 0 <= share <= 1


def test_opposed_tasks_are_a_trade_off():
    found = by_topic(measured(OPPOSED))
    assert "near a Pareto-stationary point" in found["stationarity"].sentence
    assert "0.2%" in found["stationarity"].sentence
    assert "ScalarizationFront" in found["try"].sentence
    assert not found["try"].params


def test_lengths_that_differ_are_balanced():
    m = measured(SCALED)
    finding = by_topic(m)["scales"]
    assert "factor of 100: 't0' has the longest gradient (1e+02), 't1' the shortest (1)" in (
        finding.sentence
    )
    scale = finding.params["task_scale"]
    np.testing.assert_allclose(m.norms * scale, (m.norms * scale)[0], rtol=0.01)
    assert np.mean(scale) == pytest.approx(1, rel=0.01)
    assert "(kappa 1e+04 -> 1)" in finding.sentence
    assert by_topic(m)["try"].params == finding.params


def test_a_task_scale_in_force_counts():
    m = measured(SCALED, scale=(0.01, 1.0, 0.5))
    found = by_topic(m)
    assert "within a factor of 1.0" in found["scales"].sentence
    assert "task_scale applied" in found["measured"].sentence
    worse = by_topic(measured(SCALED, scale=(10.0, 1.0, 1.0)))["scales"]
    scale = np.array(worse.params["task_scale"])  # replaces the one in force
    np.testing.assert_allclose(scale * [100, 1, 2], (scale * [100, 1, 2])[0], rtol=0.01)


def test_weights_that_collapse():
    rows = [{"epoch": 1, "task_weights": [0.02, 0.95, 0.03]}]
    found = [
        f.sentence for f in findings(measured(ORTHOGONAL, history=rows)) if f.topic == "weights"
    ]
    assert len(found) == 1
    assert "'t1' had 95%" in found[0]
    rows[0]["task_weights"] = [0.2, 0.6, 0.2]
    assert "weights" not in by_topic(measured(ORTHOGONAL, history=rows))
    mgda = [f for f in findings(measured(SCALED)) if f.topic == "weights"]
    assert not mgda  # t2 is as short as t1
    short = [f for f in findings(measured(np.diag([100.0, 1.0, 50.0]))) if f.topic == "weights"]
    assert "MGDA's min-norm weights put 100% on 't1'" in short[0].sentence
    assert short[0].params["aggregator__normalization"] == "l2"


def test_missing_labels_are_counted():
    sentence = by_topic(measured(ORTHOGONAL, labelled=(50, 20, 50)))["measured"].sentence
    assert sentence.endswith("where not all have one: 't1' 20.")


def test_one_task():
    found = findings(measured([[1.0, 2.0]]))
    assert [f.topic for f in found] == ["measured", "conflict"]
    assert "nothing can conflict" in found[1].sentence


def test_nothing_shared():
    m = measured(np.zeros((3, 1)), n_shared=0)
    assert [f.topic for f in findings(m)] == ["measured", "conflict"]
    assert "share no parameters" in findings(m)[1].sentence


def test_zero_gradients_take_no_part():
    found = by_topic(measured(np.vstack([CONFLICT, np.zeros((1, 3))])))
    assert "'t3' is zero" in found["zero gradient"].sentence
    assert "2 of 3 pairs" in found["conflict"].sentence
    alone = by_topic(measured([[1.0, 0.0], [0.0, 0.0]]))
    assert "Fewer than two" in alone["conflict"].sentence
    nothing = by_topic(measured(np.zeros((3, 2))))
    assert "'t0', 't1', 't2' is zero" in nothing["zero gradient"].sentence
    assert measured(np.zeros((3, 2))).dual.tolist() == [0, 0, 0]


def test_forty_tasks_with_long_names_stay_short():
    names = tuple(f"a rather long name of a column, number {i}" for i in range(40))
    j = RNG.standard_normal((40, 60)) * 10 ** RNG.uniform(-2, 2, (40, 1))
    for finding in findings(measured(j, names=names, labelled=(3,) * 40)):
        assert len(finding.sentence) < 700
    m = measured(j, names=names)
    assert "more." in by_topic(m)["conflict"].sentence


@pytest.mark.parametrize(
    "j", [ORTHOGONAL, CONFLICT, SCALED, OPPOSED, np.diag([100.0, 1.0, 50.0])], ids=range(5)
)
def test_what_to_try_can_be_set(j):
    X, y = RNG.normal(size=(20, 2)), RNG.normal(size=(20, len(j)))
    net = MultiTaskRegressor((4,), "FAMO", max_epochs=1, random_state=0)
    history = [{"epoch": 1, "task_weights": [1.0, *[0.0] * (len(j) - 1)]}]
    tried = 0
    for finding in findings(measured(j, history=history)):
        if finding.params:
            clone(net).set_params(**finding.params).fit(X, y)
            tried += 1
    assert tried >= 1
