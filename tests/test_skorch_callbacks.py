"""skorch's callbacks do their work on nets whose gradients come from an aggregator."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    Initializer,
    InputShapeSetter,
    LRScheduler,
    ParamMapper,
    ProgressBar,
    Unfreezer,
)
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from mtlsk import Controller, MultiTaskRegressor
from mtlsk.descent import Descent
from mtlsk.estimators import r2_per_task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
Y = np.c_[X[:, 0] - X[:, 1], X[:, 2] ** 2, np.sin(2 * X[:, 3])].astype(np.float32)
SOME = np.where(RNG.random(Y.shape) < 0.3, np.nan, Y).astype(np.float32)
OPTIMIZERS = ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Muon"]


def make(*callbacks, **params):
    small = {"hidden_layer_sizes": (8, 8), "max_epochs": 4, "batch_size": 20, "random_state": 0}
    named = [(f"cb{i}", cb) for i, cb in enumerate(callbacks)]
    return MultiTaskRegressor(**{**small, "aggregator": "MGDA", "callbacks": named, **params})


def weights_of(net):
    return {name: p.detach().clone() for name, p in net.module_.named_parameters()}


# ---- schedules


class Groups(Callback):
    """Writes down the options with which each step was taken."""

    def on_train_begin(self, net, **kwargs):
        self.steps = net.history_options = []

    def on_batch_begin(self, net, training=None, **kwargs):
        if training:
            self.steps.append([dict(group) for group in net.optimizer_.param_groups])


def momentum(group):
    return group["momentum"] if "momentum" in group else group["betas"][0]


def scheduled(policy, optimizer, **options):
    params = {"optimizer__momentum": 0.9} if optimizer in ("SGD", "Muon") else {}
    schedule = LRScheduler(policy, step_every="batch", **options)
    net = make(Groups(), schedule, optimizer=optimizer, lr=0.01, **params)
    return net.fit(X, Y).history_options


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_cycle_turns_rate_and_momentum_of_every_group(optimizer):
    steps = scheduled(OneCycleLR, optimizer, max_lr=0.1, total_steps=12)
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01, momentum=0.9)
    reference = OneCycleLR(dummy, max_lr=0.1, total_steps=12)
    for groups in steps:
        (expected,) = dummy.param_groups
        for group in groups:
            assert group["lr"] == pytest.approx(expected["lr"])
            assert momentum(group) == pytest.approx(expected["momentum"])
        dummy.step()
        reference.step()
    assert len(steps) == 12
    assert len({momentum(groups[0]) for groups in steps}) > 6


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_cyclic_rates_turn_the_momentum_against_them(optimizer):
    steps = scheduled("CyclicLR", optimizer, base_lr=0.01, max_lr=0.05, step_size_up=3)
    for groups in (steps[i] for i in (0, 6)):
        assert [momentum(g) for g in groups] == pytest.approx([0.9] * len(groups))
        assert [g["lr"] for g in groups] == pytest.approx([0.01] * len(groups))
    assert [momentum(g) for g in steps[3]] == pytest.approx([0.8] * len(steps[3]))
    assert [g["lr"] for g in steps[3]] == pytest.approx([0.05] * len(steps[3]))


def test_a_cycled_muon_is_pickled_and_goes_on():
    schedule = LRScheduler(OneCycleLR, step_every="batch", max_lr=0.02, total_steps=100)
    net = make(schedule, optimizer="Muon").fit(X, Y)
    twin = copy.deepcopy(net)
    for one in (net, twin):
        one.set_params(callbacks=[]).partial_fit(X, Y)
    for a, b in zip(net.module_.parameters(), twin.module_.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_muon_whose_state_was_loaded_is_cycled_as_well():
    optimizer = make(optimizer="Muon").fit(X, Y).optimizer_
    optimizer.load_state_dict(optimizer.state_dict())
    schedule = OneCycleLR(optimizer, max_lr=0.1, total_steps=9)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    assert len({momentum(group) for group in optimizer.param_groups}) == 1
    assert momentum(optimizer.param_groups[0]) < 0.95
    with pytest.raises(KeyError):
        optimizer.param_groups[0]["eps"]


def test_step_lr_and_the_plateau():
    net = make(LRScheduler("StepLR", step_size=1, gamma=0.5), lr=0.1).fit(X, Y)
    assert net.history_[:, "event_lr"] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(0.1 / 16)
    options = {"factor": 0.1, "patience": 0, "threshold": 0.05}
    plateau = LRScheduler("ReduceLROnPlateau", monitor="train_loss", **options)
    flat = make(plateau, lr=0.1, max_epochs=9).fit(X, Y)
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = ReduceLROnPlateau(dummy, **options)
    for loss in flat.history_[:, "train_loss"]:
        reference.step(loss)
    rate = flat.optimizer_.param_groups[0]["lr"]
    assert rate == pytest.approx(dummy.param_groups[0]["lr"])
    assert 1e-7 < rate < 0.1


# ---- gradients


@pytest.mark.parametrize("aggregator", ["MGDA", "ConicGrad", "LinearScalarization"])
def test_clipping_acts_on_the_aggregated_gradients(monkeypatch, aggregator):
    seen, backward = [], Descent.backward

    def watched(self, *args):
        record = backward(self, *args)
        seen.append([p.grad.clone() for p in (*self.shared, *self.own)])
        return record

    monkeypatch.setattr(Descent, "backward", watched)
    options = {"optimizer": "SGD", "lr": 0.5, "batch_size": -1, "aggregator": aggregator}
    net = make(GradientNormClipping(0.01), max_epochs=1, **options)
    start = weights_of(copy.deepcopy(net).initialize_for(X, Y))
    moved = weights_of(net.fit(X, Y))
    gradient = torch.cat([g.flatten() for g in seen[0]])
    names = [n for n in start if "trunk" in n] + [n for n in start if "trunk" not in n]
    step = torch.cat([(start[n] - moved[n]).flatten() for n in names])
    assert float(gradient.norm()) > 0.1
    torch.testing.assert_close(step, 0.5 * 0.01 * gradient / gradient.norm(), rtol=1e-3, atol=1e-8)


class Gradients(Callback):
    """Writes down which parameters have a gradient in each step."""

    def on_train_begin(self, net, **kwargs):
        net.with_gradient = []

    def on_grad_computed(self, net, named_parameters, **kwargs):
        found = {n for n, p in named_parameters if p.grad is not None}
        net.with_gradient.append(found)


@pytest.mark.parametrize(
    "params", [{}, {"gramian": "budget"}, {"optimizer": "Muon"}, {"controller": "APT"}], ids=str
)
@pytest.mark.parametrize("aggregator", ["MGDA", "ConicGrad", "LinearScalarization"])
def test_frozen_parameters_stay_and_take_part_again_when_they_are_thawed(aggregator, params):
    first = "trunk.0.*"
    callbacks = Freezer(first, at=2), Unfreezer(first, at=4), Gradients()
    params = {"aggregator": aggregator, **params}
    fits = {n: make(*callbacks, max_epochs=n, **params).fit(X, SOME) for n in (1, 3, 5)}
    states = {n: weights_of(net) for n, net in fits.items()}
    for name in states[1]:
        frozen = name.startswith("trunk.0")
        assert torch.equal(states[1][name], states[3][name]) == frozen, name
        assert not torch.equal(states[3][name], states[5][name]), name
    told = fits[5].with_gradient
    steps = len(told) // 5
    everything = set(states[1])
    rest = {n for n in everything if not n.startswith("trunk.0")}
    assert all(found == everything for found in told[:steps] + told[3 * steps :])
    assert all(found == rest for found in told[steps : 3 * steps])


class Slower(Controller):
    """Sets a rate of its own."""

    def adjust(self, record, gradients):
        return {"lr": 0.0625}


class Swap(Callback):
    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            net.set_params(optimizer="SGD", lr=0.5)


def test_an_optimizer_that_a_callback_replaces_is_the_one_that_is_driven():
    net = make(Swap(), controller=Slower(), max_epochs=3).fit(X, Y)
    assert type(net.optimizer_) is torch.optim.SGD
    assert net.optimizer_.param_groups[0]["lr"] == 0.0625


def test_a_net_frozen_from_the_start_is_the_one_without_these_parameters():
    net = make(Freezer("trunk.*"), aggregator="LinearScalarization").fit(X, Y)
    start = weights_of(make(aggregator="LinearScalarization").initialize_for(X, Y))
    for name, value in weights_of(net).items():
        assert torch.equal(value, start[name]) == name.startswith("trunk"), name


def test_param_mapper_and_initializer():
    fill = Initializer("head.bias", fn=lambda p: nn.init.constant_(p, 3.0))
    net = make(fill, max_epochs=1, optimizer="SGD", lr=0.0).fit(X, Y)
    assert net.module_.head.bias.tolist() == [3.0] * 3
    halve = ParamMapper("head.weight", fn=lambda p: p.data.mul_(0.5), at=2)
    before = weights_of(make(optimizer="SGD", lr=0.0).initialize_for(X, Y))["head.weight"]
    net = make(halve, optimizer="SGD", lr=0.0).fit(X, Y)
    torch.testing.assert_close(net.module_.head.weight.detach(), before / 2)


# ---- scores, shapes, tables


def test_epoch_scoring_by_name_and_by_function():
    by_name = EpochScoring("r2", lower_is_better=False, name="valid_r2")
    worst = EpochScoring(
        lambda net, X, y: float(r2_per_task(y, net.predict(X)).min()),
        lower_is_better=False,
        name="worst",
    )
    split = ValidSplit(5)
    net = make(by_name, worst, train_split=split).fit(X, Y)
    held = split(net.get_dataset(X, Y), Y)[1]
    rows = np.array(held.indices)
    scores = r2_per_task(Y[rows], net.predict(X[rows]))
    assert net.history_[-1, "valid_r2"] == pytest.approx(scores.mean(), rel=1e-5)
    assert net.history_[-1, "worst"] == pytest.approx(scores.min(), rel=1e-5)
    assert net.history_[0, "valid_r2_best"] is True


def test_batch_scoring_averages_over_the_batches():
    """Labels of a callback's batch are those of the batch; the score of each is kept."""

    def error(net, X, y):
        return float(((net.predict(X) - np.asarray(y)) ** 2).mean())

    scoring = BatchScoring(error, on_train=True, name="error", use_caching=False)
    net = make(scoring, optimizer="SGD", lr=0.0).fit(X, Y)
    expected = ((net.predict(X) - Y) ** 2).mean()
    assert net.history_[:, "error"] == pytest.approx([expected] * 4, rel=1e-5)
    assert len(net.history_[0, "batches", :, "error"]) == 3


