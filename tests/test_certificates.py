"""Certificates against what they promise, checked in the space of directions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.func import jacrev

from mtlsk.certificates import (
    GRAM_CERTIFICATES,
    RESIDUALS,
    balancing_scale,
    condition_number,
    cosine_condition_number,
    critical_cone,
    effective_tasks,
    gram_certificates,
    gram_step,
    h,
    kantorovich,
    linear_rate,
    pl_bound,
    pl_constant,
    residual_gramian,
    ridge_condition_number,
    self_bounding_step,
    signed_step,
    squared_gradient,
)


def gradient_set(seed):
    """Return J (K, 6), K from 2 to 5, with conflicts."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 6))
    j = rng.standard_normal((k, 6))
    return j * 10 ** rng.uniform(-1, 1, (k, 1))


def best_worst_progress(j, c):
    """Return max min_i <g_i, d>/|g_i| over |d| <= 1 in the cone, by SLSQP on (d, t)."""
    units = j / np.linalg.norm(j, axis=1, keepdims=True)
    e = j.mean(0) / np.linalg.norm(j.mean(0))
    constraints = [
        {"type": "ineq", "fun": lambda x: units @ x[:-1] - x[-1]},
        {"type": "ineq", "fun": lambda x: 1 - x[:-1] @ x[:-1]},
        {"type": "ineq", "fun": lambda x: e @ x[:-1] - c * math.sqrt(x[:-1] @ x[:-1] + 1e-30)},
    ]
    rng = np.random.default_rng(0)
    best = 0.0
    for _ in range(6):
        start = np.append(0.5 * e + 0.05 * rng.standard_normal(len(e)), 0.0)
        found = minimize(
            lambda x: -x[-1],
            start,
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        d = found.x[:-1] / np.linalg.norm(found.x[:-1])
        if e @ d >= c - 1e-9:  # judge the direction itself, not what the solver says
            best = max(best, (units @ d).min())
    return best


def gramian(j):
    return torch.from_numpy(j @ j.T)


@pytest.mark.parametrize("seed", range(12))
def test_all_tasks_can_improve_in_the_cone_iff_c_is_below_the_critical_one(seed):
    j = gradient_set(seed)
    critical = critical_cone(gramian(j))
    assert 0 < critical < 1 + 1e-12
    assert best_worst_progress(j, critical - 0.01) > 1e-5
    if critical < 0.99:
        assert best_worst_progress(j, critical + 0.005) <= 1e-8


def test_the_sets_of_the_test_above_are_on_both_sides():
    values = [critical_cone(gramian(gradient_set(seed))) for seed in range(12)]
    assert sum(v < 0.99 for v in values) >= 4
    assert sum(v >= 0.99 for v in values) >= 2


def test_a_mean_that_hurts_nobody_has_one():
    j = np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [0.0, 0.1, 2.0]])
    assert critical_cone(gramian(j)) == 1
    assert critical_cone(gramian(j[:1])) == 1


def test_two_tasks_by_hand():
    # g0 = (1, .5); it hurts task 2, and the nearest direction that does not is orthogonal to it
    j = np.array([[3.0, 0.0], [-1.0, 1.0]])
    assert critical_cone(gramian(j)) == pytest.approx(math.cos(math.radians(45) - math.atan(0.5)))


def test_opposite_tasks_have_zero():
    j = np.array([[3.0, 0.0], [-1.0, 0.0]])
    assert critical_cone(gramian(j)) == pytest.approx(0, abs=1e-7)
    assert critical_cone(gramian(np.array([[1.0, 0.0], [-1.0, 0.0]]))) == 0
    assert critical_cone(torch.zeros(2, 2, dtype=torch.float64)) == 0


@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_it_knows_no_units_and_no_order(scale):
    j = gradient_set(3)
    expected = critical_cone(gramian(j))
    assert critical_cone(gramian(scale * j[::-1])) == pytest.approx(expected, rel=1e-9)


