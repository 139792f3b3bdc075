"""DynamicWeightAverage: ratios of epochs by hand, missing labels, periods."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from mtlsk.aggregators import DynamicWeightAverage


def told(*losses):
    return torch.tensor(losses, dtype=torch.float64)


def epoch(live, *batches):
    """Call with each batch of losses, end the epoch, return the weights of its calls."""
    weights = [live.task_weights(None, told(*losses)) for losses in batches]
    live.end_epoch()
    return weights


def test_it_is_the_softmax_of_the_ratios_of_the_last_two_epochs():
    live = DynamicWeightAverage(temperature=0.5)
    for w in epoch(live, (3.0, 1.0, 8.0), (5.0, 1.0, 8.0)):  # means 4, 1, 8
        assert w.tolist() == [1 / 3] * 3
    for w in epoch(live, (2.0, 1.0, 9.0), (2.0, 1.0, 5.0), (2.0, 1.0, 10.0)):  # 2, 1, 8
        assert w.tolist() == [1 / 3] * 3
    expected = [math.exp(r / 0.5) for r in (2 / 4, 1 / 1, 8 / 8)]
    expected = [e / sum(expected) for e in expected]
    for w in epoch(live, (1.0, 3.0, 8.0), (9.0, 9.0, 9.0)):  # the same in the whole epoch
        assert w.tolist() == pytest.approx(expected, rel=1e-12)
    (w,) = epoch(live, (1.0, 1.0, 1.0))
    expected = [math.exp(r / 0.5) for r in (5 / 2, 6 / 1, 8.5 / 8)]
    assert w.tolist() == pytest.approx([e / sum(expected) for e in expected], rel=1e-12)


def test_temperature_by_default_is_that_of_the_paper():
    live = DynamicWeightAverage()
    for losses in ((1.0, 1.0), (0.5, 1.0)):
        epoch(live, losses)
    (w,) = epoch(live, (1.0, 1.0))
    assert float(w[1]) == pytest.approx(1 / (1 + math.exp((0.5 - 1) / 2)), rel=1e-12)


def test_without_an_end_of_an_epoch_the_weights_stay_equal():
    live = DynamicWeightAverage()
    for i in range(50):
        assert live.task_weights(None, told(1.0, 1.0 + i)).tolist() == [0.5, 0.5]


def test_a_period_counts_calls_instead():
    counted, told_ends = DynamicWeightAverage(period=3), DynamicWeightAverage()
    generator = torch.Generator().manual_seed(0)
    seen = []
    for i in range(20):
        losses = torch.rand(3, generator=generator, dtype=torch.float64)
        w = counted.task_weights(None, losses)
        assert torch.equal(w, told_ends.task_weights(None, losses)), i
        counted.end_epoch()  # does not count
        if i % 3 == 2:
            told_ends.end_epoch()
        seen.append(tuple(w.tolist()))
    assert len(set(seen)) == 6  # equal in 6 calls, then 5 times something else


def test_means_are_over_the_calls_that_had_the_task():
    live = DynamicWeightAverage(temperature=1.0)
    for factor in (1.0, 0.5):
        live.active_ = (0, 1)
        live.task_weights(None, factor * told(4.0, 6.0))
        live.active_ = (0,)
        live.task_weights(None, factor * told(2.0))
        live.end_epoch()
        # task 1 is not diluted by the call without it, task 2 has had none
        assert live.last_mean_.tolist() == [factor * 3.0, factor * 6.0]
    live.active_ = None
    w = live.task_weights(None, told(1.0, 1.0, 1.0))
    expected = [math.exp(r) for r in (0.5, 0.5, 1.0)]  # 1 where nothing is known
    assert w.tolist() == pytest.approx([e / sum(expected) for e in expected], rel=1e-12)


def test_an_epoch_without_the_task_is_none_for_it():
    live = DynamicWeightAverage()
    for losses in ((8.0, 1.0), (2.0, 1.0)):
        epoch(live, losses)
    live.active_ = (1,)
    epoch(live, (3.0,))
    assert live.last_mean_.tolist() == [2.0, 3.0]
    assert live.mean_before_.tolist() == [8.0, 1.0]
    epoch(live)  # and an epoch without any call changes nothing
    assert live.last_mean_.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("before", "last", "ratio"),
    [(0.0, 1.0, 1.0), (-1.0, 2.0, 1.0), (1.0, -2.0, 1.0), (0.0, 0.0, 1.0), (2.0, 0.0, 0.0)],
)
def test_a_ratio_of_losses_that_are_not_positive(before, last, ratio):
    live = DynamicWeightAverage(temperature=1.0)
    epoch(live, (before, 1.0))
    epoch(live, (last, 0.5))
    (w,) = epoch(live, (1.0, 1.0))
    expected = math.exp(ratio) / (math.exp(ratio) + math.exp(0.5))
    assert float(w[0]) == pytest.approx(expected, rel=1e-12)


def test_losses_of_any_size_give_finite_weights():
    for temperature in (1e-6, 2.0):
        live = DynamicWeightAverage(temperature=temperature)
        epoch(live, (1e-300, 1e-300, 1e300, 1.0))
        epoch(live, (1e300, 1e300, 1e-300, 1.0))
        (w,) = epoch(live, (1.0, 1.0, 1.0, 1.0))
        assert w.tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0])


def test_a_run_saved_in_the_middle_of_an_epoch_goes_on():
    for params in ({}, {"period": 2}):
        live = DynamicWeightAverage(**params)
        for i in range(5):
            epoch(live, (1.0 + i, 2.0), (0.5, 1.0 + i))
        live.task_weights(None, told(1.0, 9.0))
        state = pickle.loads(pickle.dumps(live.state_dict()))
        other = DynamicWeightAverage(**params).load_state_dict(state)
        for i in range(3):
            batches = ((3.0 - i, 1.0), (1.0, 2.0), (i, 1.0))
            for w, expected in zip(epoch(other, *batches), epoch(live, *batches), strict=True):
                assert torch.equal(w, expected)
        assert live.reset().state_dict() == {}


def test_its_parameters():
    with pytest.raises(ValueError, match=r"temperature=0 is not allowed"):
        DynamicWeightAverage(temperature=0).check_domains()
    with pytest.raises(ValueError, match=r"period=0 is not allowed.*an integer in \[1, inf"):
        DynamicWeightAverage(period=0).check_domains()
