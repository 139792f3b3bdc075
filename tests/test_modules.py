"""HardSharing, its parts and the parameter protocol."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from mtlsk.descent import split_parameters
from mtlsk.modules import ACTIVATIONS, CRITERIA, HardSharing, Task


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def rows(n=5, d=4):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [(), (3,), (5, 4, 3)])
@pytest.mark.parametrize("n_outputs", [1, 7])
def test_shape(sizes, n_outputs):
    module = HardSharing(4, n_outputs, sizes)
    assert module(rows()).shape == (5, n_outputs)
    widths = [4, *sizes]
    count = sum(a * b + b for a, b in pairwise(widths))
    assert sum(p.numel() for p in module.parameters()) == count + (widths[-1] + 1) * n_outputs


def test_default_is_64_x_64_relu_with_biases_and_no_skip():
    module = HardSharing(4, 2)
    kinds = [type(m) for m in module.trunk]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]
    assert [m.out_features for m in module.trunk if isinstance(m, nn.Linear)] == [64, 64]
    assert module.trunk[0].bias is not None
    assert module.skip is None


BY_HAND = {
    "relu": lambda z: z.clamp_min(0),
    "tanh": torch.tanh,
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "elu": lambda z: torch.where(z > 0, z, torch.exp(z) - 1),
    "softplus": lambda z: torch.log1p(torch.exp(z)),
    "logistic": lambda z: 1 / (1 + torch.exp(-z)),
    "identity": lambda z: z,
}


def test_the_activations_are_all_tested():
    assert set(BY_HAND) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", BY_HAND)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_forward_by_hand(activation, bias, skip):
    module = HardSharing(4, 3, (6, 5), activation=activation, bias=bias, skip=skip)
    X = rows()
    z = X
    state = module.state_dict()
    for i in (0, 2):
        z = z @ state[f"trunk.{i}.weight"].T + (state[f"trunk.{i}.bias"] if bias else 0)
        z = BY_HAND[activation](z)
    wanted = z @ state["head.weight"].T + (state["head.bias"] if bias else 0)
    if skip:
        wanted = wanted + X @ state["skip.weight"].T
    torch.testing.assert_close(module(X), wanted, rtol=1e-4, atol=1e-6)
    names = {n.rpartition(".")[2] for n in state}
    assert ("bias" in names) == bias


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("trunk", ["mlp", "conv"])
def test_shared_and_task_parameters_part_the_module(skip, trunk):
    shape = (1, 2, 2) if trunk == "conv" else None
    module = HardSharing(4, 3, (6,), skip=skip, trunk=trunk, input_shape=shape)
    shared, own = split_parameters(module, 3)
    assert {id(p) for p in shared} == {id(p) for p in module.trunk.parameters()}
    for k in range(3):
        assert {id(p) for p in module.task_parameters(k)} == {id(p) for p in own}
    assert len(shared) + len(own) == len(list(module.parameters()))
    assert not {id(p) for p in shared} & {id(p) for p in own}


@pytest.mark.parametrize("skip", [True, False])
def test_rows_of_the_fused_head_never_mix_tasks(skip):
    module = HardSharing(4, 3, (6,), skip=skip)
    _, own = split_parameters(module, 3)
    for k in range(3):
        grads = torch.autograd.grad((module(rows())[:, k] ** 2).mean(), own)
        for g in grads:
            others = [i for i in range(3) if i != k]
            assert float(g[others].abs().max()) == 0
            assert float(g[k].abs().max()) > 0


def test_a_frozen_parameter_is_in_neither_list():
    module = HardSharing(4, 3, (6, 5))
    module.trunk[0].weight.requires_grad_(False)
    module.head.bias.requires_grad_(False)
    shared, own = split_parameters(module, 3)
    assert len(shared) == 3
    assert len(own) == 1


def test_module_without_a_protocol_shares_everything():
    module = nn.Linear(4, 3)
    shared, own = split_parameters(module, 3)
    assert len(shared) == 2
    assert own == []


def test_task_parameters_alone_leave_the_rest_shared():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 5)
            self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(2))

        def task_parameters(self, k):
            return self.heads[k].parameters()

    module = Heads()
    shared, own = split_parameters(module, 2)
    assert {id(p) for p in shared} == {id(p) for p in module.body.parameters()}
    assert {id(p) for p in own} == {id(p) for p in module.heads.parameters()}


# ---- convolutions


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 1)])
def test_conv_trunk_by_hand(shape):
    n = math.prod(shape)
    module = HardSharing(n, 2, (6,), trunk="conv", input_shape=shape)
    X = rows(3, n)
    convolutions = [m for m in module.trunk if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convolutions] == [(16, 1), (32, 2)]
    z = X.reshape(3, *shape)
    for conv, stride in zip(convolutions, (1, 2), strict=True):
        z = functional.conv2d(z, conv.weight, conv.bias, stride=stride, padding=1).clamp_min(0)
    linear = next(m for m in module.trunk if isinstance(m, nn.Linear))
    z = linear(z.reshape(3, -1)).clamp_min(0)
    torch.testing.assert_close(module(X), module.head(z))


@pytest.mark.parametrize("shape", [None, (8, 8), (1, 8, 9), 64])
def test_conv_trunk_needs_a_shape_that_fits(shape):
    with pytest.raises(ValueError, match=r"input_shape=.*64 features") as caught:
        HardSharing(64, 2, (6,), trunk="conv", input_shape=shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [({"activation": "rely"}, "relu, tanh"), ({"trunk": "lstm"}, "'mlp' or 'conv'")],
)
def test_wrong_words(wrong, allowed):
    with pytest.raises(ValueError, match=allowed) as caught:
        HardSharing(4, 2, **wrong)
    message = str(caught.value)
    assert "\n" not in message
    assert repr(next(iter(wrong.values()))) in message


# ---- criteria


REFERENCE = {
    "squared_error": functional.mse_loss,
    "absolute_error": functional.l1_loss,
    "huber": functional.smooth_l1_loss,  # the same at delta = beta = 1
}
REGRESSION = CRITERIA["regression"]


def test_the_criteria_are_all_tested():
    assert set(REFERENCE) == set(REGRESSION)
    assert {kind: list(of_kind) for kind, of_kind in CRITERIA.items() if kind != "regression"} == {
        "binary": ["log_loss"],
        "multiclass": ["log_loss"],
    }


@pytest.mark.parametrize("name", REFERENCE)
def test_criterion_is_torch_s_row_by_row(name):
    prediction, label = 3 * rows(20, 1), 3 * rows(21, 1)[1:, 0]
    values = REGRESSION[name](prediction, label)
    assert values.shape == (20,)
    torch.testing.assert_close(values, REFERENCE[name](prediction[:, 0], label, reduction="none"))


def test_log_losses_are_minus_the_log_of_the_probability():
    logits = 3 * rows(20, 3)
    label = torch.arange(20) % 3
    probability = logits.exp() / logits.exp().sum(1, keepdim=True)
    wanted = -probability[torch.arange(20), label].log()
    torch.testing.assert_close(CRITERIA["multiclass"]["log_loss"](logits, label), wanted)
    one, binary = logits[:, :1], (label > 0).to(logits)
    sigmoid = 1 / (1 + (-one[:, 0]).exp())
    wanted = -(binary * sigmoid + (1 - binary) * (1 - sigmoid)).log()
    torch.testing.assert_close(CRITERIA["binary"]["log_loss"](one, binary), wanted)


def test_task_is_frozen():
    task = Task("load", "regression", REGRESSION["huber"], slice(0, 1))
    with pytest.raises(AttributeError):
        task.name = "other"