def test_a_zero_gradient_is_left_out():
    j = np.array([[3.0, 0.0], [-1.0, 1.0]])
    both = critical_cone(gramian(j))
    assert critical_cone(gramian(np.vstack([j, [[0.0, 0.0]]]))) == pytest.approx(both, rel=1e-12)


def test_h_is_the_mean_of_the_squared_losses():
    assert h(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)) == 7.0


# ---- h = (1/K) sum Phi_k^2 and its gradient


def problem(seed):
    """Return J (K, M), K from 1 to 5 and M >= K, and losses (K,) > 0, of several scales."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 6))
    j = rng.standard_normal((k, k + int(rng.integers(0, 5)))) * 10 ** rng.uniform(-2, 2, (k, 1))
    return j, torch.from_numpy(10 ** rng.uniform(-2, 2, k))


def of_phi(j, losses, residual):
    """Return Phi and its Jacobian by the chain rule, as numpy."""
    loss = losses.numpy()
    return (loss, j) if residual == "losses" else (np.sqrt(loss), j / (2 * np.sqrt(loss))[:, None])


BOTH = pytest.mark.parametrize("residual", RESIDUALS)


@BOTH
@pytest.mark.parametrize("seed", range(20))
def test_h_and_its_gradient_are_those_of_phi(seed, residual):
    j, losses = problem(seed)
    phi, jacobian = of_phi(j, losses, residual)
    gradient = 2 / len(phi) * jacobian.T @ phi
    assert h(losses, residual) == pytest.approx((phi**2).mean(), rel=1e-12)
    assert squared_gradient(losses, gramian(j), residual) == pytest.approx(
        gradient @ gradient, rel=1e-9
    )
    np.testing.assert_allclose(
        residual_gramian(losses, gramian(j), residual), jacobian @ jacobian.T, rtol=1e-12
    )
    if residual == "sqrt":  # h is the mean loss and its gradient g0
        assert h(losses, residual) == pytest.approx(float(losses.mean()))
        np.testing.assert_allclose(gradient, j.mean(0), rtol=1e-9, atol=1e-12)


@BOTH
def test_the_pl_bound_is_never_below_h(residual):
    tight = []
    for seed in range(2000):
        j, losses = problem(seed)
        try:
            bound = pl_bound(losses, gramian(j), residual)
        except ValueError:
            continue
        value = h(losses, residual)
        assert bound >= value
        tight.append(value / bound)
        mu = pl_constant(losses, gramian(j), residual)
        assert squared_gradient(losses, gramian(j), residual) >= 2 * mu * value * (1 - 1e-12)
    assert len(tight) > 1900
    assert max(tight) > 0.999  # K = 1: nothing is given away


def test_the_pl_bound_is_attained_along_the_weakest_direction():
    j = np.diag([3.0, 1.0, 2.0])
    weakest = torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64)
    assert pl_bound(weakest, gramian(j)) == pytest.approx(h(weakest), rel=1e-9)


def test_rounding_is_taken_off_the_smallest_eigenvalue():
    rng = np.random.default_rng(0)
    j = rng.standard_normal((3, 6))
    j[2] = j[0] + 1e-2 * j[2]  # nearly dependent
    losses = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    for _ in range(100):
        off = j.astype(np.float32) * (1 + 1e-6 * rng.uniform(-0.4, 0.4, j.shape))
        g = gramian(off.astype(float))
        assert pl_bound(losses, g, rounding=1e-6) >= h(losses)
        low = float(torch.linalg.eigvalsh(gramian(j))[0])
        assert pl_constant(losses, g, rounding=1e-6) * 3 / 2 <= low
    with pytest.raises(ValueError, match="linearly dependent"):
        pl_bound(losses, gramian(j), rounding=1e-3)


def test_where_gradients_depend_a_minimum_can_have_losses():
    """Critical points with losses need not be saddles; with independent gradients there are none.

    Phi = (1 - z^2, 3 z (z - 1)) has a minimum in z at 0 with h = 1/2, and Phi_1 = Phi_2 =
    1 + |x|^2 - (5/16) |x|^4 a strict one with h = 1: in both J has dependent rows.
    """
    one = torch.ones(1, dtype=torch.float64)

    def first(z):
        return torch.cat([1 - z**2, 3 * z * (z - 1)])

    def second(x):
        r = (x**2).sum()
        return (1 + r - 5 / 16 * r**2) * torch.ones(2, dtype=torch.float64)

    for phi, theta, value in ((first, 0 * one, 0.5), (second, torch.zeros(5).double(), 1.0)):

        def mean_square(t, phi=phi):
            return (phi(t) ** 2).mean()

        j = jacrev(phi)(theta)
        assert mean_square(theta) == pytest.approx(value)
        assert jacrev(mean_square)(theta).abs().max() == 0  # critical,
        curvature = torch.linalg.eigvalsh(jacrev(jacrev(mean_square))(theta))
        assert curvature[0] > 0  # a strict minimum,
        with pytest.raises(ValueError, match="linearly dependent"):  # and nothing is certified
            pl_bound(phi(theta), j @ j.T)
    for seed in range(200):  # independent gradients: critical only where Phi = 0
        j, losses = problem(seed)
        assert squared_gradient(losses, gramian(j)) > 0


def test_the_residual_part_of_holomorphic_residuals_has_trace_zero_and_is_not_zero():
    """In real coordinates S then has eigenvalues +s and -s in pairs; with real residuals not."""

    def phi(t):  # two holomorphic functions of two complex numbers, as real and imaginary parts
        a, b, c, d = t
        z_real, z_imag = a * c - b * d, a * d + b * c  # z_1 z_2
        square = a**2 - b**2, 2 * a * b  # z_1^2
        return torch.stack([1 + z_real, z_imag, square[0] + c - 2, square[1] + d])

    theta = torch.tensor([0.3, -0.7, 1.1, 0.4], dtype=torch.float64)
    j = jacrev(phi)(theta)
    H = jacrev(jacrev(lambda t: (phi(t) ** 2).sum() / 2))(theta)
    S = H - j.T @ j
    eigenvalues = torch.linalg.eigvalsh(S)
    torch.testing.assert_close(eigenvalues, -eigenvalues.flip(0))
    assert float(eigenvalues[-1]) > 0.1
    real = theta[[0, 2]]

    def only_real(t):
        return phi(torch.stack([t[0], 0 * t[0], t[1], 0 * t[1]]))

    j = jacrev(only_real)(real)
    S = jacrev(jacrev(lambda t: (only_real(t) ** 2).sum() / 2))(real) - j.T @ j
    assert abs(float(S.trace())) > 0.1


# ---- steps


@BOTH
@pytest.mark.parametrize("seed", range(40))
def test_the_gram_step_is_the_line_minimiser_of_the_linearised_h(seed, residual):
    j, losses = problem(seed)
    phi, jacobian = of_phi(j, losses, residual)
    k, eta = len(phi), gram_step(losses, gramian(j), residual=residual)
    d = 2 / k * jacobian.T @ phi
    along = np.array(
        [((phi - t * jacobian @ d) ** 2).mean() for t in (0.99 * eta, eta, 1.01 * eta)]
    )
    assert along[1] <= along[0]
    assert along[1] <= along[2]
    eigenvalues = np.linalg.eigvalsh(jacobian @ jacobian.T)
    assert k / (2 * eigenvalues[-1]) * (1 - 1e-9) <= eta
    assert eta <= k / (2 * eigenvalues[0]) * (1 + 1e-6)


@BOTH
def test_the_gram_step_along_another_direction(residual):
    j, losses = problem(7)
    phi, jacobian = of_phi(j, losses, residual)
    w = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, len(phi)))
    slopes = jacobian @ (j.T @ w.numpy())
    eta = gram_step(losses, gramian(j), w, residual)
    assert eta == pytest.approx(phi @ slopes / (slopes @ slopes), rel=1e-9)


def quadratics(seed, k=3, m=5):
    """Return losses(theta) = (1/2) (theta - c_k)' A_k (theta - c_k) >= 0 and their smoothness."""
    rng = np.random.default_rng(seed)
    roots = torch.from_numpy(rng.standard_normal((k, m, m)))
    a = roots @ roots.transpose(1, 2)
    c = torch.from_numpy(rng.standard_normal((k, m)))

    def losses(theta):
        away = theta - c
        return 0.5 * torch.einsum("km,kmn,kn->k", away, a, away)

    return losses, float(torch.linalg.eigvalsh(a).max())


