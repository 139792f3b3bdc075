"""Adams whose first momentum varies, against torch and a float64 reference; options by name."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from mtlsk.optimizers import (
    OPTIMIZERS,
    SGD,
    Adam,
    AdamW,
    momentum_of,
    optimizer_arguments,
    set_option,
)

PAIRS = [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)]


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in ((3, 4), (5,))
    ]


def gradients(n, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 4), (5,))]
        for _ in range(n)
    ]


def take(optimizer, params, grads, beta1=None):
    """Take one step with these gradients, None for a parameter that has none."""
    if beta1 is not None:
        for group in optimizer.param_groups:
            group["betas"] = (beta1, group["betas"][1])
    for p, g in zip(params, grads, strict=True):
        p.grad = None if g is None else g.clone()
    optimizer.step()


class Reference:
    """Adam by its definition in float64: m_t, v_t and the sums of their coefficients."""

    def __init__(self, p, lr, decay=0.0, l2=0.0, beta2=0.999, eps=1e-8):
        self.p = p.detach().double().clone()
        self.m, self.v = torch.zeros_like(self.p), torch.zeros_like(self.p)
        self.product, self.t = 1.0, 0
        self.lr, self.decay, self.l2, self.beta2, self.eps = lr, decay, l2, beta2, eps

    def step(self, g, beta1):
        g = g.double() + self.l2 * self.p
        self.t += 1
        self.product *= beta1
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        v_hat = self.v / (1 - self.beta2**self.t)
        self.p = self.p * (1 - self.lr * self.decay)
        self.p = self.p - self.lr * self.m / (1 - self.product) / (v_hat.sqrt() + self.eps)


@pytest.mark.parametrize(("ours", "host"), PAIRS)
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_a_constant_momentum_it_is_torchs_bit_for_bit(ours, host, decay, options, dtype):
    mine, theirs = parameters(dtype), parameters(dtype)
    a = ours(mine, lr=0.01, betas=(0.97, 0.99), weight_decay=decay, **options)
    b = host(theirs, lr=0.01, betas=(0.97, 0.99), weight_decay=decay, **options)
    for grads in gradients(40, dtype=dtype):
        take(a, mine, grads)
        take(b, theirs, grads)
        assert all(torch.equal(p, q) for p, q in zip(mine, theirs, strict=True))


def test_adamw_decays_nothing_unless_told_to():
    assert AdamW(parameters()).defaults["weight_decay"] == 0.0
    assert AdamW(parameters(), weight_decay=0.1).defaults["weight_decay"] == 0.1


BETAS = [0.5, 0.5, 0.99, 0.2, 0.0, 0.9, 0.5, 0.999, 0.5, 0.5, 0.7, 0.1]


@pytest.mark.parametrize("betas", [BETAS, [0.0, *BETAS], [0.9] * 6 + BETAS], ids=len)
@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (lambda p: Adam(p, lr=0.01), {}),
        (lambda p: Adam(p, lr=0.01, weight_decay=0.1), {"l2": 0.1}),
        (lambda p: AdamW(p, lr=0.01), {}),
        (lambda p: AdamW(p, lr=0.01, weight_decay=0.1), {"decay": 0.1}),
    ],
    ids=["Adam", "Adam-L2", "AdamW", "AdamW-decay"],
)
def test_a_varying_momentum_follows_the_definition(make, reference, betas):
    params = parameters(torch.float64)
    expected = [Reference(p, 0.01, **reference) for p in params]
    optimizer = make(params)
    for beta1, grads in zip(betas, gradients(len(betas), dtype=torch.float64), strict=True):
        take(optimizer, params, grads, beta1)
        for p, r, g in zip(params, expected, grads, strict=True):
            r.step(g, beta1)
            torch.testing.assert_close(p.detach(), r.p, rtol=1e-12, atol=1e-13)


def test_parameters_without_a_gradient_count_their_own_steps():
    params = parameters(torch.float64)
    expected = [Reference(p, 0.01, decay=0.1) for p in params]
    optimizer = AdamW(params, lr=0.01, weight_decay=0.1)
    skips = [(), (0,), (1,), (), (0, 1), (0,), (), (1,), (), (), (0,), ()]
    for beta1, grads, skip in zip(BETAS, gradients(12, dtype=torch.float64), skips, strict=True):
        given = [None if i in skip else g for i, g in enumerate(grads)]
        take(optimizer, params, given, beta1)
        for p, r, g in zip(params, expected, given, strict=True):
            if g is not None:
                r.step(g, beta1)
            torch.testing.assert_close(p.detach(), r.p, rtol=1e-12, atol=1e-13)


def test_a_parameter_whose_first_gradient_comes_late():
    params = parameters(torch.float64)
    expected = [Reference(p, 0.01) for p in params]
    optimizer = Adam(params, lr=0.01)
    for t, (beta1, grads) in enumerate(zip(BETAS, gradients(12, dtype=torch.float64), strict=True)):
        given = [grads[0], grads[1] if t >= 4 else None]
        take(optimizer, params, given, beta1)
        for p, r, g in zip(params, expected, given, strict=True):
            if g is not None:
                r.step(g, beta1)
            torch.testing.assert_close(p.detach(), r.p, rtol=1e-12, atol=1e-13)


def longest_step(cls, betas, **options):
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = cls([p], lr=0.01, **options)
    longest = 0.0
    for beta1 in betas:
        before = p.detach().clone()
        take(optimizer, [p], [torch.tensor([1.0, -3.0, 1e-3], dtype=torch.float64)], beta1)
        longest = max(longest, float((p.detach() - before).abs().max()))
    return longest / 0.01


def test_on_a_constant_gradient_no_step_is_longer_than_lr():
    for n in (1, 2, 5, 30):
        for low, high in ((0.5, 0.99), (0.0, 0.999), (0.99, 0.1)):
            betas = [low] * n + [high] * 5 + [low, high] * 5
            for cls in (Adam, AdamW):
                assert longest_step(cls, betas) <= 1 + 1e-6
    # torch's own correction, 1 - beta_1^t, multiplies the step by about 25
    jump = [0.5] * 2 + [0.99] * 2
    assert longest_step(torch.optim.Adam, jump) > 20
    assert longest_step(torch.optim.AdamW, jump, weight_decay=0.0) > 20


def test_decoupled_decay_does_not_feel_the_momentum():
    # a zero gradient leaves the decay alone: p (1 - lr decay)^t at any momenta
    p = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    optimizer = AdamW([p], lr=0.1, weight_decay=0.2)
    start = p.detach().clone()
    for beta1 in BETAS:
        take(optimizer, [p], [torch.zeros(2, dtype=torch.float64)], beta1)
    torch.testing.assert_close(p.detach(), start * (1 - 0.1 * 0.2) ** 12, rtol=1e-13, atol=0)


def test_going_back_to_the_first_momentum_stays_exact():
    params = parameters(torch.float64)
    expected = [Reference(p, 0.01) for p in params]
    optimizer = Adam(params, lr=0.01)
    for beta1, grads in zip(
        [0.9, 0.9, 0.3] + [0.9] * 10, gradients(13, dtype=torch.float64), strict=True
    ):
        take(optimizer, params, grads, beta1)
        for p, r, g in zip(params, expected, grads, strict=True):
            r.step(g, beta1)
            torch.testing.assert_close(p.detach(), r.p, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cls", [Adam, AdamW])
@pytest.mark.parametrize("at", [1, 2, 5])  # before and after the first change
def test_a_state_saved_mid_way_goes_on_bit_for_bit(cls, at):
    params, other = parameters(), parameters()
    first, second = cls(params, lr=0.01), cls(other, lr=0.5)
    steps = list(zip(BETAS, gradients(12), strict=True))
    for beta1, grads in steps[:at]:
        take(first, params, grads, beta1)
    file = io.BytesIO()
    torch.save({"optimizer": first.state_dict(), "params": params}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second.load_state_dict(saved["optimizer"])
    with torch.no_grad():
        for p, q in zip(other, saved["params"], strict=True):
            p.copy_(q)
    for beta1, grads in steps[at:]:
        take(first, params, grads, beta1)
        take(second, other, grads, beta1)
        assert all(torch.equal(p, q) for p, q in zip(params, other, strict=True))


def test_groups_keep_their_own_momenta():
    params = parameters(torch.float64)
    expected = [Reference(p, lr) for p, lr in zip(params, (0.01, 0.05), strict=True)]
    optimizer = Adam([{"params": params[:1]}, {"params": params[1:], "lr": 0.05}], lr=0.01)
    for t, grads in enumerate(gradients(8, dtype=torch.float64)):
        betas = (0.9, 0.5 if t % 2 else 0.8)  # the first group's never changes
        for group, beta1 in zip(optimizer.param_groups, betas, strict=True):
            group["betas"] = (beta1, 0.999)
        take(optimizer, params, grads)
        for p, r, g, beta1 in zip(params, expected, grads, betas, strict=True):
            r.step(g, beta1)
            torch.testing.assert_close(p.detach(), r.p, rtol=1e-12, atol=1e-13)


def test_a_closure_is_run_once_and_may_change_the_momentum():
    p = nn.Parameter(torch.ones(2, dtype=torch.float64))
    reference, optimizer, calls = Reference(p, 0.01), Adam([p], lr=0.01), []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        set_option(optimizer, "momentum", 0.1 * len(calls))
        return loss

    for t in range(1, 5):
        grad = 2 * reference.p
        loss = optimizer.step(closure)
        reference.step(grad, 0.1 * t)
        assert loss.requires_grad
    assert len(calls) == 4
    torch.testing.assert_close(p.detach(), reference.p, rtol=1e-12, atol=0)


def test_a_scheduler_of_the_learning_rate_works():
    params = parameters(torch.float64)
    optimizer = Adam(params, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    expected = [Reference(p, 0.1) for p in params]
    for beta1, grads in zip(BETAS, gradients(12, dtype=torch.float64), strict=True):
        take(optimizer, params, grads, beta1)
        for p, r, g in zip(params, expected, grads, strict=True):
            r.step(g, beta1)
            r.lr *= 0.5
            torch.testing.assert_close(p.detach(), r.p, rtol=1e-12, atol=1e-13)
        scheduler.step()


def test_hooks_run_once_a_step():
    torch.optim.Adam(parameters())  # anybody's, anywhere in the process
    params = parameters()
    optimizer, calls = Adam(params), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    take(optimizer, params, gradients(1)[0])
    assert calls == ["before", "after"]


# options by name


def message(action, *args):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        action(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "cls"),
    [
        ("Adam", Adam),
        ("adamw", AdamW),
        ("SGD", SGD),
        ("RMSprop", torch.optim.RMSprop),
        ("rmsprop", torch.optim.RMSprop),
        ("torch.optim:Adam", torch.optim.Adam),
        (torch.optim.NAdam, torch.optim.NAdam),
        ({"name": "SGD", "lr": 0.5}, SGD),
    ],
)
def test_an_optimizer_goes_by_its_name(spec, cls):
    found, arguments = optimizer_arguments(spec, {"lr": 0.1})
    assert found is cls
    assert arguments == {"lr": 0.1}
    assert isinstance(found(parameters(), **arguments), cls)


def test_arguments_given_apart_win_and_the_grammars_stay():
    _, arguments = optimizer_arguments({"name": "SGD", "lr": 0.5, "nesterov": True}, {"lr": 0.1})
    assert arguments == {"lr": 0.1, "nesterov": True}


def test_momentum_is_the_first_beta_of_the_adam_family():
    assert optimizer_arguments("Adam", {"momentum": 0.5})[1] == {"betas": (0.5, 0.999)}
    both = {"momentum": 0.5, "betas": (0.1, 0.9)}
    assert optimizer_arguments("AdamW", both)[1] == {"betas": (0.5, 0.9)}
    assert optimizer_arguments("SGD", {"momentum": 0.5})[1] == {"momentum": 0.5}
    assert both == {"momentum": 0.5, "betas": (0.1, 0.9)}


@pytest.mark.parametrize(
    ("spec", "params", "words"),
    [
        ("Adma", {}, ["'Adma'", "did you mean 'Adam'", "SGD"]),
        ("SGD", {"momentun": 0.9}, ["SGD", "'momentun'", "did you mean 'momentum'", "nesterov"]),
        ("SGD", {"betas": (0.9, 0.99)}, ["SGD", "'betas'"]),
        ("Adagrad", {"momentum": 0.9}, ["Adagrad", "'momentum'"]),
        ({"lr": 0.1}, {}, ["no 'name'"]),
        (torch.optim.SGD(parameters()), {}, ["instance", "optimizer='SGD'"]),
    ],
    ids=["name", "parameter", "betas", "no-momentum", "dict", "instance"],
)
def test_errors_say_what_is_allowed(spec, params, words):
    text = message(optimizer_arguments, spec, params)
    for word in words:
        assert word in text


def test_only_what_the_constructor_takes_is_valid():
    assert "'defaults'" in message(optimizer_arguments, "Adam", {"defaults": {}})


def test_where_the_momentum_lives():
    assert momentum_of(Adam(parameters())) == "betas"
    assert momentum_of(SGD(parameters())) == "momentum"
    assert momentum_of(torch.optim.Adagrad(parameters())) is None


def test_set_option_changes_the_live_groups():
    params = parameters()
    optimizer = Adam([{"params": params[:1]}, {"params": params[1:]}], lr=0.1)
    set_option(optimizer, "lr", 0.2)
    set_option(optimizer, "momentum", 0.5)
    assert [(g["lr"], g["betas"]) for g in optimizer.param_groups] == [(0.2, (0.5, 0.999))] * 2
    set_option(optimizer, "momentum", 0.1, groups=[1])
    assert [g["betas"][0] for g in optimizer.param_groups] == [0.5, 0.1]
    sgd = SGD(params)
    set_option(sgd, "momentum", 0.3)
    assert sgd.param_groups[0]["momentum"] == 0.3
    text = message(set_option, sgd, "dampning", 0.3)
    assert "SGD has no option 'dampning' (did you mean 'dampening'?)" in text
    assert "'momentum'" in message(set_option, torch.optim.Adagrad(params), "momentum", 0.3)


def test_the_registry_of_optimizers_is_what_it_exports():
    assert set(OPTIMIZERS.members()) == {"SGD", "Adam", "AdamW", "Muon", "NAdam", "RAdam"}
