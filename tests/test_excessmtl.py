"""ExcessMTL's surrogate: its weights by hand, where it meets the paper's estimate, hard inputs."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from mtlsk.aggregators import ExcessMTL

ONES = torch.ones(3, dtype=torch.float64)


def told(*values):
    return torch.tensor(values, dtype=torch.float64)


def call(live, *norms):
    squares = told(*norms) ** 2
    return live.task_weights(squares.diag(), torch.ones(len(norms), dtype=torch.float64))


def test_by_hand():
    live = ExcessMTL(step=0.5)
    # the first call: every estimate is 1 of its first value
    assert call(live, 3.0, 1.0).tolist() == pytest.approx([0.5, 0.5])
    w = call(live, 4.0, 1.0)
    # 16 / sqrt(9 + 16) / 3 and 1 / sqrt(1 + 1)
    expected = [math.exp(0.5 * 16 / 15), math.exp(0.5 / math.sqrt(2))]
    assert w.tolist() == pytest.approx([e / sum(expected) for e in expected])
    w = call(live, 0.0, 1.0)
    expected[1] *= math.exp(0.5 / math.sqrt(3))
    assert w.tolist() == pytest.approx([e / sum(expected) for e in expected])


def test_where_squared_gradients_keep_their_shape_it_is_the_papers_estimate():
    generator = torch.Generator().manual_seed(0)
    shape = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    live, step = ExcessMTL(step=0.1), 0.1
    sums = torch.zeros_like(shape)
    w, first = ONES / 3, None
    for _ in range(20):
        sizes = torch.rand(3, 1, generator=generator, dtype=torch.float64) + 0.2
        signs = torch.randn(3, 20, generator=generator, dtype=torch.float64).sign()
        j = sizes * signs * shape
        got = live.task_weights(j @ j.T, ONES)
        sums += j**2
        excess = (j**2 / sums.sqrt()).sum(1)  # g' H^-1 g, H the diagonal of Adagrad
        first = excess if first is None else first
        w = w * torch.exp(step * excess / first)
        w = w / w.sum()
        torch.testing.assert_close(got, w)
    assert float(w.max() / w.min()) > 1.05


def test_a_task_whose_gradient_stays_gains_on_one_that_has_converged():
    live = ExcessMTL(step=0.1)
    for i in range(50):
        w = call(live, 1.0, 0.9**i, 1.0)
    assert float(w[1]) < float(w[0]) == pytest.approx(float(w[2]))


def test_units_of_the_losses_change_no_weight():
    one, other = ExcessMTL(step=0.3), ExcessMTL(step=0.3)
    for i in range(10):
        w = call(one, 1.0, 2.0 + i, 1 / (1 + i))
        v = call(other, 1e-5, 1e4 * (2.0 + i), 7 / (1 + i))
        torch.testing.assert_close(v, w)


def test_a_zero_gradient_has_no_excess_and_begins_later():
    live = ExcessMTL(step=0.1)
    for _ in range(5):
        w = call(live, 1.0, 0.0)
        assert bool(w.isfinite().all())
    assert float(w[1]) < 0.5
    assert live.first_excess_.tolist() == [1.0, 0.0]
    call(live, 1.0, 5.0)
    assert live.first_excess_.tolist() == [1.0, 5.0]
    assert call(ExcessMTL(), 0.0, 0.0).tolist() == [0.5, 0.5]


def test_an_estimate_that_grows_without_bound_is_cut():
    live = ExcessMTL(step=1.0)
    call(live, 1e-100, 1.0)
    for _ in range(1000):
        w = call(live, 1e100, 1.0)
    assert w.tolist() == [1.0, 0.0]
    assert float(live.log_weights_.abs().max()) <= 1001 * 1e6


def test_absent_tasks_keep_their_share_and_a_saved_run_goes_on():
    live = ExcessMTL(step=0.3)
    for i in range(4):
        whole = call(live, 1.0 + i, 1.0, 1.0)
    kept = live.state_dict()
    live.active_ = (0, 2)
    w = call(live, 0.1, 5.0)
    assert float(w.sum()) == pytest.approx(1)
    for name, value in kept.items():
        changed = getattr(live, name) != value
        assert not bool(changed[1]), name
        assert bool(changed.any()) == (name != "first_excess_"), name
    shares = live.log_weights_.exp() / 3
    assert float(shares.sum()) == pytest.approx(1)
    assert float(shares[1]) == pytest.approx(float(whole[1]))
    other = ExcessMTL(step=0.3).load_state_dict(pickle.loads(pickle.dumps(live.state_dict())))
    live.active_ = None
    for _ in range(3):
        assert torch.equal(call(live, 1.0, 2.0, 3.0), call(other, 1.0, 2.0, 3.0))


def test_it_says_that_it_is_a_surrogate():
    assert "surrogate (ours)" in ExcessMTL.paper
    assert "not the paper's" in ExcessMTL.__doc__