@pytest.mark.parametrize("seed", range(30))
def test_the_self_bounding_step_lowers_h_as_promised_and_bounds_the_hessian(seed):
    losses, beta = quadratics(seed)
    theta = torch.from_numpy(np.random.default_rng(seed).standard_normal(5)) * 3
    L, j = losses(theta), jacrev(losses)(theta)
    eta, d = self_bounding_step(L, beta), 2 / 3 * j.T @ L
    after = h(losses(theta - eta * d))
    assert after <= h(L) - eta / 2 * float(d @ d) + 1e-12
    H = jacrev(jacrev(lambda t: (losses(t) ** 2).mean()))(theta)
    assert float(torch.linalg.eigvalsh(H)[-1]) <= 6 * beta * math.sqrt(h(L)) * (1 + 1e-9)


def test_the_self_bounding_step_is_a_warmup():
    losses, beta = quadratics(0)
    theta = torch.full((5,), 5.0, dtype=torch.float64)
    steps = []
    for _ in range(50):
        L = losses(theta)
        steps.append(self_bounding_step(L, beta))
        theta = theta - steps[-1] * 2 / 3 * jacrev(losses)(theta).T @ L
    assert all(a < b for a, b in pairwise(steps))


@pytest.mark.parametrize("offset", [-1, 50])  # the slopes or the curvature set the step
@pytest.mark.parametrize("seed", range(15))
def test_the_signed_step_lowers_h(seed, offset):
    rng = np.random.default_rng(seed)
    k, m = 3, 5
    a = torch.from_numpy(rng.standard_normal((k, m)))
    b = torch.from_numpy(rng.standard_normal((k, m)))

    def phi(theta):  # |J| <= |a| + |b|, each beta-smooth with beta = max |b_k|^2
        return a @ theta + torch.sin(b @ theta) + offset

    bound = float(torch.linalg.matrix_norm(a, 2) + torch.linalg.matrix_norm(b, 2))
    beta = float((b**2).sum(1).max())
    theta = torch.from_numpy(rng.standard_normal(m))
    value = phi(theta)
    eta, d = signed_step(value, beta, bound), 2 / k * jacrev(phi)(theta).T @ value
    assert h(phi(theta - eta * d)) <= h(value) - eta / 2 * float(d @ d) + 1e-12
    H = jacrev(jacrev(lambda t: (phi(t) ** 2).mean()))(theta)
    limit = 2 * bound**2 / k + 2 * beta * math.sqrt(h(value))
    assert float(torch.linalg.eigvalsh(H)[-1]) <= limit