def test_checkpoint_loads_the_best_epoch(tmp_path):
    save = Checkpoint(dirname=str(tmp_path), monitor="train_loss_best", load_best=True)
    net = make(save, lr=0.3, max_epochs=8).fit(X, Y)
    assert net.history_[-1, "train_loss"] == min(net.history_[:, "train_loss"])
    assert (tmp_path / "params.pt").exists()
    fresh = make(max_epochs=8, lr=0.3).initialize_for(X, Y)
    fresh.load_params(checkpoint=save)
    assert np.array_equal(fresh.predict(X), net.predict(X))


class Sized(nn.Module):
    def __init__(self, input_dim=1):
        super().__init__()
        self.layer = nn.Linear(input_dim, 3)

    def forward(self, x):
        return self.layer(x)


def test_the_shape_of_the_input_is_set_on_a_module_of_one_s_own():
    params = {"module": Sized, "hidden_layer_sizes": (64, 64), "max_epochs": 2}
    net = make(InputShapeSetter(), Gradients(), **params).fit(X, Y)
    assert net.module_.layer.in_features == 5
    assert net.with_gradient == [{"layer.weight", "layer.bias"}] * 6
    start = make(**{**params, "module__input_dim": 5}).fit(X, Y)
    np.testing.assert_array_equal(net.predict(X), start.predict(X))
    net.fit(X[:, :2], Y)
    assert net.module_.layer.in_features == 2


def test_progress_bar_and_table_without_a_terminal(capsys):
    net = make(ProgressBar(), verbose=1, train_split=ValidSplit(5))
    net.fit(X, Y)
    out, err = capsys.readouterr()
    assert "%" in err
    header, _, *rows = [line for line in out.splitlines() if line.strip()]
    assert header.split()[:6] == ["epoch", "train_loss", "valid_loss", "y0", "y1", "y2"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    shown = [float(cell) for cell in rows[-1].split()[3:6]]
    assert shown == pytest.approx(net.history_[-1, "valid_losses"], abs=5e-5)


# ---- LBFGS


@pytest.mark.parametrize("aggregator", ["LinearScalarization", "MGDA"])
def test_lbfgs_says_once_that_its_steps_are_several(aggregator):
    params = {"optimizer": "LBFGS", "batch_size": -1, "lr": 0.05, "aggregator": aggregator}
    with pytest.warns(UserWarning, match="LBFGS evaluates a batch several times a step") as seen:
        net = make(**params).fit(X, Y)
    assert len(seen) == 1
    losses = net.history_[:, "train_loss"]
    assert aggregator == "MGDA" or losses[-1] < 0.5 * losses[0]
