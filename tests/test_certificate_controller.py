"""CertificateController: each action clears its own trigger, and is taken back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mtlsk import MultiTaskRegressor
from mtlsk.aggregators import MGDA
from mtlsk.controllers import CertificateController, Live
from mtlsk.gramian import condition_number, cosines
from mtlsk.record import StepRecord
from mtlsk.taskmap import TaskMap


class Training:
    """The live objects of a training whose Gramians and losses the test makes up."""

    def __init__(self, controller, n_tasks=3, lr=0.8, scale=None, groups=1):
        params = [{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(groups)]
        self.optimizer = torch.optim.SGD(params, lr=lr)
        self.task_map = TaskMap(n_tasks, scale)
        self.controller = controller
        names = tuple("abcdefgh"[:n_tasks])
        controller.bind(Live(self.optimizer, MGDA(), self.task_map, names))
        self.steps = 0

    @property
    def lr(self):
        return self.optimizer.param_groups[0]["lr"]

    def step(self, gramian, losses, present=None):
        """Take one step and apply what the controller changes; return the changes."""
        k = self.task_map.n_tasks
        tasks = tuple(range(k)) if present is None else tuple(present)
        full = torch.full((k,), math.nan, dtype=torch.float64)
        full[list(tasks)] = torch.as_tensor(losses, dtype=torch.float64)
        g = torch.as_tensor(gramian, dtype=torch.float64)
        record = StepRecord(self.steps, full, g, g, torch.ones(k), (), tasks)
        changes = self.controller.adjust(record, None)
        for name, change in changes.items():
            if name == "lr":
                self.optimizer.param_groups[0]["lr"] = change.value
            elif name.startswith("optimizer__param_groups__"):
                self.optimizer.param_groups[int(name.split("__")[2])]["lr"] = change.value
            elif name == "task_scale":
                self.task_map.scale = change.value
            else:
                assert name == "task_groups"
                self.task_map.groups = change.value
        self.steps += 1
        return changes

    def kappa(self, gramian):
        """Return kappa of what an aggregator sees of it."""
        p, _ = self.task_map.matrix(range(self.task_map.n_tasks))
        g = torch.as_tensor(gramian, dtype=torch.float64)
        return condition_number(g if p is None else p @ g @ p.T)


def watcher(**options):
    return CertificateController(**{"window": 3, "period": 1, "smoothing": 1.0, **options})


def gram(cos, norms=(1.0, 1.0, 1.0)):
    """Return the Gramian of three tasks with the cosines of (0,1), (0,2), (1,2)."""
    c = torch.eye(3).double()
    for value, (i, j) in zip(cos, [(0, 1), (0, 2), (1, 2)], strict=True):
        c[i, j] = c[j, i] = value
    n = torch.tensor(norms).double()
    return c * n[:, None] * n


ALIKE = gram([0.95, 0.1, 0.1])
UNEQUAL = gram([0.1, 0.0, 0.0], (1.0, 1.0, 10.0))
FINE = gram([0.1, 0.0, 0.2])


def test_a_rising_h_halves_the_learning_rate_at_most_so_often_and_it_comes_back():
    t = Training(watcher(repeats=2))
    bad = gram([0.1, 0.0, 0.0], (1.0, 1.0, 3.5))  # kappa 13.6, of its cosines 1.2
    lrs = []
    for step in range(6):
        t.step(bad, [1.0 + step] * 3)
        lrs.append(t.lr)
    assert lrs == [0.8, 0.8, 0.4, 0.4, 0.4, 0.2]  # three looks make a trend
    assert t.controller.halvings_ == 2
    for step in range(3):
        t.step(bad, [10.0 + step] * 3)
    assert t.lr == 0.2  # the next cause is unequal norms
    assert t.kappa(bad) < 1.3
    back = []
    for step in range(12):  # recovery: one thing at a time, each after three quiet looks
        back += [(step, c.reason) for c in t.step(FINE, [5.0 - 0.1 * step] * 3).values()]
    assert t.lr == 0.8
    assert t.task_map.scale is None
    why = "kappa <= 10 in 3 looks"
    again = f"{why}: learning rate doubled again"
    assert back == [(2, f"{why}: balance taken back"), (5, again), (8, again)]


def test_a_trend_is_that_of_the_last_window():
    t = Training(watcher())
    for loss in (9.0, 8.0, 7.0, 6.0, 5.0, 5.1):
        assert not t.step(UNEQUAL, [loss] * 3)
    assert list(t.step(UNEQUAL, [5.2] * 3)) == ["lr"]


def test_a_scheduler_between_is_kept():
    t = Training(watcher())
    for step in range(3):
        t.step(UNEQUAL, [1.0 + step] * 3)
    assert t.lr == 0.4
    t.optimizer.param_groups[0]["lr"] = 0.04
    for step in range(3):
        t.step(FINE, [1.0 - 0.1 * step] * 3)
    assert t.lr == 0.08


def test_every_group_of_the_optimizer_keeps_its_own_rate():
    t = Training(watcher(), groups=2)
    t.optimizer.param_groups[1]["lr"] = 0.2
    for step in range(3):
        t.step(UNEQUAL, [1.0 + step] * 3)
    assert [g["lr"] for g in t.optimizer.param_groups] == [0.4, 0.1]


def test_unequal_norms_are_balanced_and_that_clears_the_trigger():
    t = Training(watcher(), scale=[2.0, 1.0, 1.0])
    for step in range(3):
        worse = UNEQUAL * (1.0 + step * torch.tensor([[0, 0, 1.0], [0, 0, 1], [1, 1, 1]]).double())
        changes = t.step(worse, [1.0] * 3)
    reason = changes["task_scale"].reason
    assert reason.startswith("kappa ")
    assert reason.endswith("> 10: gradients balanced")
    inverse = 1 / worse.diagonal().sqrt()
    scale = (inverse / inverse.mean()).clamp(0.05, 5.0) * torch.tensor([2.0, 1.0, 1.0])
    assert t.task_map.scale == pytest.approx(scale.tolist())
    for step in range(3):
        assert not t.step(worse, [1.0 - 0.1 * step] * 3)
    for step in range(3):
        changes = t.step(FINE, [0.5 - 0.1 * step] * 3) or changes
    assert t.task_map.scale == [2.0, 1.0, 1.0]  # the user's own


def test_tasks_that_agree_too_well_are_merged_and_split_again():
    t = Training(watcher())
    for step in range(3):
        changes = t.step(gram([0.9 + 0.03 * step, 0.1, 0.1]), [1.0] * 3)
    assert t.task_map.groups == [[0, 1], [2]]
    assert "a and b (|cos| 0.96) merged" in changes["task_groups"].reason
    assert t.kappa(gram([0.96, 0.1, 0.1])) < 10  # the action clears its trigger
    for step in range(8):  # as long as they would be too much alike they stay merged
        assert not t.step(ALIKE, [1.0 - 0.1 * step] * 3)
    for step in range(3):
        changes = t.step(FINE, [0.1 - 0.01 * step] * 3) or changes
    assert t.task_map.groups is None
    assert "last merge taken back" in changes["task_groups"].reason


def test_the_trend_of_kappa_is_that_of_its_logarithm():
    t = Training(watcher(window=4))
    for kappa in (20.0, 1000.0, 100.0):
        assert not t.step(torch.tensor([1.0, 1.0, kappa]).diag(), [1.0] * 3)
    assert t.step(torch.tensor([1.0, 1.0, 50.0]).diag(), [1.0] * 3)  # kappa itself falls


def test_a_merge_is_taken_back_by_the_cosines_whatever_the_norms():
    t = Training(watcher())
    for step in range(3):
        t.step(gram([0.9 + 0.03 * step, 0.1, 0.1]), [1.0] * 3)
    assert t.task_map.groups == [[0, 1], [2]]
    unequal = gram([0.1, 0.0, 0.2], (3.0, 0.1, 3.0))
    assert condition_number(unequal) > 10
    for step in range(3):
        t.step(unequal, [1.0 - 0.1 * step] * 3)
    assert t.task_map.groups is None


def test_the_largest_cosine_is_merged_of_either_sign_and_of_those_with_a_gradient():
    t = Training(watcher())
    for step in range(3):
        t.step(gram([-0.9 - 0.03 * step, 0.1, 0.1]), [1.0] * 3)
    assert t.task_map.groups == [[0, 1], [2]]
    t = Training(watcher())
    for step in range(3):
        g = gram([0.0, 0.0, 0.9 + 0.03 * step], (0.0, 1.0, 1.0))
        changes = t.step(g, [1.0] * 3)
    assert t.task_map.groups == [[0], [1, 2]]
    assert "b and c (|cos| 0.96) merged" in changes["task_groups"].reason


def test_scales_stay_within_bounds():
    t = Training(watcher(), n_tasks=8)
    for step in range(3):
        squares = torch.tensor([1e-6 / (1 + step)] + 7 * [1.0])
        t.step(squares.diag(), [1.0] * 8)
    assert t.task_map.scale == pytest.approx([5.0] + 7 * [0.05])


def test_large_and_steady_is_left_alone():
    t = Training(watcher())
    assert not any(t.step(UNEQUAL, [1.0] * 3) for _ in range(20))
    assert not any(t.step(UNEQUAL, [1.0 - 0.01 * i] * 3) for i in range(20))


@pytest.mark.parametrize("loss", [1.0, 0.0])
def test_a_task_without_a_gradient_is_left_out_of_kappa(loss):
    t = Training(watcher())
    g = FINE.clone()
    g[2, :] = g[:, 2] = 0
    for _ in range(10):
        assert not t.step(g, [1.0, 1.0, loss])
    assert max(t.controller.kappas_) < 1.3
    assert not any(t.step(FINE, [1.0, 1.0, loss]) for _ in range(5))  # and may come back


def test_averages_are_by_task_and_pair():
    t = Training(watcher(smoothing=0.25, period=1000))
    t.step(FINE, [1.0, 2.0, 3.0])
    t.step(4 * gram([0.5, 0.0, 0.0])[:2, :2], [3.0, 4.0], present=(0, 1))
    c = t.controller
    assert c.losses_.tolist() == pytest.approx([1.5, 2.5, 3.0])
    assert c.squares_.tolist() == pytest.approx([1.75, 1.75, 1.0])
    assert c.cosines_[0, 1] == pytest.approx(0.75 * 0.1 + 0.25 * 0.5)
    assert c.cosines_[1, 2] == pytest.approx(0.2)


def test_pairs_never_seen_together_say_nothing():
    t = Training(watcher(kappa_max=1.0))
    for i in range(12):
        pair = [(0, 1), (1, 2)][i % 2]
        assert not t.step([[1.0, 0.99], [0.99, 1.0]], [1.0 + i] * 2, present=pair)
    assert len(t.controller.kappas_) == 1  # the first: the third task had not been seen


def test_cosines_of_different_times_that_are_no_gramian_say_nothing():
    t = Training(watcher(kappa_max=1.0))
    for i in range(12):
        pair, cos = [((0, 1), 0.99), ((1, 2), 0.99), ((0, 2), -0.99)][i % 3]
        assert not t.step([[1.0, cos], [cos, 1.0]], [1.0 + i] * 2, present=pair)
    assert len(t.controller.kappas_) == 1


def test_the_period_counts_steps_between_looks():
    t = Training(watcher(period=4))
    for step in range(12):
        t.step(UNEQUAL, [1.0 + step] * 3)
        if step < 11:
            assert len(t.controller.kappas_) == (step + 1) // 4
    assert t.lr == 0.4


# the second form


def test_groups_follow_the_cosines():
    t = Training(watcher(form="groups", patience=3, cooldown=5), n_tasks=3)
    when = []
    for step in range(20):
        changes = t.step(ALIKE if step < 10 else FINE, [1.0] * 3)
        when += [(step, t.task_map.groups, c.reason) for c in changes.values()]
    assert [w[:2] for w in when] == [(2, [[0, 1], [2]]), (12, None)]
    assert when[0][2] == "|cos| >= 0.5 within a+b, c, 3 steps in a row"


def test_cooldown_holds_a_change_back():
    t = Training(watcher(form="groups", patience=1, cooldown=50))
    changed = [bool(t.step(ALIKE if s < 10 else FINE, [1.0] * 3)) for s in range(60)]
    assert [i for i, c in enumerate(changed) if c] == [0, 50]


def test_average_linkage_by_hand():
    """b is near a and c, but a and c are far apart: the mean distance decides."""
    t = Training(watcher(form="groups", patience=1, threshold=0.5))
    t.step(gram([0.9, 0.0, 0.7]), [1.0] * 3)  # a+b to c: mean |cos| .35
    assert t.task_map.groups == [[0, 1], [2]]
    t = Training(watcher(form="groups", patience=1, threshold=0.5))
    t.step(gram([-0.9, 0.4, 0.7]), [1.0] * 3)  # .55
    assert t.task_map.groups == [[0, 1, 2]]
    g = gram([0.9, 0.4, 0.7])
    g[1, :] = g[:, 1] = 0
    t = Training(watcher(form="groups", patience=1, threshold=0.5))
    t.step(g, [1.0] * 3)
    assert t.task_map.groups is None


def test_a_task_that_loses_its_gradient_leaves_its_group():
    t = Training(watcher(form="groups", patience=1, cooldown=0))
    t.step(ALIKE, [1.0] * 3)
    assert t.task_map.groups == [[0, 1], [2]]
    t.step(gram([0.95, 0.1, 0.1], (1.0, 0.0, 1.0)), [1.0] * 3)
    assert t.task_map.groups is None


def test_the_order_of_groups_and_of_tasks_in_them_does_not_matter():
    t = Training(watcher(form="groups", patience=1))
    t.task_map.groups = [[2], [1, 0]]
    assert not t.step(ALIKE, [1.0] * 3)


def test_in_a_real_training_everything_is_in_the_history():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4))
    y = np.tanh(X @ rng.standard_normal((4, 1))) * [1.0, 1.0, 20.0]
    y[:, 1] += 0.02 * rng.standard_normal(200)
    controller = CertificateController(window=2, period=3, kappa_max=1.5, repeats=1)
    net = MultiTaskRegressor((8,), "MGDA", controller, max_epochs=20, batch_size=20, random_state=0)
    net.fit(X, y)
    entries = [e for row in net.history_[:, "changes"] for e in row]
    assert {e["name"] for e in entries} >= {"task_scale", "task_groups"}
    assert all("kappa" in e["reason"] for e in entries)
    live = net.task_map_.groups
    last = [e["value"] for e in entries if e["name"] == "task_groups"][-1]
    assert live == last
    assert cosines(net.task_gramian(X, y)[0]).shape == (3, 3)


def test_an_aggregator_with_one_number_a_task_is_refused():
    for spec in ({"name": "LinearScalarization", "weights": [1, 1, 2]},
                 {"name": "Tchebycheff", "reference": [0.0, 0.1, 0.2]}):  # fmt: skip
        net = MultiTaskRegressor((4,), spec, "CertificateController")
        with pytest.raises(ValueError, match=r"merges tasks, and .* one number a task; give one"):
            net.fit(np.ones((8, 2)), np.ones((8, 3)))


def test_a_scale_that_the_user_sets_on_the_way_is_the_new_base():
    t = Training(watcher(repeats=1))
    worse = [UNEQUAL * (1 + s * torch.tensor([[0, 0, 1.0], [0, 0, 1], [1, 1, 1]]).double())
             for s in range(3)]  # fmt: skip
    for g in worse:
        t.step(g, [1.0] * 3)
    assert t.controller.rebalanced_ == 1
    t.task_map.scale = [1.0, 2.0, 1.0]
    t.step(FINE, [1.0] * 3)
    assert t.controller.rebalanced_ == 0
    for g in worse * 2:
        t.step(g, [1.0] * 3)
    assert t.task_map.scale != [1.0, 2.0, 1.0]
    for step in range(8):
        t.step(FINE, [0.5 - 0.01 * step] * 3)
    assert t.task_map.scale == [1.0, 2.0, 1.0]
