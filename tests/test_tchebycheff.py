"""Tchebycheff: the argmax by hand, ties, preferences, references and their errors."""

from __future__ import annotations

import pytest
import torch

from mtlsk.aggregators import Tchebycheff


def told(*losses):
    return torch.tensor(losses, dtype=torch.float64)


def weights(losses, **params):
    return Tchebycheff(**params).check_domains().task_weights(None, losses).tolist()


def test_by_default_it_is_the_gradient_of_the_largest_loss():
    assert weights(told(1.0, 3.0, 2.0)) == [0.0, 1.0, 0.0]
    assert weights(told(-1.0, -3.0)) == [1.0, 0.0]
    assert weights(told(0.0)) == [1.0]


def test_those_that_tie_share_equally():
    assert weights(told(3.0, 3.0, 2.0)) == [0.5, 0.5, 0.0]
    assert weights(told(0.0, 0.0, 0.0, 0.0)) == [0.25] * 4
    # 1.5 * 2 = 0.75 * 4: each has half of its lambda
    assert weights(told(2.0, 4.0), preference=[2.0, 1.0], reference=0.0) == pytest.approx(
        [2 / 3, 1 / 3]
    )


def test_a_preference_has_mean_one_whatever_its_sum():
    for preference in ([0.5, 0.25, 0.25], [2, 1, 1]):
        assert weights(told(1.0, 1.9, 1.0), preference=preference) == pytest.approx([1.5, 0, 0])
        assert weights(told(1.0, 2.1, 1.0), preference=preference) == pytest.approx([0, 0.75, 0])


def test_a_task_without_preference_never_counts():
    assert weights(told(9.0, 1.0), preference=[0.0, 1.0]) == [0.0, 2.0]
    # where the other is below its reference 0 * (...) would be the maximum
    assert weights(told(9.0, 1.0), preference=[0.0, 1.0], reference=2.0) == [0.0, 2.0]
    live = Tchebycheff(preference=[0.0, 1.0])
    live.active_ = (0,)
    assert live.task_weights(None, told(1.0)).tolist() == [0.0]


def test_a_reference_is_one_number_or_one_a_task():
    losses = told(3.0, 2.0, 1.0)
    assert weights(losses, reference=5.0) == [1.0, 0.0, 0.0]
    preference = [2.0, 1.0]  # lambda 4/3, 2/3
    # of 2 and 3.5 the first is larger, of 1 and 2.5 the second
    assert weights(told(2.0, 3.5), preference=preference) == pytest.approx([4 / 3, 0])
    assert weights(told(2.0, 3.5), preference=preference, reference=1.0) == pytest.approx(
        [0, 2 / 3]
    )
    assert weights(losses, reference=[2.5, 0.5, 0.0]) == [0.0, 1.0, 0.0]
    assert Tchebycheff().unit_free
    assert Tchebycheff(reference=[0.0, 0.0]).unit_free
    assert not Tchebycheff(reference=[0.0, 0.1]).unit_free
    assert not Tchebycheff(reference=1.0).unit_free


def test_a_descent_reaches_a_point_that_no_weighted_sum_does():
    # a front that is concave in its middle
    def losses(x):
        return torch.stack([1 - torch.exp(-((x - 1) ** 2)), 1 - torch.exp(-((x + 1) ** 2))])

    x = told(0.4).requires_grad_(True)
    for step in range(2000):
        values = losses(x).squeeze()
        w = Tchebycheff().task_weights(None, values.detach())
        (gradient,) = torch.autograd.grad(w @ values, x)
        x = (x - 0.5 / (1 + step) * gradient).detach().requires_grad_(True)
    assert float(x.detach()) == pytest.approx(0, abs=1e-2)  # both lose 1 - 1/e
    grid = torch.linspace(-2, 2, 401, dtype=torch.float64)
    for share in torch.linspace(0, 1, 21, dtype=torch.float64):
        best = grid[(torch.stack([share, 1 - share]) @ losses(grid)).argmin()]
        assert abs(float(best)) > 0.5


def test_lists_follow_the_tasks_that_are_there():
    live = Tchebycheff(preference=[1.0, 1.0, 4.0], reference=[0.0, 0.0, 1.0])
    live.active_ = (0, 2)
    # lambda of all three: .5, .5, 2
    assert live.task_weights(None, told(3.0, 1.5)).tolist() == [0.5, 0.0]
    assert live.task_weights(None, told(3.0, 2.0)).tolist() == [0.0, 2.0]
    assert live.state_dict() == {}


@pytest.mark.parametrize("name", ["preference", "reference"])
def test_a_list_of_another_length(name):
    live = Tchebycheff(**{name: [1.0, 2.0]})
    message = f"Tchebycheff: {name} has 2 entries for 3 tasks; give one a task"
    with pytest.raises(ValueError, match=message):
        live.task_weights(None, told(1.0, 1.0, 1.0))
    live.active_ = (0, 2)  # as many as there are, but not theirs
    with pytest.raises(ValueError, match=f"{name} has 2 entries for a task 2"):
        live.task_weights(None, told(1.0, 1.0))


def test_its_domains():
    with pytest.raises(ValueError, match=r"preference=\[1, -1\] is not allowed"):
        Tchebycheff(preference=[1, -1]).check_domains()
    with pytest.raises(ValueError, match="reference='zero' is not allowed"):
        Tchebycheff(reference="zero").check_domains()


def test_losses_near_the_largest_number():
    assert weights(told(1e307, 1.6e308), preference=[1.0, 9.0]) == [0.0, 1.8]  # lambda L overflows
