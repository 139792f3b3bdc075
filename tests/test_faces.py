"""The search over faces: against the methods it replaces, from any start, without a cycle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtlsk.simplex import faces, linear_plus_norm, min_norm_point, minimum, search_faces
from mtlsk.simplex.interior import interior_point
from mtlsk.simplex.nonnegative import shortest_in_hull


def gradient_set(seed, most=40):
    """Return J (K, M) with max |g_k| = 1: ordinary and hostile sets in turn."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, most))
    m = int(rng.choice([k + 1, 2 * k + 3, 120]))
    j, common = rng.standard_normal((k, m)), rng.standard_normal(m)
    kind = seed % 8
    if kind == 1:
        j = 0.3 * j + common
    if kind == 2:
        j += np.where(np.arange(k) % 2 == 0, 1.0, -1.0)[:, None] * common
    if kind == 3:
        j[-1] = -j[:-1].sum(0) + 0.3 * rng.standard_normal(m)  # nearly stationary
    if kind == 4:
        j[-1] = j[0]
    if kind == 5:
        j[-1] = j[0] + 1e-9 * rng.standard_normal(m)
    if kind == 6:
        j = 0.02 * j + common
    if kind == 7:
        j = rng.standard_normal((k, max(2, k // 2)))  # rank-deficient
    j *= np.geomspace(1.0, [1.0, 10.0, 1e3, 1e6][seed // 8 % 4], k)[rng.permutation(k), None]
    return j / np.linalg.norm(j, axis=1).max()


def gap(linear, g, radius, w):
    """Return the duality gap at w and what rounding hides of it, relative to the terms of f."""
    length = math.sqrt(max(float(w @ g @ w), 1e-300))
    slopes = linear + radius * (g @ w) / length
    terms = float(np.abs(linear) @ w + radius * length)
    norms = np.sqrt(np.abs(g.diagonal()))
    hidden = 100 * np.finfo(float).eps * radius * norms.max() * float(norms @ w) / length
    return float(slopes @ w - slopes.min()) / terms, hidden / terms


def cone(g, c):
    p = g.mean(1) / math.sqrt(g.mean())
    return c * p, g - np.outer(p, p), math.sqrt(1 - c * c)


def problems(seed):
    """Yield (linear, Gramian, radius) of CAGrad and ConicGrad."""
    g = (j := gradient_set(seed)) @ j.T
    for c in (0.1, 0.5, 1.0, 3.0):
        yield g.mean(1), g, c * math.sqrt(g.mean())
    shortest = shortest_in_hull(g)
    length = math.sqrt(abs(float(shortest @ g @ shortest)))
    if length > 1e-6 * float(shortest @ np.sqrt(g.diagonal())):  # otherwise no cone has a solution
        inside = max(float(g.mean(1) @ shortest) / (math.sqrt(g.mean()) * length), 0.0)
        for share in (0.1, 0.5, 0.9):  # cones without the shortest vector
            if inside < 0.999:
                yield cone(g, inside + share * (1 - inside))


def test_the_shortest_vector_is_that_of_non_negative_least_squares():
    found = 0
    for seed in range(400):
        g = (j := gradient_set(seed, 60)) @ j.T
        w = search_faces(g, range(len(g)))
        if w is None:
            continue
        found += 1
        assert w.min() >= 0
        assert w.sum() == pytest.approx(1, abs=1e-12)
        norms = np.linalg.norm(j, axis=1)
        size = float(w @ norms) ** 2  # what rounding is relative to
        least, other = float(w @ g @ w), shortest_in_hull(g)
        assert least <= float(other @ g @ other) * (1 + 1e-10) + 1e-13 * size, seed
        # and no task is short of progress by more than its own rounding
        short = least - g @ w
        assert (short <= 1e-9 * least + 1e-13 * norms * float(w @ norms)).all(), seed
    assert found >= 380


def test_linear_plus_norm_is_that_of_the_interior_point():
    found, total = 0, 0
    for seed in range(160):
        for linear, g, radius in problems(seed):
            k, total = len(g), total + 1
            w = search_faces(g, range(k), linear, radius)
            if w is None:
                continue
            found += 1
            assert w.min() >= 0
            assert w.sum() == pytest.approx(1, abs=1e-12)
            short, hidden = gap(linear, g, radius, w)
            assert short <= 1e-11 + hidden, seed
            if seed % 4 == 0:
                other = interior_point(linear, g, radius, np.full(k, 1 / k), tol=1e-12)
                mine, theirs = (
                    float(linear @ x) + radius * math.sqrt(max(float(x @ g @ x), 0.0))
                    for x in (w, other)
                )
                size = float(np.abs(linear) @ w) + radius * math.sqrt(float(w @ g @ w))
                assert mine <= theirs + 1e-9 * size, seed
    assert found >= 0.75 * total


@pytest.mark.parametrize("c", [0.1, 0.5, 1.0, 3.0])
def test_the_answer_does_not_depend_on_the_start(c):
    rng = np.random.default_rng(0)
    compared = 0
    for seed in range(120):
        g = (j := gradient_set(seed)) @ j.T
        radius = c * math.sqrt(g.mean())
        starts = [rng.permutation(len(g))[: rng.integers(1, len(g) + 1)] for _ in range(3)]
        found = [search_faces(g, start.tolist(), g.mean(1), radius) for start in starts]
        directions = [w @ j for w in found if w is not None]
        for d in directions[1:]:
            assert np.linalg.norm(d - directions[0]) <= 1e-9, seed
            compared += 1
    assert compared > 100


@pytest.mark.parametrize("k", [1, 2, 100])
def test_small_and_large(k):
    j = np.random.default_rng(k).standard_normal((k, 150))
    g = j @ j.T / 150
    w = min_norm_point(g)
    assert (g @ w).min() >= (w @ g @ w) * (1 - 1e-10)
    w = linear_plus_norm(g.mean(1), g, 0.5 * math.sqrt(g.mean()), np.full(k, 1 / k))
    assert gap(g.mean(1), g, 0.5 * math.sqrt(g.mean()), w)[0] <= 1e-10


@pytest.mark.parametrize("seed", range(16))
def test_no_search_goes_on_for_ever(seed, monkeypatch):
    solves, solve = [], faces.dposv

    def counted(*args):
        solves.append(1)
        return solve(*args)

    monkeypatch.setattr(faces, "dposv", counted)
    most = 0
    for linear, g, radius in problems(seed):
        solves.clear()
        search_faces(g, range(len(g)), linear, radius)
        most = max(most, len(solves) / len(g))
    assert most <= 3 + 20 / len(g)


def test_from_the_right_face_one_solve_is_all(monkeypatch):
    solves, solve = [], faces.dposv

    def counted(*args):
        solves.append(1)
        return solve(*args)

    for seed in (s for s in range(160) if s % 8 in (0, 1, 6) and s // 8 % 4 < 2):
        g = (j := gradient_set(seed)) @ j.T
        w = min_norm_point(g)
        solves.clear()
        with monkeypatch.context() as patch:
            patch.setattr(faces, "dposv", counted)
            again = min_norm_point(g, w.nonzero()[0].tolist())
        np.testing.assert_array_equal(again, w)
        assert len(solves) == 1, seed


def test_the_fallbacks_give_the_same_answers(monkeypatch):
    cases = []
    for seed in (s for s in range(48) if s % 8 in (0, 1, 6)):  # elsewhere they may stop early
        g = (j := gradient_set(seed)) @ j.T
        cases += [(*problem, min_norm_point(g)) for problem in problems(seed)]
    first = [linear_plus_norm(*case) for case in cases]
    monkeypatch.setattr(minimum, "search_faces", lambda *_: None)
    for (linear, g, radius, start), w in zip(cases, first, strict=True):
        other = linear_plus_norm(linear, g, radius, start)
        f, f_other = (
            float(linear @ x) + radius * math.sqrt(max(float(x @ g @ x), 0.0)) for x in (w, other)
        )
        assert f == pytest.approx(f_other, abs=1e-7 * float(np.abs(linear) @ w + radius))
    for seed in range(20):
        g = (j := gradient_set(seed)) @ j.T
        w, other = search_faces(g, range(len(g))), min_norm_point(g)
        assert w is None or w @ g @ w == pytest.approx(other @ g @ other, rel=1e-9, abs=1e-14)
