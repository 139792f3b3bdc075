"""FAMO: weights and logits against torch's softmax and Adam, and who calls observe."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from mtlsk import MultiTaskRegressor
from mtlsk.aggregators import FAMO
from mtlsk.datasets import make_arm


def told(*losses):
    return torch.tensor(losses, dtype=torch.float64)


def test_without_observe_the_weights_are_those_of_the_mean_log_loss():
    live = FAMO()
    for losses in (told(1.0, 2.0, 4.0), told(3.0, 0.5, 0.1)):
        w = live.task_weights(None, losses)
        torch.testing.assert_close(w, 1 / losses / (1 / losses).sum())
    assert live.logits_.tolist() == [0.0] * 3


@pytest.mark.parametrize(("lr", "gamma"), [(0.025, 0.01), (0.3, 0.0)])
def test_its_logits_take_adam_steps_through_the_softmax(lr, gamma):
    live = FAMO(lr=lr, gamma=gamma)
    xi = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([xi], lr=lr, weight_decay=gamma)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        before = 0.1 + torch.rand(3, generator=generator, dtype=torch.float64)
        after = before * (0.8 + 0.3 * torch.rand(3, generator=generator, dtype=torch.float64))
        z = torch.softmax(xi, 0)
        c = 1 / (z / before).sum()
        w = live.task_weights(None, before)
        torch.testing.assert_close(w, (c * z / before).detach(), rtol=1e-9, atol=0)
        live.observe(after)
        adam.zero_grad()
        (z @ (before.log() - after.log())).backward()  # J_softmax' delta
        adam.step()
        torch.testing.assert_close(live.logits_, xi.detach(), rtol=1e-9, atol=1e-12)
    assert float(xi.detach().abs().max()) > 0.05


def test_a_task_that_fell_more_than_the_others_loses_weight():
    live = FAMO()
    for _ in range(10):
        live.task_weights(None, told(1.0, 1.0, 1.0))
        live.observe(told(0.5, 0.9, 0.99))
    w = live.task_weights(None, told(1.0, 1.0, 1.0))
    assert float(w[0]) < float(w[1]) < float(w[2])


def test_it_makes_the_log_losses_fall_at_one_rate():
    # losses a_k exp(-rate_k * share of the step): the weights settle where all fall alike
    rates, lr = told(1.0, 4.0, 0.5), 0.05
    live, log_losses = FAMO(gamma=0.0), told(1.0, 100.0, 0.01).log()
    for _ in range(3000):
        w = live.task_weights(None, log_losses.exp())
        z = w * log_losses.exp()
        fall = lr * rates * z / z.sum()
        live.observe((log_losses - fall).exp())
        log_losses = log_losses - fall
        if float(log_losses.max()) < -200:
            break
    torch.testing.assert_close(fall, fall.mean().expand(3), rtol=0.1, atol=0)


def test_units_do_not_matter():
    losses, units = told(1.0, 2.0, 3.0), told(1e-9, 1e6, 3.0)
    one, other = FAMO(), FAMO()
    for _ in range(5):
        w, v = one.task_weights(None, losses), other.task_weights(None, units * losses)
        torch.testing.assert_close(units * v / (units * v).sum(), w)
        one.observe(0.5 * losses + 0.1)
        other.observe(units * (0.5 * losses + 0.1))
    torch.testing.assert_close(one.logits_, other.logits_)


def test_it_compares_once_a_call():
    live = FAMO()
    live.observe(told(1.0, 2.0))  # nothing to compare with
    assert live.logits_.tolist() == [0.0, 0.0]
    live.task_weights(None, told(1.0, 2.0))
    live.observe(told(0.5, 2.0))
    logits = live.logits_.clone()
    assert logits[0] < 0 < logits[1]
    live.observe(told(0.1, 2.0))
    assert torch.equal(live.logits_, logits)


def test_a_loss_of_zero_drops_out():
    live = FAMO()
    w = live.task_weights(None, told(1.0, 0.0, 4.0))
    torch.testing.assert_close(w, told(0.8, 0.0, 0.2))
    live.observe(told(0.0, 0.0, 4.0))
    assert live.logits_[0] < live.logits_[1]  # fell by log 1e8, and by nothing
    assert bool(live.logits_.isfinite().all())
    assert FAMO().task_weights(None, told(0.0, 0.0)).tolist() == [0.5, 0.5]
    tiny = FAMO().task_weights(None, told(5e-324, 1e307, 1.0))
    torch.testing.assert_close(tiny, told(1.0, 0.0, 0.0))


def test_a_loss_after_the_step_that_is_not_finite_says_nothing():
    live = FAMO()
    live.task_weights(None, told(1.0, 1.0, 1.0))
    live.observe(told(math.nan, math.inf, 0.5))
    assert live.logits_[:2].tolist() == [0.0, 0.0]
    assert bool(live.logits_.isfinite().all())


def test_a_negative_loss_names_its_task():
    live = FAMO()
    live.active_ = (1, 4)
    with pytest.raises(ValueError, match="the loss of task 4 is -1"):
        live.task_weights(None, told(1.0, -1.0))
    live.task_weights(None, told(1.0, 1.0))
    with pytest.raises(ValueError, match="the loss of task 1 is -3"):
        live.observe(told(-3.0, 1.0))


def test_absent_tasks_keep_theirs_and_a_run_saved_between_call_and_observe_goes_on():
    live = FAMO()
    for _ in range(3):
        live.task_weights(None, told(1.0, 2.0, 3.0))
        live.observe(told(0.5, 1.9, 2.9))
    kept = live.state_dict()
    live.active_ = (0, 2)
    live.task_weights(None, told(1.0, 3.0))
    other = FAMO().load_state_dict(pickle.loads(pickle.dumps(live.state_dict())))
    other.active_ = live.active_
    for aggregator in (live, other):
        aggregator.observe(told(0.9, 1.0))
        aggregator.active_ = None
    for name in ("logits_", "first_moment_", "second_moment_", "n_adam_steps_"):
        assert (getattr(live, name) == kept[name]).tolist() == [False, True, False], name
    losses = told(1.0, 2.0, 3.0)
    assert torch.equal(live.task_weights(None, losses), other.task_weights(None, losses))


def test_in_a_fit_the_logits_move_and_those_of_the_tasks_of_a_batch_only():
    data = make_arm(200)
    X, Y = (frame.to_numpy("float32", copy=True) for frame in (data.data, data.target))
    Y[:, 2] = math.nan
    Y[0, 2] = 1.0  # one label of task 2
    net = MultiTaskRegressor((8,), "FAMO", max_epochs=2, random_state=0, verbose=0).fit(X, Y)
    steps = net.aggregator_.n_adam_steps_
    assert steps[2] == 2  # the batch with the label, in each epoch
    assert float(steps.max()) == 2 * math.ceil(200 / net.batch_size)
    assert bool((net.aggregator_.logits_ != 0).all())


def test_the_second_look_leaves_running_statistics_alone_and_sees_the_same_dropout():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)
            )
            self.head = torch.nn.Linear(4, 2)

        def forward(self, X):
            return self.head(self.layers(X))

    X, y = np.random.default_rng(0).standard_normal((2, 40, 3))
    net = MultiTaskRegressor(
        module=Net, aggregator="FAMO", max_epochs=2, batch_size=10, lr=0.0, random_state=0
    ).fit(X, y[:, :2])
    assert int(net.module_.layers[1].num_batches_tracked) == 8  # once a step
    # nothing moved but the statistics that a batch does not look at: no loss has changed
    assert net.aggregator_.logits_.tolist() == [0.0, 0.0]
    assert "_again" not in vars(net)
