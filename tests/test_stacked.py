"""StackedNets: outputs and gradients against the module that each member is."""

import copy

import pytest
import torch
from torch import nn

from mtlsk.estimators import stacked
from mtlsk.estimators.stacked import ACTIVATION_STEPS, StackedNets, is_stackable
from mtlsk.modules import ACTIVATIONS, HardSharing

P, B, D, K = 5, 7, 4, 3
SHAPES = {
    "linear": {"hidden_layer_sizes": ()},
    "linear, skip, no bias": {"hidden_layer_sizes": (), "skip": True, "bias": False},
    "one feature wide": {"hidden_layer_sizes": (1,)},
    "three layers": {"hidden_layer_sizes": (6, 5, 8)},
    "no bias": {"hidden_layer_sizes": (6, 5), "bias": False},
    "skip": {"hidden_layer_sizes": (6,), "skip": True},
    **{name: {"hidden_layer_sizes": (6, 5), "activation": name} for name in ACTIVATIONS},
}


def members(**options):
    """Return a stack of P nets with different parameters, and each as a module."""
    torch.manual_seed(0)
    module = HardSharing(D, K, **options).double()
    nets = StackedNets(module, P)
    for name, value in nets.member(nets.flat, P - 1).items():  # all start as the module
        assert torch.equal(value, dict(module.named_parameters())[name])
    nets.flat.add_(torch.randn_like(nets.flat))
    apart = []
    for p in range(P):
        one = copy.deepcopy(module)
        one.load_state_dict(nets.member(nets.flat, p))
        apart.append(one)
    return nets, apart


@pytest.mark.parametrize("budget", [1 << 21, 1], ids=["one pass", "a pass a member"])
@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_outputs_and_gradients_are_those_of_each_module(options, budget, monkeypatch):
    monkeypatch.setattr(stacked, "BUDGET", budget)
    nets, apart = members(**options)
    assert len(nets.passes(B)) == (1 if budget > 1 else P)
    X, target = torch.randn(B, D).double(), torch.randn(B, K).double()
    weights = torch.rand(P, K).double()
    seen = torch.zeros(P, B, K).double()

    def loss(outputs, which):
        seen[which] = outputs.detach()
        return (((outputs - target) ** 2).mean(1) * weights[which]).sum()

    nets.accumulate(X, loss)
    for p, module in enumerate(apart):
        out = module(X)
        torch.testing.assert_close(seen[p], out.detach())
        (((out - target) ** 2).mean(0) * weights[p]).sum().backward()
        gradients = nets.member(nets.flat.grad, p)
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad)


def test_every_activation_of_the_module_has_its_step():
    assert set(ACTIVATION_STEPS) == set(ACTIVATIONS.values())


def test_what_is_stackable():
    assert is_stackable(HardSharing(D, K))
    assert is_stackable(HardSharing(D, K, ()))
    assert not is_stackable(HardSharing(16, K, trunk="conv", input_shape=(1, 4, 4)))
    assert not is_stackable(nn.Linear(D, K))


def test_numbers_a_member_and_finite_members():
    nets, _ = members(**SHAPES["skip"])
    spread = nets.per_member(torch.arange(P).double())
    for p in range(P):
        for value in nets.member(spread, p).values():
            assert (value == p).all()
    nets.blocks["trunk.0.bias"][3, 0, 0] = torch.nan
    assert nets.finite().tolist() == [True, True, True, False, True]
