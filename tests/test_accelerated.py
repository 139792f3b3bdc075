"""Nets under accelerate and in mixed precision: the aggregator acts, or it is said why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from skorch.callbacks import LRScheduler
from skorch.dataset import ValidSplit
from skorch.hf import AccelerateMixin
from torch import nn
from torch.utils.data import DataLoader

from mtlsk import Descent, MultiTaskClassifier, MultiTaskRegressor
from mtlsk.aggregators import ConicGrad
from mtlsk.estimators.accelerated import check_accelerator

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
Y = np.c_[X[:, 0] - X[:, 1], 3 * X[:, 0] ** 2, -X[:, 1], 0.1 * X[:, 2]].astype(np.float32)
SOME = np.where(RNG.random(Y.shape) < 0.3, np.nan, Y).astype(np.float32)


class AccNet(AccelerateMixin, MultiTaskRegressor):
    pass


@pytest.fixture
def accelerator():
    """Makes accelerators; accelerate keeps one state a process."""

    def make(**options):
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
        return Accelerator(cpu=True, **options)

    yield make
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def options(**params):
    small = {"hidden_layer_sizes": (8,), "aggregator": "MGDA", "max_epochs": 3, "batch_size": 16}
    return {**small, "random_state": 0, **params}


def same(a, b):
    for p, q in zip(a.module_.parameters(), b.module_.parameters(), strict=True):
        assert torch.equal(p, q)
    for key in ("train_losses", "task_weights"):
        assert a.history_[:, key] == b.history_[:, key]


class Looks(nn.Linear):
    dtypes: list

    def forward(self, x):
        output = super().forward(x)
        self.dtypes.append(output.dtype)
        return output


LOOKS = options(module=Looks, module__in_features=6, module__out_features=4)
LOOKS["hidden_layer_sizes"] = (64, 64)


# ---- accelerate


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"aggregator": "ConicGrad", "controller": "APT", "optimizer": "Muon"},
        {"aggregator": "FAMO"},
        {"aggregator": "ConicGrad", "gramian": "online"},
        {"gramian": "budget"},
        {"aggregator": "LinearScalarization"},
        {"train_split": ValidSplit(5)},
        {"callbacks": [LRScheduler("StepLR", step_size=1, gamma=0.5)]},
        {"iterator_train": DataLoader, "iterator_train__shuffle": False},
        {"optimizer": "Muon", "optimizer__direction_preservation": 0.1},
    ],
    ids=lambda params: "-".join(params) or "as it is",
)
@pytest.mark.parametrize("y", [Y, SOME], ids=["all", "some"])
def test_in_full_precision_it_is_the_same_net_to_the_bit(accelerator, params, y):
    plain = MultiTaskRegressor(**options(**params)).fit(X, y)
    net = AccNet(accelerator=accelerator(), **options(**params)).fit(X, y)
    same(plain, net)
    np.testing.assert_array_equal(plain.predict(X), net.predict(X))
    assert ("cosines" in net.history_[0]) == ("cosines" in plain.history_[0])


def test_mixed_precision_is_used_and_so_are_the_aggregator_s_weights(accelerator, monkeypatch):
    seen, backward = [], Descent.backward

    def watched(self, losses, *args):
        record = backward(self, losses, *args)
        if not torch.is_autocast_enabled("cpu"):
            seen.append((self, record, losses.dtype))
        return record

    monkeypatch.setattr(Descent, "backward", watched)
    Looks.dtypes = dtypes = []
    net = AccNet(accelerator=accelerator(mixed_precision="bf16"), **LOOKS).fit(X, Y)
    assert set(dtypes) == {torch.bfloat16}
    for descent, record, dtype in seen:
        assert dtype == torch.float32
        # the weights are MGDA's for the Gramian recorded
        w, G = record.weights, record.gramian
        assert float(w @ G @ w) <= float(G.mean()) + 1e-12
        assert (G @ w).min() >= float(w @ G @ w) * (1 - 1e-6)
        assert descent.aggregator is net.aggregator_
    last = seen[-1][1]
    size = sum(float(d.double().square().sum()) for d in last.direction)
    assert size == pytest.approx(float(last.weights @ last.gramian @ last.weights), rel=1e-4)
    assert net.predict(X).dtype == np.float64
    assert dtypes[-1] == torch.float32  # skorch takes accelerate's wrapper off after training


@pytest.mark.parametrize("aggregator", ["MGDA", "ConicGrad", "FAMO", "LinearScalarization"])
@pytest.mark.parametrize("gramian", ["auto", "budget", "online"])
def test_bfloat16_trains_about_as_float32_does(accelerator, aggregator, gramian):
    if gramian == "online" and aggregator not in ("MGDA", "ConicGrad"):
        pytest.skip("has no online dual")
    params = options(aggregator=aggregator, gramian=gramian, max_epochs=8)
    plain = MultiTaskRegressor(**params).fit(X, SOME).history_[-1, "train_losses"]
    mixed = accelerator(mixed_precision="bf16")
    half = AccNet(accelerator=mixed, **params).fit(X, SOME).history_[-1, "train_losses"]
    assert half != plain
    np.testing.assert_allclose(half, plain, rtol=0.05)


def test_the_precision_of_what_comes_after_training(accelerator):
    Looks.dtypes = dtypes = []
    net = AccNet(accelerator=accelerator(mixed_precision="bf16"), **LOOKS).fit(X, Y)
    dtypes.clear()
    net.partial_fit(X, Y)
    assert set(dtypes) == {torch.bfloat16}
    dtypes.clear()
    net.predict(X)
    assert set(dtypes) == {torch.float32}
    net.set_params(unwrap_after_train=False)
    net.fit(X, Y).fit(X, Y).predict(X)
    assert dtypes[-1] == torch.bfloat16


def test_engines_compare_no_passes_in_mixed_precision(accelerator, monkeypatch):
    """The difference of two losses in bfloat16 is rounding; a double backward pass is not."""

    def refused(*_):
        raise AssertionError

    monkeypatch.setattr("mtlsk.engines.online.progress_by_difference", refused)
    Looks.dtypes = []
    AccNet(accelerator=accelerator(mixed_precision="bf16"), gramian="online", **LOOKS).fit(X, Y)


def test_classifiers_are_adopted_too(accelerator):
    class AccClassifier(AccelerateMixin, MultiTaskClassifier):
        pass

    y = (Y[:, :3] > 0.5).astype(int)
    plain = MultiTaskClassifier(**options()).fit(X, y)
    same(plain, AccClassifier(accelerator=accelerator(), **options()).fit(X, y))


def test_a_step_of_one_s_own_stays_and_a_bypass_is_said(accelerator):
    class Below(MultiTaskRegressor):
        def train_step_single(self, batch, **fit_params):
            self.stepped_ = True
            return super().train_step_single(batch, **fit_params)

    class AccBelow(AccelerateMixin, Below):
        pass

    class Sub(AccBelow):
        pass

    net = Sub(accelerator=accelerator(), **options()).fit(X, Y)
    assert net.stepped_
    same(net, MultiTaskRegressor(**options()).fit(X, Y))

    class Bypass(AccelerateMixin, MultiTaskRegressor):
        def train_step_single(self, batch, **fit_params):
            return super().train_step_single(batch, **fit_params)  # the mixin's

    with pytest.raises(TypeError, match="Bypass trained without its aggregator"):
        Bypass(accelerator=accelerator(), **options()).fit(X, Y)


def test_the_mixin_comes_first():
    with pytest.raises(TypeError, match=r"class Late\(AccelerateMixin, \.\.\.\)"):

        class Late(MultiTaskRegressor, AccelerateMixin):
            pass


def test_what_an_aggregator_cannot_serve_is_refused(accelerator):
    net = AccNet(accelerator=accelerator(gradient_accumulation_steps=4), **options())
    with pytest.raises(ValueError, match="gradient_accumulation_steps=4 is not allowed"):
        net.fit(X, Y)
    several = type("Several", (), {"num_processes": 2})()
    with pytest.raises(ValueError, match="accelerate runs 2 processes"):
        check_accelerator(several)
    scaling = {"num_processes": 1, "gradient_accumulation_steps": 1, "mixed_precision": "fp16"}
    with pytest.raises(ValueError, match=r"mixed_precision='fp16' scales .* use .*'bf16'"):
        check_accelerator(type("Scaling", (), {**scaling, "scaler": object()})())


# ---- torch.autocast


@pytest.mark.parametrize("aggregator", ["MGDA", "ConicGrad", "FAMO", "LinearScalarization"])
@pytest.mark.parametrize("gramian", ["auto", "budget", "online", "features"])
def test_autocast_around_a_fit(aggregator, gramian):
    """The parameters of each step are used, not those autocast has kept since the first."""
    if gramian == "online" and aggregator not in ("MGDA", "ConicGrad"):
        pytest.skip("has no online dual")
    params = options(aggregator=aggregator, gramian=gramian, max_epochs=8)
    params["train_split"] = ValidSplit(5)
    plain = MultiTaskRegressor(**params).fit(X, SOME)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = MultiTaskRegressor(**params).fit(X, SOME)
    for key in ("train_losses", "valid_losses"):
        assert half.history_[-1, key] != plain.history_[-1, key]
        np.testing.assert_allclose(half.history_[-1, key], plain.history_[-1, key], rtol=0.05)
    assert all(p.dtype == torch.float32 for p in half.module_.parameters())


def test_lbfgs_under_autocast_sees_its_own_steps():
    params = options(optimizer="LBFGS", aggregator="LinearScalarization", batch_size=-1, lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.warns(UserWarning, match="LBFGS"):
        losses = MultiTaskRegressor(**params).fit(X, Y).history_[:, "train_loss"]
    assert losses[-1] < 0.1 * losses[0]


def test_float16_is_refused_before_anything_is_trained():
    net = MultiTaskRegressor(**options())
    with (
        torch.autocast("cpu", dtype=torch.float16),
        pytest.raises(ValueError, match="float16 small task gradients become zero"),
    ):
        net.fit(X, Y)


@pytest.mark.parametrize("how", ["autocast", "losses in bfloat16"])
def test_a_step_of_descent_is_as_exact_as_its_task_gradients(how):
    """G and J^T w of the task gradients at hand, which are rounded, to six digits."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 50), nn.Tanh(), nn.Linear(50, 4))
    descent = Descent(module, torch.optim.SGD(module.parameters()), ConicGrad(), n_tasks=4)
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        losses = ((module(x) - y) ** 2).mean(0)
        if how != "autocast":
            losses = losses.bfloat16()
        J = torch.stack(
            [
                torch.cat(
                    [
                        g.flatten().double()
                        for g in torch.autograd.grad(loss, module.parameters(), retain_graph=True)
                    ]
                )
                for loss in losses
            ]
        )
        record = descent.backward(losses)
    torch.testing.assert_close(record.gramian, J @ J.T, rtol=1e-6, atol=1e-9)
    d = torch.cat([p.grad.flatten() for p in module.parameters()])
    torch.testing.assert_close(d.double(), J.T @ record.weights, rtol=1e-5, atol=1e-6)
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


def test_losses_of_outputs_in_bfloat16_are_summed_in_float32():
    class Half(nn.Linear):
        def forward(self, x):
            return super().forward(x).bfloat16()

    y = (Y[:, 0] > 0).astype(int) + (Y[:, 1] > 1)
    small = options(module=Half, module__in_features=6, module__out_features=3, batch_size=-1)
    net = MultiTaskClassifier(**{**small, "hidden_layer_sizes": (64, 64)})
    net.set_params(optimizer="SGD", lr=0.0, max_epochs=1).fit(X, y)
    logits = net.module_(torch.from_numpy(X)).detach().float()
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y).long())
    assert net.history_[0, "train_loss"] == pytest.approx(float(expected), rel=1e-6)
