"""Aggregators that solve for dual weights: properties, pinned values, the papers' facts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from sklearn.base import clone

from mtlsk.aggregators import FAMO, MGDA, CAGrad, ConicGrad, LinearScalarization, OnlineDual
from mtlsk.certificates import critical_cone
from mtlsk.simplex import faces

MEAN = LinearScalarization()
FIXED = LinearScalarization(weights=[0.8, 0.1, 0.1])
BALLS = [CAGrad(c=0.0), CAGrad(c=0.5), CAGrad(c=1.0), CAGrad(c=2.0)]
CONES = [ConicGrad(c=0.05), ConicGrad(c=0.5), ConicGrad(c=0.95), ConicGrad(c=1.0)]
FLIP, PRINTED = ConicGrad(solver="flip"), ConicGrad(solver="printed")
ALL = [MEAN, FIXED, MGDA(), *BALLS, *CONES, FLIP, PRINTED]

# each set is proven, and so is its complement: members hold on all sets, others fail on one
PERMUTATION_EQUIVARIANT = [repr(a) for a in ALL if a is not FIXED]
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


def test_permutation_equivariant():
    order = torch.tensor([2, 0, 1])

    def prove(aggregator, j):
        return torch.allclose(update(aggregator, j[order]), update(aggregator, j), rtol=1e-7)

    holds_on(PERMUTATION_EQUIVARIANT, prove)


@pytest.mark.parametrize("aggregator", ALL, ids=repr)
@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_one_unit_for_all_tasks_changes_no_weight(aggregator, scale):
    for j in SETS[:6]:
        torch.testing.assert_close(
            weights(aggregator, scale * j), weights(aggregator, j), rtol=1e-6, atol=1e-9
        )


def test_stateless():
    def prove(aggregator, j):
        live = clone(aggregator)
        live.task_weights(j[[1, 2, 0]] @ j[[1, 2, 0]].T, torch.ones(3))
        second = live.task_weights(j @ j.T, torch.ones(3)) @ j
        unit = j.norm(dim=1).max()
        return float((second - update(aggregator, j)).norm()) <= 1e-9 * float(unit)

    holds_on(STATELESS, prove)


def test_memory_is_nobody_elses():
    live = FAMO()
    for active in (None, (0, 2)):
        live.active_ = active
        n = 3 if active is None else 2
        live.recall("x_", n)
        values = torch.arange(n, dtype=torch.float64)
        live.remember("x_", values)
        values += 10
        live.recall("x_", n).fill_(-1.0)
        assert live.recall("x_", n).tolist() == list(range(n))
    assert live.x_.tolist() == [0, 1, 1]


def test_what_is_remembered():
    kept = {"MGDA": {"support_"}, "CAGrad": {"support_"}, "ConicGrad": {"support_", "at_edge_"}}
    for aggregator in ALL:
        live = clone(aggregator)
        live.task_weights(SETS[0] @ SETS[0].T, torch.ones(3))
        expected = kept.get(type(aggregator).__name__, set())
        if repr(aggregator) in ("CAGrad(c=0.0)", "ConicGrad(c=1.0)"):
            expected = set()  # the mean gradient: nothing is solved
        if aggregator in (FLIP, PRINTED):
            expected = {"logits_", "first_moment_", "second_moment_", "n_adam_steps_"}
        assert set(live.state_dict()) == expected, aggregator


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
    with pytest.raises(ValueError, match="3 entries for 2 tasks; give one a task"):
        live.task_weights(None, torch.ones(2))


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


# supports are remembered


@pytest.fixture
def solves(monkeypatch):
    """Return a list that grows by one with each linear solve."""
    calls, solve = [], faces.dposv

    def counted(*args):
        calls.append(len(args[0]))
        return solve(*args)

    monkeypatch.setattr(faces, "dposv", counted)
    return calls


SOLVERS = [MGDA(), *BALLS[1:], *CONES[:3]]


@pytest.mark.parametrize("aggregator", SOLVERS, ids=repr)
def test_a_warm_call_takes_one_linear_solve(aggregator, solves):
    more = 0
    for seed in range(20):
        j = jacobian(seed, k=3 + seed, m=40)
        if isinstance(aggregator, ConicGrad) and aggregator.c > critical_cone(j @ j.T):
            continue  # no direction in the cone, nothing to remember
        live = clone(aggregator)
        live.task_weights(j @ j.T, torch.ones(len(j)))
        more += len(solves) > 1
        solves.clear()
        moved = j + 1e-6 * torch.randn(j.shape, dtype=torch.float64) * j.norm(dim=1)[:, None]
        live.task_weights(moved @ moved.T, torch.ones(len(j)))
        assert len(solves) == 1, f"set {seed}"
        solves.clear()
    assert more > 5  # a cold one takes more


@pytest.mark.parametrize("aggregator", SOLVERS, ids=repr)
def test_a_wrong_memory_changes_no_answer(aggregator):
    rng = np.random.default_rng(0)
    for seed in range(40):
        j = jacobian(seed, k=2 + seed % 19, m=30, ratio=[1.0, 10.0, 1e3][seed % 3])
        live, expected = clone(aggregator), update(aggregator, j)
        for _ in range(4):
            live.support_ = rng.permutation(30)[: rng.integers(1, 30)].tolist()
            live.at_edge_ = bool(rng.integers(2))
            d = live.task_weights(j @ j.T, torch.ones(len(j))) @ j
            unit = float(j.norm(dim=1).max())
            torch.testing.assert_close(d, expected, rtol=0, atol=1e-9 * unit)


@pytest.mark.parametrize("aggregator", SOLVERS, ids=repr)
def test_the_memory_follows_the_tasks_that_are_there(aggregator):
    j = jacobian(7, k=8, m=20)
    live = clone(aggregator)
    live.task_weights(j @ j.T, torch.ones(8))
    for active in [(0, 3, 5), (1, 2, 6, 7), (5,), (0, 3, 5)]:
        before = set(live.state_dict().get("support_", [])).difference(active)
        live.active_ = active
        part = j[list(active)]
        d = live.task_weights(part @ part.T, torch.ones(len(active))) @ part
        torch.testing.assert_close(d, update(aggregator, part), rtol=1e-9, atol=1e-9)
        # those away are remembered as they were
        assert before == set(live.state_dict().get("support_", [])).difference(active)
    alone = clone(aggregator)
    alone.active_ = (2, 4)
    alone.task_weights(j[[2, 4]] @ j[[2, 4]].T, torch.ones(2))
    assert set(alone.state_dict().get("support_", [])) <= {2, 4}


# where peers fail


def hostile(seed):
    """Yield (what it is, J of unit size): sets that stop or mislead solvers."""
    generator = torch.Generator().manual_seed(seed)

    def rows(k, m=12):
        return torch.randn(k, m, generator=generator, dtype=torch.float64)

    k = 2 + seed % 7
    j = rows(k)
    yield "K = 1", j[:1]
    yield "all zero", torch.zeros(k, 12, dtype=torch.float64)
    yield "zero row", torch.cat([j, torch.zeros(1, 12, dtype=torch.float64)])
    yield "duplicated rows", torch.cat([j, j])
    yield "nearly duplicated rows", torch.cat([j, j + 1e-9 * rows(k)])
    yield "opposite rows", torch.cat([j, -j[:1]])
    yield "nearly opposite rows", torch.cat([j, -j[:1] + 1e-9 * rows(1)])
    yield "rank-deficient", rows(k + 4, 3)
    yield "rank-deficient and agreeing", rows(k + 4, 3) + torch.tensor([3.0, 0.0, 0.0]).double()
    yield "mean of zero", torch.cat([j, -j.sum(0, keepdim=True)])
    yield "conflicting", j - 0.9 * j.mean(0)
    for ratio in (1e3, 1e6):
        for base in (j, j.abs(), torch.cat([j, j[:1]])):
            scale = torch.logspace(0, math.log10(ratio), len(base), dtype=torch.float64)
            order = torch.randperm(len(base), generator=generator)
            yield f"norm ratio {ratio:g}", base * scale[order, None]


def common_descent(j):
    """Return max_d min_i <g_i, d> / |g_i| over |d|_inf <= 1, over the rows that are not zero."""
    norms = j.norm(dim=1)
    unit = (j[norms > 0] / norms[norms > 0, None]).numpy()
    k, m = unit.shape
    if k == 0:
        return 0.0
    found = linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=np.column_stack([-unit, np.ones(k)]),
        b_ub=np.zeros(k),
        bounds=[(-1, 1)] * m + [(None, 1)],
    )
    return -found.fun


HOSTILE = [(what, scale * j) for s in range(12) for what, j in hostile(s) for scale in (1.0, 1e-8)]
ALIGNED = [common_descent(j) > 1e-3 for _, j in HOSTILE]


def helps_all(aggregator, j, aligned):
    """Return whether the aggregator promises <g_i, d> >= 0 for all tasks of this set."""
    if isinstance(aggregator, CAGrad):
        return aggregator.c >= 1 and aligned
    if isinstance(aggregator, ConicGrad):
        # by another route than the solver's
        in_cone = aggregator.c < float(critical_cone(j @ j.T)) - 1e-3
        return aggregator.solver == "exact" and aligned and in_cone
    return isinstance(aggregator, MGDA)


def longest(aggregator, j):
    """Return the length that the update never passes."""
    if isinstance(aggregator, MGDA):
        norms = j.norm(dim=1)
        return float(norms[norms > 0].min()) if norms.any() else 0.0
    radius = aggregator.c if isinstance(aggregator, CAGrad) else 0.0
    return (1 + radius) * float(j.mean(0).norm())


@pytest.mark.parametrize("aggregator", [a for a in ALL if a is not FIXED], ids=repr)
def test_on_hostile_sets_no_update_is_worse_than_doing_nothing(aggregator):
    promised = 0
    for (what, j), aligned in zip(HOSTILE, ALIGNED, strict=True):
        live, norms = clone(aggregator), j.norm(dim=1)
        for call in ("cold", "warm"):
            a = live.task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))
            where = f"{what}, {len(j)} tasks, {call}"
            assert bool(a.isfinite().all()), where
            d = a @ j
            size = float(d.norm())
            # a direction that is all rounding must not be blown up to a length
            assert size <= longest(aggregator, j) * (1 + 1e-6) + 1e-7 * float(norms.max()), where
            if size <= 1e-7 * float(a.abs() @ norms):
                continue  # zero, as far as a Gramian can tell
            if repr(aggregator) in DESCENDS_THE_MEAN:
                assert float(j.mean(0) @ d) >= -1e-9 * float(norms.max()) * size, where
            if helps_all(aggregator, j, aligned):
                worst = float((j @ d)[norms > 0].div(norms[norms > 0]).min())
                assert worst >= -1e-7 * size, f"{where}: {worst / size:.1e}"
                promised += 1
    if "non-conflicting" in aggregator.properties or aggregator in CONES[:2]:
        assert promised > 100


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


def coefficients(aggregator, gram2):
    """From the Gramian of (g0, g_w), as floats and as tensors, which must agree."""
    (s0, b), (_, r) = gram2.tolist()
    on_host = aggregator.coefficients(s0, b, r)
    on_device = aggregator.coefficients(gram2[0, 0], gram2[0, 1], gram2[1, 1])
    assert [float(x) for x in on_device] == pytest.approx(on_host, rel=1e-12, abs=1e-12)
    return on_host


@pytest.mark.parametrize("aggregator", DUALS, ids=repr)
def test_online_progress_approaches_the_exact_one_on_average(aggregator):
    # With its fixed step the dual weights go round the solution, so the last update proves
    # nothing; what training adds up, the mean update, closes the gap. In units of
    # max_k |g_k| |d| the median of it is below 3e-3 after 1000 steps, the worst below 0.08.
    before, after = [], []
    for seed in range(6):
        j = jacobian(seed, k=2 + seed, m=12, ratio=[1.0, 10.0][seed % 2])
        gramian = j @ j.T
        w0 = torch.full((len(j),), 1 / len(j), dtype=torch.float64)
        exact = update(aggregator, j)
        live, updates = clone(aggregator), []
        w = live.dual_weights(len(j))
        assert torch.equal(w, w0)
        for _ in range(1000):
            pair = torch.stack([w0, w])
            alpha, beta = coefficients(live, pair @ gramian @ pair.T)
            a = alpha * w0 + beta * w
            updates.append(a)
            w = live.advance(gramian @ a)
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
    torch.testing.assert_close(one.advance(progress), expected)
    torch.testing.assert_close(other.advance(1e-9 * progress), expected)
    assert set(one.state_dict()) == {"dual_", "dual_scale_"}
    assert other.load_state_dict(one.state_dict()).dual_scale_ == 3
    before = one.dual_.clone()
    assert MGDA().advance(torch.zeros(3)).tolist() == pytest.approx([1 / 3] * 3, abs=1e-15)
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
        alpha, beta = coefficients(CAGrad(c=c), pair @ pair.T)
        torch.testing.assert_close(alpha * w0 + beta * w, a, rtol=1e-9, atol=1e-12)
        w = weights(MGDA(), j)
        pair = torch.stack([w0, w]) @ j
        assert coefficients(MGDA(), pair @ pair.T) == (0.0, 1.0)
