"""Limits of linear scalarization: theorems by brute force, gaps by dense sweeps, real torques."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest

from mtlsk import exploration_test, reachability_gap
from mtlsk.linear_mtl import (
    balanced_solution,
    exploration_test_gram,
    fit_linear,
    reachability,
    scalarization_optimum,
    sign_flips,
)
from mtlsk.linear_mtl.climb import climb, undominated
from mtlsk.linear_mtl.gram import as_gram
from mtlsk.linear_mtl.highest import highest


def gramian(seed, k, lean=0.3):
    A = np.random.default_rng(seed).normal(size=(k, k + 1)) + lean
    return A @ A.T


def flips_by_brute_force(matrix, tol=1e-10):
    """Some signs make the matrix non-negative: all of them tried."""
    return any(
        (np.outer(s, s) * matrix >= -tol).all() for s in product((1, -1), repeat=len(matrix))
    )


# ---- signs


@pytest.mark.parametrize("seed", range(200))
def test_both_theorems_on_random_gramians(seed):
    k = 3 + seed % 4
    G = gramian(seed, k)
    for rank, matrix in ((1, G), (k - 1, np.linalg.inv(G))):
        found = exploration_test_gram(G, rank)
        assert found.explorable == flips_by_brute_force(matrix)
        assert found.proved
        if found.explorable:
            assert (np.outer(found.flips, found.flips) * matrix >= -1e-10).all()
        else:
            edges = list(zip(found.cycle, found.cycle[1:], strict=False))
            assert found.cycle[0] == found.cycle[-1]
            assert sum(matrix[i, j] < 0 for i, j in edges) % 2 == 1
            assert len(set(edges)) == len(edges) >= 3


def test_zeros_are_no_edges():
    chain = np.eye(4) + np.diag([-0.3, 0.2, -0.1], 1) + np.diag([-0.3, 0.2, -0.1], -1)
    signs, cycle = sign_flips(chain, 1e-10)
    assert cycle is None
    assert (np.outer(signs, signs) * chain >= 0).all()
    chain[0, 3] = chain[3, 0] = -0.1  # closes it with three negative edges
    assert sorted(sign_flips(chain, 1e-10)[1][1:]) == [0, 1, 2, 3]
    assert sign_flips(chain, 0.15)[1] is None


@pytest.mark.parametrize("rank", [1, 2])
def test_the_theorem_agrees_with_the_points_of_the_region(rank):
    """Balanced models in many directions lie on the hull iff the theorem says that all do."""
    rng, missed = np.random.default_rng(0), 0
    for seed in range(24):
        gram = as_gram(gramian(seed, 3))
        explorable = exploration_test_gram(gram.matrix, rank).explorable
        deepest = 0.0
        for _ in range(3 if explorable else 8):
            lift = 1 - rng.dirichlet(np.ones(3))
            v, exact = highest(gram.factor, rank, lift, 1, 0)
            assert exact
            if np.ptp(v + lift) < 1e-7:  # undominated: all tasks at one level
                deepest = min(deepest, reachability_gap(v, gram.unit, rank))
        assert deepest > -1e-6 or not explorable
        missed += deepest < -1e-6
    assert missed >= (4 if rank == 1 else 1)


# ---- the balanced model


@pytest.mark.parametrize("seed", range(12))
def test_balanced_is_exact_for_one_direction_and_for_all_but_one(seed):
    k = 2 + seed % 4
    G = gramian(seed, k, 0.0)
    squares = G.diagonal() * (1 + np.random.default_rng(seed).random(k))
    gram = as_gram(G)
    rows = gram.factor * np.sqrt(gram.scale)[:, None]
    for rank in {1, k - 1}:
        found = balanced_solution(G, rank, squares)
        assert found.exact
        assert found.level == pytest.approx((found.v - squares).min())
        searched = climb(rows, rank, -squares, 25, seed)
        assert (searched - squares).min() == pytest.approx(found.level, abs=1e-6 * np.trace(G))


def test_ranks_that_suffice_explain_everything():
    G = gramian(0, 4)
    for rank in (4, 3):
        A = np.linalg.cholesky(G)[:, :rank]
        found = balanced_solution(A @ A.T, rank)
        np.testing.assert_allclose(found.v, (A @ A.T).diagonal())
        assert found.exact
        assert exploration_test_gram(A @ A.T, rank).method == "full rank"
    assert not balanced_solution(gramian(0, 5), 2).exact


def test_tasks_with_room_are_bettered_at_no_cost_to_the_worst():
    G = gramian(2, 4)
    squares = G.diagonal() + np.array([5.0, 0.0, 0.0, 0.0]) * np.trace(G)  # the first is worst
    gram = as_gram(G)
    rows = gram.factor * np.sqrt(gram.scale)[:, None]
    found = balanced_solution(G, 3, squares)
    plain, _ = highest(rows, 3, -squares, 1, 0)
    t = np.sqrt(np.clip(G.diagonal() - plain, 0, None))
    sizes = [
        (s * t) @ np.linalg.solve(G, s * t) for s in np.array(list(product((1, -1), repeat=4)))
    ]
    assert min(abs(size - 1) for size in sizes) < 1e-6  # a model of rank 3
    assert found.level == pytest.approx((plain - squares).min(), rel=1e-6)
    assert (found.v >= plain - 1e-6 * np.trace(G)).all()
    assert reachability_gap(found.v, G, 3) > -1e-5
    again = undominated(found.v, rows, 3, 1)
    np.testing.assert_allclose(again, found.v, atol=1e-4 * np.trace(G))


# ---- gaps


@pytest.mark.parametrize(("seed", "rank"), [(0, 1), (1, 2), (2, 1), (3, 2)])
def test_the_gap_is_the_maximum_of_a_dense_sweep(seed, rank):
    G = gramian(seed, 3)
    gram = as_gram(G)
    v = balanced_solution(G, rank).v * (1 - 0.05 * seed)
    parts = [(i, j, 60 - i - j) for i in range(61) for j in range(61 - i)]
    sweep = [
        w @ gram.units_of(v) - scalarization_optimum(w, gram.unit, rank).value
        for w in np.array(parts) / 60
    ]
    gap = reachability_gap(v, G, rank)
    assert max(sweep) - 1e-8 <= gap < max(sweep) + 2e-3


@pytest.mark.parametrize(("k", "rank"), [(2, 1), (4, 2), (6, 1), (6, 4)])
def test_optima_have_no_gap_and_no_model_lies_above_the_hull(k, rank):
    rng = np.random.default_rng(k)
    G = gramian(k, k)
    for _ in range(3):
        v = scalarization_optimum(rng.dirichlet(np.ones(k)), G, rank).v
        assert -1e-6 < reachability_gap(v, G, rank) <= 1e-12
        P = np.linalg.qr(rng.normal(size=(k, rank)))[0]
        v = ((np.linalg.cholesky(G) @ P) ** 2).sum(axis=1)
        assert reachability_gap(v, G, rank) < 0
    assert reachability_gap(G.diagonal(), G, rank) > 0.01


def test_the_mixture_lifts_every_task_by_the_gap_and_has_optima_for_members():
    G = gramian(5, 5, 0.0)
    v = balanced_solution(G, 1).v
    found = reachability(v, G, 1)
    assert len(found.probabilities) <= 5
    gain = found.probabilities @ found.v - v
    assert (gain >= -(found.gap + found.error) * G.diagonal() - 1e-8).all()
    for weights, member in zip(found.task_weights, found.v, strict=True):
        np.testing.assert_allclose(scalarization_optimum(weights, G, 1).v, member, rtol=1e-6)


def test_the_units_of_the_tasks_do_not_matter():
    G, scale = gramian(4, 4, 0.0), np.array([1e-3, 1.0, 50.0, 7.0])
    v = balanced_solution(G, 1).v
    other = G * np.outer(scale, scale)
    gap = reachability_gap(v, G, 1)
    assert reachability_gap(v * scale**2, other, 1) == pytest.approx(gap, abs=1e-7)
    assert exploration_test_gram(other, 3) is not None
    for rank in (1, 3):
        same = exploration_test_gram(G, rank), exploration_test_gram(other, rank)
        assert same[0].explorable == same[1].explorable


# ---- search, singular matrices, what is refused


def test_the_search_says_that_it_proves_nothing():
    G = gramian(3, 4, 0.0)
    found = exploration_test_gram(G, 2)
    assert (found.method, found.explorable, found.proved) == ("search", False, False)
    assert found.gap == pytest.approx(reachability_gap(found.missed, G, 2), abs=1e-7)
    assert found.gap < -1e-4
    assert "no proof" in str(found)
    nothing = exploration_test_gram(np.eye(4), 2, directions=3)
    assert (nothing.explorable, nothing.proved, nothing.directions) == (None, False, 3)
    assert "no proof" in str(nothing)


def test_a_front_with_a_hole_in_it_is_explored():
    """Three tasks at 120 degrees, q = 1: all v lie on an ellipse that one l supports."""
    angles = 2 * np.pi * np.arange(3) / 3
    rows = np.column_stack([np.cos(angles), np.sin(angles)])
    G = rows @ rows.T  # singular, every pair negative: the theorem does not speak
    found = exploration_test_gram(G, 1, directions=5)
    assert (found.method, found.explorable, found.proved) == ("search", None, False)
    assert reachability_gap(balanced_solution(G, 1).v, G, 1) == pytest.approx(0, abs=1e-7)


def test_a_singular_matrix_may_fulfil_the_condition():
    rows = np.random.default_rng(0).random((4, 2))
    found = exploration_test_gram(rows @ rows.T, 1)
    assert found.explorable
    assert found.proved
    assert exploration_test_gram(rows @ rows.T, 3).method == "full rank"


def test_a_task_that_nothing_predicts_is_left_out():
    G = np.zeros((4, 4))
    G[1:, 1:] = gramian(1, 3)
    for rank in (1, 2):
        whole, part = exploration_test_gram(G, rank), exploration_test_gram(G[1:, 1:], rank)
        assert (whole.explorable, whole.method) == (part.explorable, part.method)
    v = balanced_solution(G[1:, 1:], 1).v
    gap = reachability_gap([0.0, *v], G, 1)
    assert gap == pytest.approx(reachability_gap(v, G[1:, 1:], 1), abs=1e-8)


def test_more_tasks_than_samples():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(4, 9)), rng.normal(size=(4, 6))
    assert exploration_test(X, Y, 3).method == "full rank"  # centred rows have rank 3
    assert exploration_test(X, Y, 1, directions=3).method == "search"


@pytest.mark.parametrize(
    ("G", "rank", "line"),
    [
        (np.eye(3), 0, "rank=0 is not allowed"),
        (np.eye(3), 4, "rank=4 is not allowed; use a whole number from 1 to 3"),
        (np.ones((2, 3)), 1, r"G has shape \(2, 3\)"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), 1, "negative eigenvalue"),
        (np.array([[1.0, 0.5], [0.1, 1.0]]), 1, "not symmetric"),
        (np.zeros((3, 3)), 1, "G is 0"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), 1, "G holds NaN"),
        ([["a"]], 1, "G=.* is not allowed"),
    ],
)
def test_matrices_and_ranks_that_are_refused(G, rank, line):
    with pytest.raises(ValueError, match=line) as caught:
        exploration_test_gram(G, rank)
    assert "\n" not in str(caught.value)


def test_data_and_points_that_are_refused():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    with pytest.raises(ValueError, match="one task"):
        exploration_test(X, Y[:, 0], 1)
    Y[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"Y contains NaN \(row 4\).*leave out rows"):
        exploration_test(X, Y, 1)
    with pytest.raises(ValueError, match="v has shape"):
        reachability_gap([1.0], np.eye(3), 1)
    with pytest.raises(ValueError, match="squares must be 3 numbers"):
        balanced_solution(np.eye(3), 1, [1.0, 1.0, 0.0])


# ---- the SARCOS arm

FAILS = {
    1: "123 124 127 135 136 145 146 156 157 256 267 356 367 456 467",
    2: "126 237 245 257 567",
}


@pytest.fixture(scope="module")
def arm(data_dir):
    table = pd.read_csv(data_dir / "sarcos_4449.csv.gz")
    X, y = table.iloc[:, :-7].to_numpy(), table.iloc[:, -7:].to_numpy()
    return X, (y - y.mean(0)) / y.std(0)


@pytest.mark.parametrize("rank", [1, 2])
def test_which_of_the_35_triples_of_torques_scalarization_explores(arm, rank):
    X, y = arm
    named = set(FAILS[rank].split())
    for triple in combinations(range(7), 3):
        found = exploration_test(X, y[:, triple], rank)
        name = "".join(str(k + 1) for k in triple)
        assert found.explorable == (name not in named), name
        fitted = X - X.mean(0)
        fitted = fitted @ np.linalg.lstsq(fitted, y[:, triple], rcond=None)[0]
        G = fitted.T @ fitted
        assert found.explorable == flips_by_brute_force(G if rank == 1 else np.linalg.inv(G))


@pytest.mark.parametrize(
    ("triple", "mse", "gap"), [((0, 3, 4), 0.6442, -0.0541), ((0, 4, 6), 0.6447, -0.0482)]
)
def test_the_balanced_models_that_scalarization_misses(arm, triple, mse, gap):
    fit = fit_linear(arm[0], arm[1][:, triple], fit_intercept=True)
    found = balanced_solution(fit.G, 1, fit.squares)
    np.testing.assert_allclose(fit.mse(found.v), mse, atol=5e-5)
    assert reachability_gap(found.v, fit.G, 1) == pytest.approx(gap, abs=5e-5)
