"""Aggregators: the contract, properties as named sets, pinned values, the papers' facts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.base import clone

from mtlsk.aggregators import AGGREGATORS, MGDA, CAGrad, ConicGrad, LinearScalarization, OnlineDual
from mtlsk.testing import check_aggregator

MEAN = LinearScalarization()
FIXED = LinearScalarization(weights=[0.8, 0.1, 0.1])
BALLS = [CAGrad(c=0.0), CAGrad(c=0.5), CAGrad(c=1.0), CAGrad(c=2.0)]
CONES = [ConicGrad(c=0.05), ConicGrad(c=0.5), ConicGrad(c=0.95), ConicGrad(c=1.0)]
FLIP, PRINTED = ConicGrad(solver="flip"), ConicGrad(solver="printed")
ALL = [MEAN, FIXED, MGDA(), *BALLS, *CONES, FLIP, PRINTED]

# each set is proven, and so is its complement: members hold on all sets, others fail on one
NON_CONFLICTING = ["MGDA()", "CAGrad(c=1.0)", "CAGrad(c=2.0)"]
PERMUTATION_EQUIVARIANT = [repr(a) for a in ALL if a is not FIXED]
SCALE_INVARIANT = []  # no member is indifferent to the units of one task
LENGTH_OF_THE_MEAN = [repr(a) for a in (MEAN, CAGrad(c=0.0), *CONES, FLIP, PRINTED)]
CONVEX = [repr(a) for a in (MEAN, FIXED, MGDA(), CAGrad(c=0.0), ConicGrad(c=1.0))]
STATELESS = [repr(a) for a in ALL if a not in (FLIP, PRINTED)]
DESCENDS_THE_MEAN = [repr(a) for a in ALL if a not in (FIXED, PRINTED)]


def jacobian(seed, k=3, m=8, ratio=10.0):
    """Return J (K, m): independent, correlated or conflicting rows in turn."""
    rng = np.random.default_rng(seed)
    j = rng.standard_normal((k, m))
    common = rng.standard_normal(m)
    if seed % 3 == 1:
        j = 0.3 * j + common
    if seed % 3 == 2:
        j += np.where(np.arange(k) % 2 == 0, 1.0, -1.0)[:, None] * common
    return torch.from_numpy(j * np.geomspace(1.0, ratio, k)[rng.permutation(k), None])


SETS = [jacobian(seed, k=3) for seed in range(30)]
SETS[3] = torch.zeros(3, 8, dtype=torch.float64)
SETS[3][:, :3] = torch.tensor([[-3.0, 0.02, 0.0], [10.0, 0.0, 0.0], [0.0, 0.0, 0.1]])


def weights(aggregator, j):
    """Return the weights of a fresh copy on the Gramian of J, in its fifth call if it learns."""
    live = clone(aggregator)
    for _ in range(1 if repr(aggregator) in STATELESS else 5):
        w = live.task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))
    return w


def update(aggregator, j):
    return weights(aggregator, j) @ j


def holds_on(members, prove):
    """Assert that ``prove`` holds on every set for the members and fails on one for the others."""
    for aggregator in ALL:
        held = [prove(aggregator, j) for j in SETS]
        if repr(aggregator) in members:
            assert all(held), f"{aggregator}: fails on set {held.index(False)}"
        else:
            assert not all(held), f"{aggregator}: holds on every set, so it may be a member"


def test_every_member_is_among_those_tested():
    assert {type(a).__name__ for a in ALL} == set(AGGREGATORS.members())
    names = {repr(a) for a in ALL}
    assert len(names) == len(ALL)
    for group in (NON_CONFLICTING, LENGTH_OF_THE_MEAN, CONVEX, DESCENDS_THE_MEAN):
        assert set(group) <= names


@pytest.mark.parametrize("aggregator", ALL, ids=repr)
def test_the_contract(aggregator):
    check_aggregator(aggregator)


def test_non_conflicting():
    def prove(aggregator, j):
        d = update(aggregator, j)
        return bool((j @ d >= -1e-9 * j.norm(dim=1) * d.norm()).all())

    holds_on(NON_CONFLICTING, prove)


def test_permutation_equivariant():
    order = torch.tensor([2, 0, 1])

    def prove(aggregator, j):
        return torch.allclose(update(aggregator, j[order]), update(aggregator, j), rtol=1e-7)

    holds_on(PERMUTATION_EQUIVARIANT, prove)


def test_scale_invariant():
    def prove(aggregator, j):
        units = torch.tensor([[1.0], [3.0], [1.0]], dtype=torch.float64)
        a, b = update(aggregator, j), update(aggregator, units * j)
        return torch.allclose(a / a.norm(), b / b.norm(), rtol=1e-6)

    holds_on(SCALE_INVARIANT, prove)


@pytest.mark.parametrize("aggregator", ALL, ids=repr)
@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_one_unit_for_all_tasks_changes_no_weight(aggregator, scale):
    for j in SETS[:6]:
        torch.testing.assert_close(
            weights(aggregator, scale * j), weights(aggregator, j), rtol=1e-6, atol=1e-9
        )


def test_length_of_the_mean():
    def prove(aggregator, j):
        return math.isclose(update(aggregator, j).norm(), j.mean(0).norm(), rel_tol=1e-9)

    holds_on(LENGTH_OF_THE_MEAN, prove)


def test_convex():
    def prove(aggregator, j):
        w = weights(aggregator, j)
        return bool((w >= 0).all()) and math.isclose(w.sum(), 1, rel_tol=1e-9)

    holds_on(CONVEX, prove)


def test_stateless():
    def prove(aggregator, j):
        live = clone(aggregator)
        first, second = (live.task_weights(j @ j.T, torch.ones(3)) for _ in range(2))
        assert bool(live.state_dict()) == (repr(aggregator) not in STATELESS)
        return torch.equal(first, second)

    holds_on(STATELESS, prove)


def test_descends_the_mean():
    def prove(aggregator, j):
        return bool(update(aggregator, j) @ j.mean(0) >= 0)

    holds_on(DESCENDS_THE_MEAN, prove)


ONE_PAGE = torch.tensor([[4.0, -1.0, 0.5], [-1.0, 1.0, 0.2], [0.5, 0.2, 0.25]]).double()


@pytest.mark.parametrize(
    ("aggregator", "expected"),
    [
        (MEAN, [1 / 3, 1 / 3, 1 / 3]),
        (FIXED, [0.8, 0.1, 0.1]),
        (MGDA(), [0.0, 1 / 17, 16 / 17]),
        (CAGrad(c=0.5), [0.333333, 0.655366, 0.485852]),
        (ConicGrad(c=0.9), [0.160344, 0.350884, 0.803809]),
    ],
    ids=repr,
)
def test_pinned_values(aggregator, expected):
    w = clone(aggregator).task_weights(ONE_PAGE, torch.ones(3))
    torch.testing.assert_close(w, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_losses_are_the_only_need_of_scalarization():
    assert [a.needs for a in (MEAN, MGDA(), CAGrad(), ConicGrad())] == ["losses"] + ["gramian"] * 3
    assert MEAN.task_weights(None, torch.ones(4)).tolist() == [0.25] * 4
    for aggregator in (MGDA(), CAGrad(), ConicGrad()):
        with pytest.raises(ValueError, match="needs the Gramian"):
            aggregator.task_weights(None, torch.ones(2))


def test_scalarization_takes_weights_as_they_are_and_counts_them():
    live = LinearScalarization(weights=[3, 1, 0])
    assert live.task_weights(None, torch.ones(3)).tolist() == [3, 1, 0]
    live.active_ = (0, 2)
    assert live.task_weights(None, torch.ones(2)).tolist() == [3, 0]
    live.active_ = None
    with pytest.raises(ValueError, match="3 entries for 2 tasks; give one weight a task"):
        live.task_weights(None, torch.ones(2))


@pytest.mark.parametrize("aggregator", [MGDA(), CAGrad(), ConicGrad(), FLIP], ids=repr)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_named(aggregator, bad):
    g = torch.eye(3, dtype=torch.float64)
    g[1, :] = g[:, 1] = bad
    with pytest.raises(ValueError, match="gradient of task 1 is not finite"):
        clone(aggregator).task_weights(g, torch.ones(3))
    with pytest.raises(ValueError, match="shape"):
        clone(aggregator).task_weights(torch.ones(3, 2), torch.ones(3))


@pytest.mark.parametrize(
    "aggregator", [CAGrad(c=0.5), CAGrad(c=2.0), ConicGrad(c=0.5), ConicGrad(c=0.9)], ids=repr
)
def test_a_zero_gradient_shortens_the_mean_and_changes_nothing_else(aggregator):
    for j in SETS[:9]:
        with_zero = torch.cat([j, torch.zeros(1, 8, dtype=torch.float64)])
        expected = 0.75 * update(aggregator, j)  # g0 of 4 tasks is 3/4 of that of 3
        torch.testing.assert_close(update(aggregator, with_zero), expected, rtol=1e-6, atol=1e-9)


def test_mgda_leaves_a_zero_gradient_out():
    for j in SETS[:9]:
        with_zero = torch.cat([j[:1], torch.zeros(1, 8, dtype=torch.float64), j[1:]])
        w = weights(MGDA(), with_zero)
        assert w[1] == 0
        torch.testing.assert_close(w[[0, 2, 3]], weights(MGDA(), j))


# MGDA


@pytest.mark.parametrize("seed", range(12))
def test_mgda_against_its_primal_qp(seed):
    # min |d|^2 / 2 - t subject to <g_i, d> >= t, the dual of the shortest vector of the hull
    j = jacobian(seed, k=2 + seed % 5, m=6, ratio=3.0).numpy()
    j /= np.linalg.norm(j, axis=1).max()
    found = minimize(
        lambda x: x[:-1] @ x[:-1] / 2 - x[-1],
        np.append(j.mean(0), 0.0),
        jac=lambda x: np.append(x[:-1], -1.0),
        constraints={
            "type": "ineq",
            "fun": lambda x: j @ x[:-1] - x[-1],
            "jac": lambda x: np.column_stack([j, -np.ones(len(j))]),
        },
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    d = update(MGDA(), torch.from_numpy(j)).numpy()
    np.testing.assert_allclose(d, found.x[:-1], atol=1e-5)


def test_mgda_helps_every_task_by_the_square_of_its_length():
    for j in SETS:
        d = update(MGDA(), j)
        assert bool((j @ d >= d @ d * (1 - 1e-9)).all())


def test_mgda_is_zero_at_a_pareto_stationary_point():
    j = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert float(update(MGDA(), j).norm()) < 1e-12


# CAGrad


def best_in_ball(j, c):
    """Return max min_i <g_i, d> over |d - g0| <= c |g0|, by SLSQP on (d, t)."""
    g0 = j.mean(0)
    radius = c * np.linalg.norm(g0)
    found = minimize(
        lambda x: -x[-1],
        np.append(g0, (j @ g0).min()),
        jac=lambda x: np.append(np.zeros(len(g0)), -1.0),
        constraints=[
            {"type": "ineq", "fun": lambda x: j @ x[:-1] - x[-1]},
            {"type": "ineq", "fun": lambda x: radius**2 - (x[:-1] - g0) @ (x[:-1] - g0)},
        ],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    d = found.x[:-1]
    outside = max(1.0, np.linalg.norm(d - g0) / radius)
    return (j @ (g0 + (d - g0) / outside)).min()  # put back into the ball exactly


@pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(8))
def test_cagrad_is_optimal_in_its_ball(seed, c):
    j = jacobian(seed, k=2 + seed, m=6, ratio=3.0)
    j /= j.norm(dim=1).max()
    d, g0 = update(CAGrad(c=c), j), j.mean(0)
    assert float((d - g0).norm()) <= c * float(g0.norm()) * (1 + 1e-9)
    mine, best = float((j @ d).min()), best_in_ball(j.numpy(), c)
    assert mine >= best - 1e-9
    assert mine == pytest.approx(best, abs=1e-5)  # SLSQP did find it


def test_cagrad_conflicts_below_one_and_not_from_one_on():
    def conflicts(c):
        count = 0
        for seed in range(200):
            j = jacobian(seed, k=2 + seed % 9, m=12, ratio=[1.0, 10.0, 1e3][seed // 3 % 3])
            d = update(CAGrad(c=c), j)
            count += bool((j @ d < -1e-9 * j.norm(dim=1) * d.norm()).any())
        return count

    assert conflicts(0.5) > 0
    assert conflicts(1.0) == 0


def test_a_conflict_of_cagrad_by_hand():
    # the second gradient is nearly opposite and short: in the half ball no d helps it
    j = torch.tensor([[10.0, 0.0], [-1.0, 0.1]], dtype=torch.float64)
    assert float((j @ update(CAGrad(c=0.5), j))[1]) < 0
    assert bool((j @ update(CAGrad(c=1.0), j) >= 0).all())


def test_cagrad_without_radius_is_the_mean():
    for j in SETS:
        torch.testing.assert_close(update(CAGrad(c=0.0), j), j.mean(0), rtol=1e-12, atol=0)


# following the dual weights instead of solving for them


DUALS = [MGDA(), CAGrad(c=0.3), CAGrad(c=1.5), ConicGrad(c=0.3), ConicGrad(c=0.9)]


@pytest.mark.parametrize("aggregator", DUALS, ids=repr)
def test_online_progress_approaches_the_exact_one_on_average(aggregator):
    # With its fixed step the dual weights go round the solution, so the last update proves
    # nothing; what training adds up, the mean update, closes the gap. In units of
    # max_k |g_k| |d| the median of it is below 3e-3 after 1000 steps, the worst below 0.08.
    before, after = [], []
    for seed in range(12):
        j = jacobian(seed, k=2 + seed % 9, m=12, ratio=[1.0, 10.0][seed % 2])
        gramian = j @ j.T
        w0 = torch.full((len(j),), 1 / len(j), dtype=torch.float64)
        exact = update(aggregator, j)
        live, updates = clone(aggregator), []
        w = torch.from_numpy(live.dual_weights(len(j)))
        assert torch.equal(w, w0)
        for _ in range(1000):
            pair = torch.stack([w0, w])
            alpha, beta = live.coefficients(pair @ gramian @ pair.T)
            a = alpha * w0 + beta * w
            updates.append(a)
            w = torch.from_numpy(live.advance(gramian @ a))
            assert float(w.min()) >= 0
        assert float(w.sum()) == pytest.approx(1, abs=1e-12)
        unit = float(j.norm(dim=1).max() * exact.norm())
        mean = torch.stack(updates[500:]).mean(0)
        wanted = float((j @ exact).min())
        before.append((wanted - float((gramian @ updates[0]).min())) / unit)
        after.append((wanted - float((gramian @ mean).min())) / unit)
    assert np.median(before) > 0.02  # there was something to gain
    assert np.median(after) < 3e-3
    assert max(after) < 0.08


def test_dual_weights_are_memory_and_free_of_units():
    progress = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
    one, other = MGDA(), MGDA()
    assert isinstance(one, OnlineDual)
    # equal scale: the step is lr times progress / max |progress|, projected
    expected = torch.full((3,), 1 / 3, dtype=torch.float64) - 0.1 * progress / 3
    expected += (1 - expected.sum()) / 3
    torch.testing.assert_close(torch.from_numpy(one.advance(progress)), expected)
    torch.testing.assert_close(torch.from_numpy(other.advance(1e-9 * progress)), expected)
    assert set(one.state_dict()) == {"dual_", "dual_scale_"}
    assert other.load_state_dict(one.state_dict()).dual_scale_ == 3
    before = one.dual_.clone()
    assert MGDA().advance(torch.zeros(3)).tolist() == [1 / 3] * 3
    one.advance(progress)
    assert float(one.dual_[0]) < float(before[0])
    assert one.reset().state_dict() == {}


@pytest.mark.parametrize("c", [0.3, 1.5])
def test_the_coefficients_of_cagrad_and_mgda_give_the_solved_update(c):
    for j in SETS:
        w0 = torch.full((3,), 1 / 3, dtype=torch.float64)
        a = weights(CAGrad(c=c), j)
        w = (a - w0) / (a - w0).sum()  # the dual weights behind the solved ones
        pair = torch.stack([w0, w]) @ j
        alpha, beta = CAGrad(c=c).coefficients(pair @ pair.T)
        torch.testing.assert_close(alpha * w0 + beta * w, a, rtol=1e-9, atol=1e-12)
        w = weights(MGDA(), j)
        pair = torch.stack([w0, w]) @ j
        assert MGDA().coefficients(pair @ pair.T) == (0.0, 1.0)