def test_the_rate_holds_for_orthogonal_tasks():
    scales = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    theta = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)
    rate = linear_rate(0.5, 2.0, 3)
    for _ in range(100):
        losses = 0.5 * scales * theta**2  # task k depends on theta_k only; mu = .5, beta = 2
        eta = self_bounding_step(losses, 2.0)
        theta = theta - eta * 2 / 3 * scales * theta * losses
        assert h(0.5 * scales * theta**2) <= rate * h(losses)
    assert 0 < rate < 1


# ---- Kantorovich


def quadratic_map(seed):
    """Return Phi(theta) = phi + J theta + (1/2) theta'Q theta near 0, and an L_J that holds."""
    rng = np.random.default_rng(seed)
    r = int(rng.integers(1, 5))
    m = r + int(rng.integers(0, 4))
    j = torch.from_numpy(rng.standard_normal((r, m)))
    q = torch.from_numpy(rng.standard_normal((r, m, m)))
    q = (q + q.transpose(1, 2)) / 2
    phi = torch.from_numpy(rng.standard_normal(r) * 10 ** rng.uniform(-3, -1))
    lipschitz = math.sqrt(float((torch.linalg.matrix_norm(q, 2) ** 2).sum()))
    return phi, j, q, lipschitz


def test_newton_finds_an_exact_zero_within_the_radius():
    applied = 0
    closest = 0.0
    for seed in range(400):
        phi, j, q, lipschitz = quadratic_map(seed)
        if (
            lipschitz * float(torch.linalg.pinv(j).norm(2) * (torch.linalg.pinv(j) @ phi).norm())
            > 0.5
        ):
            continue  # (Frobenius: above the product itself)
        found = kantorovich(j, phi, lipschitz)
        applied += 1
        theta = torch.zeros(j.shape[1], dtype=torch.float64)
        for _ in range(60):
            value = phi + j @ theta + 0.5 * torch.einsum("m,rmn,n->r", theta, q, theta)
            theta = theta - torch.linalg.pinv(j + q @ theta) @ value
        assert float(value.abs().max()) < 1e-12
        assert float(theta.norm()) <= found.radius * (1 + 1e-9)
        closest = max(closest, float(theta.norm()) / found.radius)
    assert applied > 100
    assert closest > 0.9


