"""GradVac: the algorithm on explicit gradients, its targets, and gradients with no angle."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from mtlsk.aggregators import GradVac
from mtlsk.testing import gradients


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        yield


def call(live, j, seed=0):
    torch.manual_seed(seed)
    return live.task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


def vaccinated(j, rho, beta, seed=0):
    """Return the update and the new rho by the paper's algorithm on the gradients themselves."""
    torch.manual_seed(seed)
    rho, total = rho.clone(), torch.zeros_like(j[0])
    for i in range(len(j)):
        g = j[i].clone()
        for other in torch.randperm(len(j)).tolist():
            if other == i:
                continue
            phi = float(torch.cosine_similarity(g, j[other], dim=0))
            usual = float(rho[i, other])
            if phi < usual:
                across = j[other] / (j[other].norm() * math.sqrt(1 - usual**2))
                more = usual * math.sqrt(1 - phi**2) - phi * math.sqrt(1 - usual**2)
                g = g + g.norm() * more * across
                after = float(torch.cosine_similarity(g, j[other], dim=0))
                assert after == pytest.approx(usual, abs=1e-7)  # what the formula is for
            rho[i, other] = (1 - beta) * usual + beta * phi
        total += g
    return total / len(j), rho


@pytest.mark.parametrize("beta", [0.0, 0.01, 0.5])
def test_it_is_the_papers_algorithm(beta):
    for k in (2, 3, 6):
        live, rho = GradVac(beta=beta), torch.zeros(k, k, dtype=torch.float64)
        for seed in range(12):
            j = gradients(seed, k=k)
            d, rho = vaccinated(j, rho, beta, seed)
            torch.testing.assert_close(call(live, j, seed) @ j, d, rtol=1e-8, atol=1e-9)
            if beta > 0:
                torch.testing.assert_close(live.similarity_, rho, rtol=1e-9, atol=1e-12)


def test_by_hand():
    # cos -.6 < 0: both are projected, as PCGrad does
    j = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    live = GradVac(beta=0.1)
    torch.testing.assert_close(call(live, j), torch.tensor([0.8, 0.8]).double())
    # g_1 + .6 g_2 and g_2 + .6 g_1, over 2
    expected = torch.tensor([[0.0, -0.06], [-0.06, 0.0]]).double()
    torch.testing.assert_close(live.similarity_, expected)


def test_with_all_similarities_above_their_targets_it_is_the_mean():
    j = torch.eye(3, 4, dtype=torch.float64) + 0.1
    live = GradVac()
    assert call(live, j).tolist() == pytest.approx([1 / 3] * 3)
    off = live.similarity_[~torch.eye(3, dtype=torch.bool)]
    assert bool((off > 0).all())  # and then asks for some of that similarity
    assert call(live, torch.eye(3, 4, dtype=torch.float64)).max() > 1 / 3


def test_the_targets_approach_the_usual_cosines():
    live, j = GradVac(beta=0.1), gradients(1)
    cosines = torch.nn.functional.normalize(j) @ torch.nn.functional.normalize(j).T
    assert bool((cosines > 0).all())
    for _ in range(200):
        call(live, j)
    off = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(live.similarity_[off], cosines[off], rtol=1e-6, atol=0)


def test_parallel_and_opposite_gradients():
    g = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    opposite = torch.cat([g, -g])
    assert float((call(GradVac(), opposite) @ opposite).norm()) < 1e-7
    # three: what g_1' and g_2' lose exactly is passed over from there on
    three = torch.cat([g, -g, torch.tensor([[0.0, 1.0, 3.0]]).double()])
    for seed in range(6):
        w = call(GradVac(beta=1.0), three, seed)
        assert bool(w.isfinite().all())
        assert float(w.abs().max()) < 5
    # and what rounding leaves of it has no angle: its rho is a cosine of g_1, or not touched
    g, g3 = torch.tensor([[0.1, 0.7, -0.3]]).double(), torch.tensor([[0.2, 1.0, 0.1]]).double()
    three, seen = torch.cat([g, -3.3 * g, g3]), set()
    for seed in range(10):
        live = GradVac(beta=1.0)
        call(live, three, seed)
        seen.add(round(float(live.similarity_[0, 2]), 9))
    cosine = float(torch.cosine_similarity(g[0], g3[0], dim=0))
    assert seen == {0.0, round(cosine, 9)}
    same = torch.cat([g, g])
    live = GradVac(beta=1.0)
    assert call(live, same).tolist() == pytest.approx([0.5, 0.5])
    assert live.similarity_[0, 1] == pytest.approx(1)
    # rho = 1 is asked for of an orthogonal pair: .999 counts
    w = call(live, torch.eye(2, dtype=torch.float64))
    more = 0.999 / math.sqrt(1 - 0.999**2)
    assert w.tolist() == pytest.approx([(1 + more) / 2] * 2)


def test_what_an_opposite_gradient_has_left_of_one_has_no_angle():
    for seed in range(10):
        g, _, other = gradients(seed)
        j = torch.stack([g, -0.7 * g, other])
        live = GradVac(beta=1.0)
        call(live, j, seed)
        phi = float(torch.cosine_similarity(g, other, dim=0))
        for i, known in ((0, phi), (1, -phi)):
            # nothing where the opposite one came first
            assert any(math.isclose(live.similarity_[i, 2], x, abs_tol=1e-9) for x in (0, known))


def test_a_zero_gradient_is_passed_over():
    j = gradients(2)
    with_zero = torch.cat([j, torch.zeros(1, 8, dtype=torch.float64)])
    live = GradVac(beta=0.5)
    w = call(live, with_zero)
    assert w[3] == 0
    assert live.similarity_[3].tolist() == [0.0] * 4
    torch.testing.assert_close(w[:3] * 4 / 3, call(GradVac(beta=0.5), j))
    zero = torch.zeros(2, 3, dtype=torch.float64)
    assert call(GradVac(), zero).tolist() == [0.5, 0.5]


def test_units_of_one_task_leave_cosines_and_targets():
    j, units = gradients(2), torch.tensor([[1e-4], [1.0], [1e4]], dtype=torch.float64)
    one, other = GradVac(beta=0.3), GradVac(beta=0.3)
    for seed in range(5):
        call(one, j, seed)
        call(other, units * j, seed)
    torch.testing.assert_close(one.similarity_, other.similarity_, rtol=1e-6, atol=1e-9)


def test_pairs_with_an_absent_task_keep_theirs_and_a_saved_run_goes_on():
    live, j = GradVac(beta=0.3), gradients(0)
    for seed in range(3):
        call(live, j, seed)
    kept = live.similarity_.clone()
    live.active_ = (0, 2)
    call(live, gradients(5)[[0, 2]])
    moved = torch.zeros(3, 3, dtype=torch.bool)
    moved[0, 2] = moved[2, 0] = True
    assert torch.equal(live.similarity_ != kept, moved)
    other = GradVac(beta=0.3).load_state_dict(pickle.loads(pickle.dumps(live.state_dict())))
    live.active_ = None
    for seed in range(3):
        assert torch.equal(call(live, j, seed), call(other, j, seed))
