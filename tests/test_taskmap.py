"""The task map: scales, groups, and tasks that are not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtlsk.taskmap import SCALE, TaskMap

LOSSES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)


def test_without_scale_or_groups_it_is_the_identity():
    assert TaskMap(3).matrix([0, 1, 2]) == (None, None)
    assert TaskMap(3).matrix([0, 2]) == (None, (0, 2))


def test_scales_stand_on_the_diagonal():
    p, active = TaskMap(3, scale=[0.5, 2, 0]).matrix([0, 1, 2])
    assert torch.equal(p, torch.diag(torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)))
    assert active is None


def test_absent_tasks_have_no_column_and_no_row():
    p, active = TaskMap(4, scale=[1, 2, 3, 4]).matrix([1, 3])
    assert torch.equal(p, torch.diag(torch.tensor([2.0, 4.0], dtype=torch.float64)))
    assert active == (1, 3)


def test_groups_add_their_members():
    p, active = TaskMap(3, groups=[[2, 0], [1]]).matrix([0, 1, 2])
    assert p.tolist() == [[2 / 3, 0, 2 / 3], [0, 2 / 3, 0]]
    assert active is None


@pytest.mark.parametrize("scale", [None, [1.0, 0.5, 2.0, 1.5, 0.0]])
@pytest.mark.parametrize(
    "groups", [None, [[0, 1, 2, 3, 4]], [[0, 4], [1], [2, 3]], [[4], [3], [2], [1], [0]]]
)
@pytest.mark.parametrize("present", [[0, 1, 2, 3, 4], [0, 4], [1, 2, 3], [3]])
def test_the_mean_stays_the_mean_of_the_scaled_losses_of_the_present_tasks(scale, groups, present):
    p, active = TaskMap(5, scale, groups).matrix(present)
    if scale is None and groups is None:
        assert p is None
        p = torch.eye(len(present), dtype=torch.float64)
    factors = torch.tensor([1.0] * 5 if scale is None else scale).double()
    expected = (factors * LOSSES)[present].mean()
    torch.testing.assert_close((p @ LOSSES[present]).mean(), expected, rtol=1e-12, atol=0)
    partition = groups or [[k] for k in range(5)]
    there = [i for i, group in enumerate(partition) if set(group) & set(present)]
    assert p.shape == (len(there), len(present))
    assert active == (None if len(there) == len(partition) else tuple(there))


def test_a_group_is_there_as_long_as_one_member_is():
    live = TaskMap(4, groups=[[0, 1], [2, 3]])
    p, active = live.matrix([1, 2, 3])
    assert active is None
    assert p.tolist() == [[2 / 3, 0, 0], [0, 2 / 3, 2 / 3]]
    assert live.matrix([2, 3])[1] == (1,)


def test_a_change_acts_on_the_next_matrix():
    live = TaskMap(2)
    live.matrix([0, 1])
    live.scale = [0.5, 1.5]
    assert live.matrix([0, 1])[0].diagonal().tolist() == [0.5, 1.5]
    live.groups = [[0, 1]]
    assert live.matrix([0, 1])[0].tolist() == [[0.25, 0.75]]
    live.scale = live.groups = None
    assert live.matrix([0, 1])[0] is None


@pytest.mark.parametrize("scale", [np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), (1, 2)])
def test_scales_may_come_as_arrays_and_are_kept_plain(scale):
    kept = TaskMap(2, scale).scale
    assert kept == [1.0, 2.0]
    assert all(type(v) is float for v in kept)


@pytest.mark.parametrize(
    "scale", [[1, -1], [0, 0], [1, float("nan")], [1, float("inf")], "11", 1.0, [True, 1], []]
)
def test_a_scale_out_of_its_domain_is_refused(scale):
    with pytest.raises(ValueError, match=r"task_scale=.* is not allowed; it must be a list") as e:
        TaskMap(2, scale)
    assert str(SCALE) in str(e.value)
    live = TaskMap(2, [1, 2])
    with pytest.raises(ValueError, match="task_scale"):
        live.scale = scale
    assert live.scale == [1, 2]


def test_a_scale_of_another_length_is_refused():
    with pytest.raises(ValueError, match="3 entries for 2 tasks; give one a task"):
        TaskMap(2, [1, 1, 1])


@pytest.mark.parametrize(
    "groups", [[[0]], [[0, 1], [1]], [[0], [2]], [[0, 1], []], [[0, 0], [1]], [[-1], [0]], []]
)
def test_groups_must_be_a_partition(groups):
    with pytest.raises(ValueError, match=r"task_groups=.* is no partition of the tasks 0\.\.1"):
        TaskMap(2, groups=groups)


def test_its_state():
    first = TaskMap(3, [1, 2, 3], [[0, 2], [1]])
    second = TaskMap(3)
    second.matrix([0, 1, 2])
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.matrix([0, 1, 2])[0], first.matrix([0, 1, 2])[0])