def test_kantorovich_in_gramian_form():
    phi, j, _, _ = quadratic_map(3)
    g = j @ j.T
    found = kantorovich(j, phi, 0.0)
    assert found.step == pytest.approx(math.sqrt(float(phi @ torch.linalg.solve(g, phi))))
    assert found.pinv == pytest.approx(float(torch.linalg.eigvalsh(g)[0]) ** -0.5)
    assert found.radius == found.step  # of a linear map the zero is that far away
    assert kantorovich(j, 0 * phi, 5.0).radius == 0


def test_kantorovich_of_one_unknown_is_sharp():
    # x^2/2 - x + t has zeros iff t <= 1/2, the nearest at 1 - sqrt(1 - 2t)
    one = torch.ones(1, 1, dtype=torch.float64)
    for t in (0.1, 0.5):
        found = kantorovich(-one, t * one[0], 1.0)
        assert found.product == pytest.approx(t)
        assert found.radius == pytest.approx(1 - math.sqrt(1 - 2 * t))
    with pytest.raises(ValueError, match="above 1/2"):
        kantorovich(-one, 0.51 * one[0], 1.0)


# ---- conditioning


@pytest.mark.parametrize("seed", range(10))
def test_condition_numbers_by_hand(seed):
    j, _ = problem(seed)
    g = gramian(j)
    assert cosine_condition_number(g) == pytest.approx(np.linalg.cond(cosine_matrix(j)), rel=1e-6)
    ridge = 0.1 * float(g.trace())
    assert ridge_condition_number(g, ridge) == pytest.approx(
        np.linalg.cond(g.numpy() + ridge * np.eye(len(g))), rel=1e-9
    )
    scale = balancing_scale(g).numpy()
    assert scale.mean() == pytest.approx(1)
    balanced = np.linalg.norm(j * scale[:, None], axis=1)
    np.testing.assert_allclose(balanced, balanced[0], rtol=1e-9)


def cosine_matrix(j):
    units = j / np.linalg.norm(j, axis=1, keepdims=True)
    return units @ units.T


def test_balancing_is_within_a_factor_k_of_the_best_scaling():
    for seed in range(20):
        j, _ = problem(seed)
        best = condition_number(gramian(j))
        rng = np.random.default_rng(seed)
        for _ in range(200):
            s = 10 ** rng.uniform(-2, 2, len(j))
            best = min(best, condition_number(gramian(s[:, None] * j)))
        balanced = condition_number(gramian(balancing_scale(gramian(j)).numpy()[:, None] * j))
        assert balanced <= len(j) * best * (1 + 1e-6)


