"""ConicGrad: the exact maximiser against J space and SLSQP, and the two closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtlsk.aggregators import MGDA, ConicGrad
from mtlsk.certificates import critical_cone
from mtlsk.simplex import exact_cone


def gradient_set(seed):
    """Return (J of shape (K, 12) with max |g_k| = 1, c): K 2 to 10, norm ratios up to 1e3."""
    rng = np.random.default_rng(seed)
    k = 2 + seed % 9
    j = rng.standard_normal((k, 12))
    common = rng.standard_normal(12)
    if seed % 4 == 1:
        j = 0.3 * j + common  # correlated
    if seed % 4 == 2:
        j += np.where(np.arange(k) % 2 == 0, 1.0, -1.0)[:, None] * common  # conflicting
    if seed % 4 == 3:
        j[-1] = -j[:-1].sum(0) + 0.3 * rng.standard_normal(12)  # nearly stationary
    ratio = [1.0, 10.0, 1e3][seed // 4 % 3]
    j *= np.geomspace(1.0, ratio, k)[rng.permutation(k), None]
    return j / np.linalg.norm(j, axis=1).max(), float(rng.uniform(0.05, 0.95))


def solve(j, c):
    """Return (d, w) of the exact solver, or None."""
    g, w0 = j @ j.T, np.full(len(j), 1 / len(j))
    found = exact_cone(g, w0, float(w0 @ g @ w0), c)
    return None if found is None else (found[0] @ j, found[1])


def onto_cone(v, axis, c):
    """Return the projection of v on the cone of half-angle arccos c around the axis."""
    e = axis / np.linalg.norm(axis)
    along, across = v @ e, v - (v @ e) * e
    side = np.linalg.norm(across)
    if along >= c * np.linalg.norm(v):
        return v
    if side == 0 or c * along + math.sqrt(1 - c * c) * side <= 0:
        return np.zeros_like(v)
    edge = c * e + math.sqrt(1 - c * c) * across / side
    return max(v @ edge, 0.0) * edge


def as_weights(j, **params):
    return ConicGrad(**params).task_weights(torch.from_numpy(j @ j.T), torch.ones(len(j))).numpy()


SETS = [gradient_set(seed) for seed in range(200)]
SOLVED = [(j, c, *s) for j, c in SETS if (s := solve(j, c)) is not None]


def test_the_projection_used_below_is_the_nearest_point_of_the_cone():
    rng = np.random.default_rng(0)
    for _ in range(30):
        axis, v, c = rng.standard_normal(3), rng.standard_normal(3), rng.uniform(0.1, 0.95)
        e = axis / np.linalg.norm(axis)
        points = rng.standard_normal((20_000, 3))
        points = points[points @ e >= c * np.linalg.norm(points, axis=1)]
        nearest = np.linalg.norm(onto_cone(v, axis, c) - v)
        assert nearest <= np.linalg.norm(points - v, axis=1).min() + 1e-12
        assert nearest == pytest.approx(np.linalg.norm(points - v, axis=1).min(), abs=0.2)


def test_the_sets_are_of_all_kinds():
    cosines = [
        d @ j.mean(0) / np.linalg.norm(d) / np.linalg.norm(j.mean(0)) for j, _, d, _ in SOLVED
    ]
    at_edge = [abs(cos - c) < 1e-9 for cos, (_, c, *_) in zip(cosines, SOLVED, strict=True)]
    assert 30 <= sum(at_edge) <= len(SOLVED) - 30  # on the boundary, and inside (MGDA's)
    assert len(SETS) - len(SOLVED) >= 5  # without any direction
    assert len(SOLVED) >= 150


def test_its_direction_is_in_the_cone_and_as_long_as_the_mean():
    for j, c, d, _ in SOLVED:
        g0 = j.mean(0)
        assert np.linalg.norm(d) == pytest.approx(np.linalg.norm(g0), rel=1e-9)
        assert g0 @ d / (g0 @ g0) >= c - 1e-9


def test_its_primal_dual_gap_is_closed():
    for seed, (j, c, d, w) in enumerate(SOLVED):
        assert w.min() >= 0
        assert w.sum() == pytest.approx(1, abs=1e-12)
        g0 = j.mean(0)
        dual = np.linalg.norm(g0) * np.linalg.norm(onto_cone(w @ j, g0, c))
        primal = (j @ d).min()
        assert abs(dual - primal) <= 1e-9 * dual, f"solved set {seed}: {dual - primal:.1e}"


def slsqp(j, c, scale):
    """Return the best min_i <g_i, d> that SLSQP finds over the cone, |d| = |g0|, in d space."""
    basis = np.linalg.svd(j, full_matrices=False)[2][: len(j)]
    r = j @ basis.T  # the gradients in the coordinates of their span
    g0 = r.mean(0)
    length = np.linalg.norm(g0)
    e, rows = g0 / length, r * length / scale
    constraints = [
        {
            "type": "ineq",
            "fun": lambda x: rows @ x[:-1] - x[-1],
            "jac": lambda x: np.column_stack([rows, -np.ones(len(rows))]),
        },
        {
            "type": "ineq",
            "fun": lambda x: np.array([1 - x[:-1] @ x[:-1]]),
            "jac": lambda x: np.append(-2 * x[:-1], 0.0)[None],
        },
        {
            "type": "ineq",
            "fun": lambda x: np.array([e @ x[:-1] - c * np.sqrt(x[:-1] @ x[:-1] + 1e-24)]),
            "jac": lambda x: np.append(e - c * x[:-1] / np.sqrt(x[:-1] @ x[:-1] + 1e-24), 0.0)[
                None
            ],
        },
    ]
    found = minimize(
        lambda x: -x[-1],
        np.append(0.7 * e, (rows @ (0.7 * e)).min()),
        jac=lambda x: np.append(np.zeros(len(e)), -1.0),
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    d = onto_cone(found.x[:-1], e, c)  # into the cone exactly
    size = np.linalg.norm(d)
    return -math.inf if size == 0 else scale * (rows @ d).min() / size


def test_slsqp_never_finds_a_better_direction():
    reached = []
    for seed, (j, c, d, _) in enumerate(SOLVED):
        mine = (j @ d).min()
        best = slsqp(j, c, mine)
        assert best <= mine * (1 + 1e-6), f"solved set {seed}: {best / mine - 1:.1e} better"
        reached.append(best / mine)
    assert np.mean(np.array(reached) > 1 - 1e-5) > 0.8  # and it is no straw man


def test_task_weights_are_those_of_the_exact_solver_or_the_mean():
    for j, c in SETS[:40]:
        found = solve(j, c)
        expected = j.mean(0) if found is None else found[0]
        np.testing.assert_allclose(as_weights(j, c=c) @ j, expected, rtol=1e-6, atol=1e-9)


def test_without_a_direction_for_all_it_is_the_mean_gradient():
    for j, c in SETS:
        critical = critical_cone(torch.from_numpy(j @ j.T))
        if abs(c - critical) < 1e-6:
            continue
        assert (solve(j, c) is None) == (c > critical)
        if c > critical:
            np.testing.assert_array_equal(as_weights(j, c=c), np.full(len(j), 1 / len(j)))


@pytest.mark.parametrize("solver", ["exact", "flip"])
def test_at_one_it_is_the_mean_gradient(solver):
    for j, _ in SETS[:20]:
        np.testing.assert_allclose(as_weights(j, c=1, solver=solver), 1 / len(j), rtol=1e-12)
        near = as_weights(j, c=1 - 1e-10, solver=solver) @ j
        np.testing.assert_allclose(near, j.mean(0), atol=1e-4 * np.linalg.norm(j.mean(0)))


def test_a_cone_that_holds_the_min_norm_point_gives_mgdas_direction():
    inside = 0
    for j, _ in SETS:
        shortest = MGDA().task_weights(torch.from_numpy(j @ j.T), torch.ones(len(j))).numpy() @ j
        g0 = j.mean(0)
        cosine = shortest @ g0 / np.linalg.norm(shortest) / np.linalg.norm(g0)
        if cosine < 0.02:
            continue
        inside += 1
        expected = shortest * np.linalg.norm(g0) / np.linalg.norm(shortest)
        for c in (0.5 * cosine, 0.999999 * cosine):
            np.testing.assert_allclose(
                as_weights(j, c=c) @ j, expected, atol=1e-7 * np.linalg.norm(g0)
            )
        if cosine < 0.9:  # and a narrower cone does not
            other = as_weights(j, c=1.05 * cosine) @ j
            assert np.linalg.norm(other - expected) > 1e-3 * np.linalg.norm(g0)
    assert inside > 100


def test_its_edges():
    zero = torch.zeros(3, 3, dtype=torch.float64)
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    unlike = torch.tensor([[4.0, -2.0], [-2.0, 1.0]], dtype=torch.float64)  # stationary, g0 != 0
    for solver in ("exact", "flip", "printed"):
        assert ConicGrad(solver=solver).task_weights(zero, torch.ones(3)).tolist() == [1 / 3] * 3
        assert ConicGrad(solver=solver).task_weights(opposite, torch.ones(2)).tolist() == [0.5] * 2
    assert ConicGrad().task_weights(unlike, torch.ones(2)).tolist() == [0.5] * 2
    assert float(ConicGrad().task_weights(torch.tensor([[9.0]]).double(), torch.ones(1))) == 1


def coefficients(c, gram2):
    """From the Gramian of (g0, g_w), as floats and as tensors, which must agree."""
    (s0, b), (_, r) = gram2.tolist()
    on_host = ConicGrad(c=c).coefficients(s0, b, r)
    on_device = ConicGrad(c=c).coefficients(*torch.tensor([s0, b, r], dtype=torch.float64))
    assert [float(x) for x in on_device] == pytest.approx(on_host, rel=1e-9, abs=1e-9)
    return on_host


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_the_coefficients_at_the_solved_dual_weights_give_the_solved_direction(c):
    for j, _ in SETS:
        found = solve(j, c)
        if found is None:
            continue
        d, w = found
        pair = np.stack([j.mean(0), w @ j])
        alpha, beta = coefficients(c, pair @ pair.T)
        np.testing.assert_allclose(
            alpha * j.mean(0) + beta * (w @ j), d, atol=1e-6 * np.linalg.norm(d)
        )


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9, 1.0])
def test_the_coefficients_are_the_projection_on_the_cone_at_the_length_of_the_mean(c):
    rng = np.random.default_rng(0)
    zeros = 0
    for i in range(200):
        g0, gw = rng.standard_normal((2, 4))
        gw -= 3.0 * g0 if i % 4 == 0 else 0.0  # into the polar cone
        wanted = onto_cone(gw, g0, c)
        size = np.linalg.norm(wanted)
        wanted = g0 if size == 0 else wanted * np.linalg.norm(g0) / size
        pair = np.stack([g0, gw])
        alpha, beta = coefficients(c, pair @ pair.T)
        np.testing.assert_allclose(alpha * g0 + beta * gw, wanted, atol=1e-9)
        zeros += size == 0
    assert 5 < zeros < 150
    assert coefficients(c, np.zeros((2, 2))) == (1.0, 0.0)


# the closed forms


def steps(j, n, **params):
    """Yield (g0, g_w, d) of n steps of a closed form; w is read before the step moves it."""
    live, gramian = ConicGrad(**params), torch.from_numpy(j @ j.T)
    for _ in range(n):
        logits = getattr(live, "logits_", torch.zeros(len(j), dtype=torch.float64))
        w = torch.softmax(logits, 0).numpy()
        yield j.mean(0), w @ j, live.task_weights(gramian, torch.ones(len(j))).numpy() @ j


def test_the_printed_form_is_the_papers():
    for j, c in SETS[:40]:
        for g0, gw, d in steps(j, 5, c=c, solver="printed"):
            s0 = g0 @ g0
            # the inverse of Z, which the paper carries out by Sherman-Morrison
            star = np.linalg.solve(c * c * s0 * np.eye(12) - np.outer(g0, g0), gw)
            np.testing.assert_allclose(
                d, star * math.sqrt(s0) / np.linalg.norm(star), atol=1e-6 * math.sqrt(s0)
            )
            scalar = c * c / (1 - c * c)
            closed = gw / (c * c * s0) - g0 * scalar * (g0 @ gw) / (c**4 * s0 * s0)
            np.testing.assert_allclose(closed, star, atol=1e-6 * np.linalg.norm(star))


def test_the_printed_form_ascends():
    obtuse = 0
    for j, c in SETS[:100]:
        for g0, gw, d in steps(j, 5, c=c, solver="printed", dual_lr=0.5):
            assert np.linalg.norm(d) == pytest.approx(np.linalg.norm(g0), rel=1e-9)
            if g0 @ gw > 1e-12 * (g0 @ g0):
                assert g0 @ d < 0
                obtuse += 1
    assert obtuse > 200


def test_the_printed_form_with_equal_weights_is_minus_the_mean():
    for j, c in SETS[:40]:
        g0, _, d = next(steps(j, 1, c=c, solver="printed"))
        np.testing.assert_allclose(d, -g0, rtol=1e-9, atol=1e-15)


def test_the_printed_form_is_in_the_cone_only_where_the_dual_gradient_is_in_the_polar_cone():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(3000):
        g0, gw, c = rng.standard_normal(3), rng.standard_normal(3), rng.uniform(0.05, 0.95)
        s0 = g0 @ g0
        d = gw - (g0 @ gw) / ((1 - c * c) * s0) * g0
        cosine = g0 @ d / math.sqrt(s0) / np.linalg.norm(d)
        polar = not onto_cone(gw, g0, c).any()
        if abs(cosine - c) > 1e-9:
            assert (cosine > c) == polar
            inside += polar
    assert inside > 100


def test_the_flipped_form_descends_where_the_dual_gradient_does():
    outside = 0
    for j, c in SETS[:100]:
        for g0, gw, d in steps(j, 30, c=c, solver="flip", dual_lr=0.5):
            assert np.linalg.norm(d) == pytest.approx(np.linalg.norm(g0), rel=1e-9)
            other = gw + (g0 @ gw) / ((1 - c * c) * (g0 @ g0)) * g0
            other *= np.linalg.norm(g0) / np.linalg.norm(other)
            np.testing.assert_allclose(d, other, atol=1e-7 * np.linalg.norm(g0))
            if g0 @ gw > 1e-12 * (g0 @ g0):
                assert g0 @ d > 0
            outside += g0 @ d < (c - 1e-6) * (g0 @ g0)
    assert outside > 0  # it can leave the cone


@pytest.mark.parametrize("solver", ["flip", "printed"])
def test_the_dual_weights_take_adam_steps_on_their_logits(solver):
    j, c = SETS[6]
    gramian = torch.from_numpy(j @ j.T)
    live = ConicGrad(c=c, solver=solver, gamma=0.3, dual_lr=0.05)
    logits = torch.zeros(len(j), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.05, weight_decay=0.3)
    for _ in range(20):
        a = live.task_weights(gramian, torch.ones(len(j)))
        adam.zero_grad()
        # the slope of <w, J d> / |g0|^2 through the softmax, d held fixed
        (torch.softmax(logits, 0) @ (gramian @ a) / gramian.mean()).backward()
        adam.step()
        torch.testing.assert_close(live.logits_, logits.detach(), rtol=1e-6, atol=1e-9)
    assert float(logits.detach().abs().max()) > 0.1


def test_absent_tasks_keep_their_dual_weights():
    j, _ = gradient_set(8)  # many tasks
    gramian = torch.from_numpy(j @ j.T)
    live = ConicGrad(solver="flip")
    for _ in range(3):
        live.task_weights(gramian, torch.ones(len(j)))
    before = live.logits_.clone()
    live.active_ = (0, 2)
    a = live.task_weights(gramian[[0, 2]][:, [0, 2]], torch.ones(2))
    assert a.shape == (2,)
    moved = live.logits_ != before
    assert moved.tolist() == [k in (0, 2) for k in range(len(j))]


def test_a_task_that_appears_later_leaves_the_others_dual_weights():
    j, _ = gradient_set(1)
    gramian = torch.from_numpy(j @ j.T)
    live = ConicGrad(solver="flip")
    live.active_ = (0, 1)
    for _ in range(5):
        live.task_weights(gramian[:2, :2], torch.ones(2))
    before = live.logits_.clone()
    live.active_ = None
    live.task_weights(gramian, torch.ones(3))
    assert float((live.logits_[:2] - before).abs().max()) < 2 * live.dual_lr  # one step on
    assert live.n_adam_steps_.tolist() == [6, 6, 1]  # its own count: corrected as a first step


def test_a_decay_a_task_moves_each_task_by_its_own():
    j, c = SETS[6]
    k, gramian = len(j), torch.from_numpy(j @ j.T)
    gamma = [0.3 * (i % 2) for i in range(k)]
    live = ConicGrad(c=c, solver="flip", gamma=gamma, dual_lr=0.05)
    logits = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.05)
    for _ in range(20):
        a = live.task_weights(gramian, torch.ones(k))
        adam.zero_grad()
        decay = (torch.tensor(gamma, dtype=torch.float64) * logits**2).sum() / 2
        (torch.softmax(logits, 0) @ (gramian @ a) / gramian.mean() + decay).backward()
        adam.step()
        torch.testing.assert_close(live.logits_, logits.detach(), rtol=1e-6, atol=1e-9)
    same = ConicGrad(c=c, solver="flip", gamma=[0.3] * k, dual_lr=0.05)
    one = ConicGrad(c=c, solver="flip", gamma=0.3, dual_lr=0.05)
    for _ in range(5):
        ones = torch.ones(k)
        assert torch.equal(same.task_weights(gramian, ones), one.task_weights(gramian, ones))


def test_decays_are_those_of_the_tasks_that_are_there():
    j, _ = gradient_set(1)
    gramian = torch.from_numpy(j @ j.T)[:2, :2]
    live = ConicGrad(solver="flip", gamma=[0.0, 5.0, 0.3]).check_domains()
    other = ConicGrad(solver="flip", gamma=[0.0, 0.3])
    live.active_ = (0, 2)
    for _ in range(5):
        ones = torch.ones(2)
        assert torch.equal(live.task_weights(gramian, ones), other.task_weights(gramian, ones))
    for gamma in ([0.1, 0.1, 0.1], [0.1]):
        with pytest.raises(ValueError, match="entries for 2 tasks; give one a task"):
            ConicGrad(solver="flip", gamma=gamma).task_weights(gramian, torch.ones(2))
    for gamma in ([0.1, -0.1], "0.1", []):
        with pytest.raises(ValueError, match=r"gamma must be a number in .*, or a list of such"):
            ConicGrad(gamma=gamma).check_domains()


@pytest.mark.parametrize("rho", [0.3, 0.9, 0.99])
def test_the_automatic_cone_is_a_share_of_the_critical_one(rho):
    for j, _ in SETS:
        critical = critical_cone(torch.from_numpy(j @ j.T))
        if critical < 1e-3:
            continue
        a = as_weights(j, c="auto", rho=rho)
        np.testing.assert_array_equal(a, as_weights(j, c=rho * critical))
        assert (j @ (a @ j)).min() > 0  # so every task is helped
        cosine = a @ j @ j.mean(0) / (j.mean(0) @ j.mean(0))
        assert cosine >= rho * critical - 1e-9


def test_without_any_direction_for_all_the_automatic_cone_gives_the_mean():
    unlike = torch.tensor([[4.0, -2.0], [-2.0, 1.0]], dtype=torch.float64)
    for solver in ("exact", "flip", "printed"):
        live = ConicGrad(c="auto", solver=solver).check_domains()
        assert live.task_weights(unlike, torch.ones(2)).tolist() == [0.5, 0.5]
        assert live.has_online_dual is False
    with pytest.raises(ValueError, match=r"c='wide' is not allowed; c must be a number .*'auto'"):
        ConicGrad(c="wide").check_domains()
    for rho in (0, 1, 1.0):
        with pytest.raises(ValueError, match="rho must be a number in"):
            ConicGrad(c="auto", rho=rho).check_domains()


@pytest.mark.parametrize("solver", ["flip", "printed"])
def test_the_closed_forms_take_the_automatic_cone_of_each_step(solver):
    j, other = SETS[6][0], SETS[15][0]
    live, fixed = ConicGrad(c="auto", solver=solver), ConicGrad(solver=solver)
    for rows in (j, other, j):
        gramian = torch.from_numpy(rows @ rows.T)
        fixed.c = 0.9 * critical_cone(gramian)
        ones = torch.ones(len(rows))
        assert fixed.c > 0
        assert torch.equal(live.task_weights(gramian, ones), fixed.task_weights(gramian, ones))