def test_effective_tasks_counts_directions():
    assert effective_tasks(gramian(np.diag([1.0, 1e3, 1e-3]))) == pytest.approx(3)
    same = np.array([[1.0, 2.0], [-2.0, -4.0], [0.5, 1.0]])
    assert effective_tasks(gramian(same)) == pytest.approx(1)
    assert effective_tasks(gramian(np.vstack([np.eye(2), np.zeros((1, 2))]))) == pytest.approx(2)
    assert effective_tasks(torch.zeros(2, 2, dtype=torch.float64)) == 0


def test_a_ridge_makes_a_zero_row_harmless():
    g = gramian(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert ridge_condition_number(g, 0.5) == pytest.approx(3)
    assert balancing_scale(g).tolist() == [1.0, 1.0]


# ---- outside their domains


ONE = torch.ones(2, dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: h(-ONE, "sqrt"), "task 0 is -1"),
        (lambda: h(0 * ONE, "sqrt"), "above 0"),
        (lambda: h(ONE, "root"), "'losses' or 'sqrt'"),
        (lambda: pl_bound(-ONE, EYE), "never negative; that of task 0 is -1"),
        (lambda: pl_bound(ONE, 0 * EYE), "linearly dependent"),
        (lambda: self_bounding_step(-ONE, 1.0), "never negative"),
        (lambda: self_bounding_step(ONE, 0.0), "beta=0.0"),
        (lambda: signed_step(ONE, -1.0, 1.0), "beta=-1.0"),
        (lambda: signed_step(ONE, 1.0, 0.0), "bound=0.0"),
        (lambda: linear_rate(2.0, 1.0, 3), "mu=2.0"),
        (lambda: ridge_condition_number(EYE, 0.0), "ridge=0.0"),
        (lambda: kantorovich(torch.ones(3, 2), torch.ones(3), 1.0), "3 residuals and only 2"),
        (lambda: kantorovich(torch.ones(2, 3), torch.ones(2), 1.0), "full row rank"),
        (lambda: kantorovich(EYE, ONE, math.nan), "lipschitz=nan"),
    ],
)
def test_outside_its_domain_a_certificate_says_so(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# ---- the sheet


def test_the_sheet_has_a_value_or_a_reason_for_every_one():
    j, losses = problem(4)
    found = {c.name: c for c in gram_certificates(gramian(j), losses, beta=2.0)}
    assert list(found) == list(GRAM_CERTIFICATES)
    assert all(
        c.applicable and math.isfinite(c.value) and c.phi and c.meaning for c in found.values()
    )
    assert found["h"].value == h(losses)
    assert found["pl_bound_sqrt"].value == pl_bound(losses, gramian(j), "sqrt")
    assert found["self_bounding_step"].value == self_bounding_step(losses, 2.0)
    assert found["critical_cone"].value == critical_cone(gramian(j))


def test_the_sheet_says_what_is_not_applicable():
    j, losses = problem(4)
    j[1] = 2 * j[0]
    found = {c.name: c for c in gram_certificates(gramian(j), losses, rounding=1e-6)}
    assert "beta" in found["self_bounding_step"].reason
    for name in ("pl_bound", "pl_constant", "pl_bound_sqrt"):
        assert "linearly dependent" in found[name].reason
    assert "rounding hides" in found["condition_number"].reason
    assert found["ridge_condition_number"].applicable
    nothing = {c.name: c for c in gram_certificates(0 * EYE, 0 * ONE)}
    assert {n for n, c in nothing.items() if c.applicable} == {"h", "squared_gradient"}
    assert str(nothing["gram_step"]).startswith("gram_step: not applicable: ")
    alone = {c.name: c for c in gram_certificates(EYE[:1, :1], ONE[:1])}
    assert "no two tasks" in alone["min_cosine"].reason
    assert alone["condition_number"].value == 1


def test_the_sheet_wants_a_finite_gramian():
    with pytest.raises(ValueError, match="diverged"):
        list(gram_certificates(math.nan * EYE, ONE))
    with pytest.raises(ValueError, match="do not fit"):
        list(gram_certificates(EYE, torch.ones(3)))
    with pytest.raises(ValueError, match="has no option 'ridge'; its options: none"):
        GRAM_CERTIFICATES["h"].value(EYE, ONE, ridge=1.0)
