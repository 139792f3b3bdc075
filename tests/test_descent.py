"""One descent step: what is written where, at which scale, and when changes act."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import nn

from mtlsk import descent as descent_module
from mtlsk.aggregators import AGGREGATORS, MGDA, Aggregator, ConicGrad, LinearScalarization
from mtlsk.controllers import Controller
from mtlsk.descent import Descent, DivergenceError, split_parameters
from mtlsk.modules import HardSharing
from mtlsk.taskmap import TaskMap

AGGREGATOR_NAMES = sorted(AGGREGATORS.members())


class Net(nn.Module):
    """A trunk and K heads of their own, with the protocol of shared and task parameters."""

    def __init__(self, n_tasks=3):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(5, 1) for _ in range(n_tasks)])

    def forward(self, x):
        h = self.trunk(x)
        return torch.cat([head(h) for head in self.heads], 1)

    def shared_parameters(self):
        return self.trunk.parameters()

    def task_parameters(self, k):
        return self.heads[k].parameters()


def seeded(make, *args, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args).to(dtype)


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(1)
    X, Y = torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 3, dtype=torch.float64)
    Y[:, 1] = 3 * Y[:, 1] - 3 * Y[:, 0]  # a conflict, and other units


def losses_of(module, n_tasks=3):
    return ((module(X) - Y[:, :n_tasks]) ** 2).mean(0)


def started(
    aggregator="LinearScalarization", controller=None, *, module=None, n_tasks=3, **options
):
    """Return a descent with plain SGD, lr 1: the step is the gradient."""
    module = seeded(Net, n_tasks) if module is None else module
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    live = Descent(module, optimizer, aggregator, controller, n_tasks=n_tasks, **options)
    return live, module


def grads(parameters):
    return [p.grad.clone() for p in parameters]


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def task_gradients(module, parameters):
    """Return the rows of J over these parameters, by one plain backward a task."""
    parameters, rows = list(parameters), []
    for loss in losses_of(module):
        got = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(got, parameters, strict=True)
        rows.append(flat([torch.zeros_like(p) if g is None else g for g, p in pairs]))
    return torch.stack(rows)


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **({"rtol": 1e-9, "atol": 1e-12} | tolerance))


@pytest.fixture
def passes(monkeypatch):
    """Count the backward passes."""
    calls = []
    for name in ("grad", "backward"):
        original = getattr(torch.autograd, name)

        def counted(*args, original=original, **kwargs):
            calls.append(1)
            return original(*args, **kwargs)

        monkeypatch.setattr(torch.autograd, name, counted)
    return calls


# what is written where


def backward(live, *args, **kwargs):
    """Take the step with torch's generator seeded: some aggregators draw from it."""
    torch.manual_seed(1)
    return live.backward(*args, **kwargs)


def head_scale(live, record, k):
    """Return the factor of a head's own gradient: loss weights weigh the whole loss, heads too."""
    return float(record.weights[k]) if live.aggregator.needs == "losses" else 1 / 3


@pytest.mark.parametrize("name", AGGREGATOR_NAMES)
def test_shared_parameters_get_the_aggregated_direction(name):
    live, module = started(name)
    j = task_gradients(module, module.shared_parameters())
    losses = losses_of(module)
    record = backward(live, losses)
    torch.manual_seed(1)
    w = AGGREGATORS.build(name).task_weights(j @ j.T, losses.detach())
    close(record.weights, w)
    close(flat(p.grad for p in module.shared_parameters()), w @ j)
    close(flat(record.direction), w @ j)
    close(record.losses, losses.detach())
    if live.aggregator.needs == "losses":
        assert record.gramian is None
    else:
        close(record.gramian, j @ j.T)
    assert record.present == (0, 1, 2)
    assert record.step == 0
    assert live.backward(losses_of(module)).step == 1


@pytest.mark.parametrize("name", AGGREGATOR_NAMES)
def test_heads_get_their_own_tasks_gradient_at_one_over_k_or_its_weight(name):
    live, module = started(name)
    expected = [
        torch.autograd.grad(loss, list(module.task_parameters(k)), retain_graph=True)
        for k, loss in enumerate(losses_of(module))
    ]
    record = live.backward(losses_of(module))
    for k, own in enumerate(expected):
        scale = head_scale(live, record, k)
        close(flat(p.grad for p in module.task_parameters(k)), flat(own) * scale)


@pytest.mark.parametrize("make", [Net, lambda: HardSharing(4, 3, (6,)), lambda: nn.Linear(4, 3)])
def test_the_cone_without_width_is_the_step_of_linear_scalarization(make):
    both = []
    for aggregator in (ConicGrad(c=1.0), LinearScalarization()):
        live, module = started(aggregator, module=seeded(make))
        for _ in range(3):
            live.backward(losses_of(module))
            live.optimizer.param_groups[0]["lr"] = 1e-3
            live.optimizer.step()
        both.append(flat(p.detach() for p in module.parameters()))
    close(*both)
    mean = seeded(make)
    losses_of(mean).mean().backward()
    live, module = started(LinearScalarization(), module=seeded(make))
    live.backward(losses_of(module))
    close(flat(grads(module.parameters())), flat(grads(mean.parameters())))


def test_weights_of_scalarization_serve_the_heads_too():
    live, module = started(LinearScalarization(weights=[0.5, 2.0, 0.0]))
    plain = copy.deepcopy(module)
    (losses_of(plain) @ torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)).backward()
    live.backward(losses_of(module))
    close(flat(grads(module.parameters())), flat(grads(plain.parameters())))


@pytest.mark.parametrize("name", AGGREGATOR_NAMES)
def test_with_update_norm_mean_the_update_is_as_long_as_the_mean_gradient(name):
    for params in ({}, {"weights": [0.7, 0.2, 0.6]} if name == "LinearScalarization" else {}):
        live, module = started({"name": name, **params}, update_norm="mean")
        native, twin = started({"name": name, **params})
        j = task_gradients(module, module.shared_parameters())
        d = flat(backward(live, losses_of(module)).direction)
        other = flat(backward(native, losses_of(twin)).direction)
        assert float(d.norm()) == pytest.approx(float(j.mean(0).norm()), rel=1e-9)
        close(d / d.norm(), other / other.norm())  # only the length changes
        for k in range(3):  # and only that of the shared update
            for p, q in zip(module.task_parameters(k), twin.task_parameters(k), strict=True):
                close(p.grad, q.grad)


def test_lengths_of_native_updates_differ():
    live, module = started("MGDA")
    j = task_gradients(module, module.shared_parameters())
    d = flat(live.backward(losses_of(module)).direction)
    assert float(d.norm()) < 0.9 * float(j.mean(0).norm())


def test_frozen_and_unused_parameters():
    module = seeded(Net)
    module.trunk[0].weight.requires_grad_(False)
    module.idle = nn.Parameter(torch.ones(2, dtype=torch.float64))
    live, _ = started("MGDA", module=module)
    live.backward(losses_of(module))
    assert module.trunk[0].weight.grad is None
    assert module.idle.grad.tolist() == [0, 0]


def test_gradients_are_overwritten_not_added_up():
    live, module = started("ConicGrad")
    live.backward(losses_of(module))
    first = flat(grads(module.parameters()))
    live.backward(losses_of(module))
    assert torch.equal(flat(grads(module.parameters())), first)


def test_the_protocol_of_shared_and_task_parameters():
    module = seeded(Net)
    names = {id(p): n for n, p in module.named_parameters()}
    shared, own = ([names[id(p)] for p in part] for part in split_parameters(module, 3))
    assert all(n.startswith("trunk") for n in shared)
    assert all(n.startswith("heads") for n in own)
    assert len(shared) + len(own) == len(names)

    class OnlyTasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def task_parameters(self, k):
            return self.b.parameters() if k == 1 else iter(())

    only = OnlyTasks()
    assert [id(p) for p in split_parameters(only, 2)[0]] == [id(p) for p in only.a.parameters()]
    plain = nn.Linear(2, 2)
    plain.bias.requires_grad_(False)
    assert [id(p) for p in split_parameters(plain, 2)[0]] == [id(plain.weight)]
    assert split_parameters(plain, 2)[1] == []


# what it costs


def test_scalarization_costs_one_backward_pass(passes):
    live, module = started("LinearScalarization")
    losses = losses_of(module)
    live.backward(losses)
    assert len(passes) == 1


@pytest.mark.parametrize("name", ["MGDA", "CAGrad", "ConicGrad"])
def test_a_gramian_costs_one_pass_a_task_and_the_heads_one_more(name, passes):
    live, module = started(name)
    live.backward(losses_of(module))
    assert len(passes) == 3 + 1
    live, module = started(name, module=seeded(nn.Linear, 4, 3))  # all shared
    del passes[:]
    live.backward(losses_of(module))
    assert len(passes) == 3


def test_dropped_tasks_cost_nothing(passes):
    live, module = started("MGDA")
    live.backward(losses_of(module), present=[True, False, True])
    assert len(passes) == 2 + 1


# the task map in the step


@pytest.mark.parametrize("name", AGGREGATOR_NAMES)
def test_a_dropped_task_equals_a_net_without_it(name):
    live, module = started(name)
    record = backward(live, losses_of(module), present=[True, True, False])
    other, smaller = started(name, module=copy.deepcopy(module), n_tasks=2)
    backward(other, losses_of(smaller)[:2])
    close(flat(grads(module.parameters())), flat(grads(smaller.parameters())))
    assert not flat(p.grad for p in module.task_parameters(2)).any()
    assert record.present == (0, 1)
    assert record.losses.isnan().tolist() == [False, False, True]
    assert record.weights[2] == 0
    assert live.aggregator.active_ == (0, 1)


def test_a_loss_that_is_not_there_may_be_nan():
    live, module = started("ConicGrad")
    losses = torch.stack([*losses_of(module)[:2], torch.tensor(math.nan, dtype=torch.float64)])
    live.backward(losses, present=[True, True, False])
    assert bool(flat(grads(module.parameters())).isfinite().all())
    with pytest.raises(ValueError, match="no task has a label"):
        live.backward(losses, present=[False] * 3)


@pytest.mark.parametrize("name", AGGREGATOR_NAMES)
def test_task_scale_is_a_factor_of_the_loss(name):
    scale = [0.5, 0.1, 2.4]
    live, module = started(name, task_map=TaskMap(3, scale))
    record = backward(live, losses_of(module))
    other, twin = started(name)
    expected = backward(other, losses_of(twin) * torch.tensor(scale, dtype=torch.float64))
    close(flat(grads(module.parameters())), flat(grads(twin.parameters())), rtol=1e-6)
    # the record tells of the raw losses and of the weights of the raw gradients
    close(record.losses, losses_of(twin).detach())
    close(record.weights, expected.weights * torch.tensor(scale, dtype=torch.float64), rtol=1e-6)


@pytest.mark.parametrize("name", AGGREGATOR_NAMES)
def test_a_group_is_one_task_to_the_aggregator(name):
    live, module = started(name, task_map=TaskMap(3, groups=[[0, 2], [1]]))
    record = backward(live, losses_of(module))
    other, twin = started(name, n_tasks=2, module=seeded(Net))
    raw = losses_of(twin)
    backward(other, torch.stack([raw[0] + raw[2], raw[1]]) * 2 / 3)
    close(flat(grads(module.parameters())), flat(grads(twin.parameters())), rtol=1e-6)
    assert record.weights.shape == (3,)
    assert record.weights[0] == record.weights[2]
    # whatever the grouping, the heads keep the scale of the mean of three, or of their weights
    own = torch.autograd.grad(losses_of(module)[1], list(module.task_parameters(1)))
    close(flat(p.grad for p in module.task_parameters(1)), flat(own) * head_scale(live, record, 1))


def test_all_in_one_group_is_the_mean_gradient():
    for name in AGGREGATOR_NAMES:
        if name == "CAGrad":  # (1 + c) g0: the ball's radius is added where all tasks agree
            continue
        live, module = started(name, task_map=TaskMap(3, groups=[[0, 1, 2]]))
        j = task_gradients(module, module.shared_parameters())
        close(flat(live.backward(losses_of(module)).direction), j.mean(0))


def test_the_aggregator_sees_which_tasks_are_active():
    seen = []

    class Spy(Aggregator):
        def task_weights(self, gramian, losses):
            seen.append((self.active_, tuple(gramian.shape), losses.tolist()))
            assert gramian.device.type == losses.device.type == "cpu"
            assert gramian.dtype == losses.dtype == torch.float64
            return torch.ones(len(losses), dtype=torch.float64)

    live, module = started(Spy(), module=seeded(Net, dtype=torch.float32))
    for present in (None, [False, True, True], [True, True, True]):
        losses = ((module(X.float()) - Y.float()) ** 2).mean(0)
        live.backward(losses, present)
    assert [s[0] for s in seen] == [None, (1, 2), None]
    assert [s[1] for s in seen] == [(3, 3), (2, 2), (3, 3)]
    assert len(seen[1][2]) == 2
    live.task_map.groups = [[0, 1], [2]]
    live.backward(((module(X.float()) - Y.float()) ** 2).mean(0), [True, True, False])
    assert seen[-1][0] == (0,)  # of the groups


def test_observe_hands_on_the_mapped_losses_of_the_last_tasks():
    class Waits(LinearScalarization):
        needs_losses_after = True

        def observe(self, losses_after):
            self.after_ = losses_after

    live, module = started(Waits(), task_map=TaskMap(3, [1.0, 2.0, 3.0]))
    live.backward(losses_of(module), [True, False, True])
    live.observe(losses_of(module))
    raw = losses_of(module).detach()
    close(live.aggregator.after_, torch.stack([raw[0], 3 * raw[2]]))


# divergence


@pytest.mark.parametrize("name", AGGREGATOR_NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_before_any_gradient(name, bad):
    live, module = started(name, task_names=["a", "grip", "c"])
    with pytest.raises(DivergenceError, match=f"loss of task 'grip' became {bad}"):
        live.backward(losses_of(module) * torch.tensor([1.0, bad, 1.0]))
    assert all(p.grad is None for p in module.parameters())
    assert live.n_steps == 0


def steep(module):
    """Return finite losses, of which that of task 2 has an infinite gradient."""
    losses = losses_of(module)
    last = losses[2] * 1.0
    last.register_hook(lambda g: torch.where(g == 0, g, math.inf))
    return torch.stack([losses[0], losses[1], last])


@pytest.mark.parametrize("name", ["MGDA", "CAGrad", "ConicGrad"])
def test_a_gradient_that_is_not_finite_stops_before_any_gradient(name):
    live, module = started(name, task_names=["a", "b", "grip"])
    assert bool(steep(module).isfinite().all())
    with pytest.raises(DivergenceError, match="grip"):
        live.backward(steep(module))
    assert all(p.grad is None for p in module.parameters())


def test_a_gradient_that_is_not_looked_at_shows_in_the_next_step():
    def edge(module):
        bias = module.heads[1].bias
        return (bias - bias.detach()).abs().sqrt().sum()  # 0, with an infinite slope

    first = torch.tensor([0.0, 1.0, 0.0])
    for name, losses in (
        ("LinearScalarization", steep),
        ("MGDA", lambda module: losses_of(module) + first * edge(module)),
    ):
        live, module = started(name)
        live.backward(losses(module))
        live.optimizer.step()
        with pytest.raises(DivergenceError):
            live.backward(losses_of(module))


def test_weights_that_are_not_finite_stop():
    class Breaks(Aggregator):
        def task_weights(self, gramian, losses):
            return losses * math.nan

    live, module = started(Breaks())
    with pytest.raises(DivergenceError, match="Breaks returned weights"):
        live.backward(losses_of(module))
    assert all(p.grad is None for p in module.parameters())
    assert issubclass(DivergenceError, ArithmeticError)


# controllers


class Script(Controller):
    """Makes the changes that were written down for each step."""

    def __init__(self, changes=()):
        self.changes = changes

    def adjust(self, record, gradients):
        self.seen_ = [*getattr(self, "seen_", []), (record, gradients.gramian())]
        return self.changes[record.step] if record.step < len(self.changes) else {}


def test_a_change_of_the_optimizer_acts_in_this_very_step():
    for name, value in (("optimizer__lr", 0.5), ("lr", 0.25)):
        live, module = started("MGDA", Script([{name: value}]))
        before = flat(p.detach().clone() for p in module.parameters())
        live.backward(losses_of(module))
        gradient = flat(grads(module.parameters()))
        live.optimizer.step()
        close(flat(p.detach() for p in module.parameters()), before - value * gradient)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"aggregator__c": 0.05}, {"aggregator": {"name": "ConicGrad", "c": 0.05}}),
        ({"aggregator__solver": "flip"}, {"aggregator": {"name": "ConicGrad", "solver": "flip"}}),
        ({"task_scale": [1.0, 0.1, 1.0]}, {"task_map": TaskMap(3, [1.0, 0.1, 1.0])}),
        ({"task_groups": [[0, 2], [1]]}, {"task_map": TaskMap(3, groups=[[0, 2], [1]])}),
    ],
    ids=lambda p: next(iter(p)),
)
def test_other_changes_act_from_the_next_step_on(change, options):
    base = {"aggregator": {"name": "ConicGrad", "c": 0.9}}
    live, module = started(**base, controller=Script([change]))
    plain, twin = started(**base)
    changed, third = started(**(base | options))
    for d, m in ((live, module), (plain, twin), (changed, third)):
        d.backward(losses_of(m))
    first, as_before, as_after = (flat(grads(m.parameters())) for m in (module, twin, third))
    close(first, as_before)
    assert float((as_before - as_after).norm()) > 1e-3 * float(as_before.norm())
    live.backward(losses_of(module))
    close(flat(grads(module.parameters())), as_after)
    assert live.changes == {}


def test_the_controller_sees_the_record_and_the_gradients():
    live, module = started("MGDA", Script())
    record = live.backward(losses_of(module))
    (seen, gramian), *_ = live.controller.seen_
    assert seen is record
    close(gramian, record.gramian)
    with pytest.raises(AttributeError):
        record.step = 7


def test_a_change_of_one_group_of_the_optimizer_leaves_the_others():
    module = seeded(Net)
    parts = [{"params": part.parameters()} for part in (module.trunk, module.heads)]
    optimizer = torch.optim.SGD(parts, lr=1.0)
    change = {"optimizer__param_groups__1__lr": 0.5}
    Descent(module, optimizer, controller=Script([change]), n_tasks=3).backward(losses_of(module))
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.5]


def test_other_groups_reset_the_aggregator_and_the_same_again_do_not():
    same = {"task_groups": [[0, 2], [1]]}
    live, module = started("MGDA", Script([same, same]))
    live.backward(losses_of(module))
    assert live.aggregator.state_dict() == {}
    live.backward(losses_of(module))
    assert live.aggregator.state_dict() != {}


def test_the_record_has_the_gramian_of_the_tasks_and_the_one_the_aggregator_sees():
    live, module = started("MGDA", task_map=TaskMap(3, [1.0, 0.1, 1.0], [[0, 2], [1]]))
    record = live.backward(losses_of(module))
    j = task_gradients(module, module.shared_parameters())
    p, _ = live.task_map.matrix(range(3))
    close(record.task_gramian, j @ j.T)
    close(record.gramian, p @ j @ j.T @ p.T)


def test_a_controller_may_ask_for_gradients_where_the_step_needs_losses_only():
    live, module = started("LinearScalarization", Script())
    live.backward(losses_of(module))
    (_, gramian), *_ = live.controller.seen_
    j = task_gradients(module, module.shared_parameters())
    close(gramian, j @ j.T)


def test_the_end_of_an_epoch_is_told_to_the_aggregator(monkeypatch):
    live, _ = started("MGDA")
    told = []
    monkeypatch.setattr(live.aggregator, "end_epoch", lambda: told.append(1))
    live.end_epoch()
    assert told == [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"momentum": 0.9}, ["Script", "'momentum'", "optimizer__", "task_scale"]),
        ({"max_epochs": 3}, ["'max_epochs'", "not live"]),
        ({"optimizer__": 3}, ["'optimizer__'"]),
        ({"module__width": 3}, ["'module__width'"]),
        ({"optimizer__momentun": 0.9}, ["SGD", "did you mean 'momentum'"]),
        ({"aggregator__cc": 0.5}, ["'cc'", "ConicGrad"]),
        ({"aggregator__c": 2.0}, ["c=2.0", "(0, 1]"]),
        ({"task_scale": [1.0]}, ["1 entries for 3 tasks"]),
        ({"task_groups": [[0]]}, ["no partition"]),
    ],
    ids=str,
)
def test_an_unknown_or_forbidden_change_is_refused(change, words):
    live, module = started("ConicGrad", Script([change]))
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        live.backward(losses_of(module))
    for word in words:
        assert word in str(caught.value)


# construction and the docstring


def test_what_is_handed_over_live_is_used_as_it_is():
    aggregator, controller = MGDA(), Script()
    live, _ = started(aggregator, controller)
    assert live.aggregator is aggregator
    assert live.controller is controller
    with_dict, _ = started({"name": "conicgrad", "c": 0.2})
    assert with_dict.aggregator.c == 0.2


def test_errors_of_construction():
    with pytest.raises(
        ValueError, match="update_norm='men' is not allowed; use 'native' or 'mean'"
    ):
        started(update_norm="men")
    with pytest.raises(ValueError, match="unknown aggregator 'MGAD'"):
        started("MGAD")
    with pytest.raises(ValueError, match="unknown gramian 'exakt'"):
        started(gramian="exakt")
    with pytest.raises(ValueError, match="unknown controller 'ATP'"):
        started("MGDA", "ATP")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loop_of_the_module_docstring_runs_and_learns(dtype):
    code = descent_module.__doc__.split(".. code:: python")[1]
    code = "\n".join(line[4:] for line in code.splitlines())
    module = seeded(Net, dtype=dtype)
    x, y = X.to(dtype), Y.to(dtype) / Y.to(dtype).std(0)

    def per_task_losses(prediction, target):
        return ((prediction - target) ** 2).mean(0)

    before = per_task_losses(module(x), y).detach()
    names = {
        "Descent": Descent,
        "module": module,
        "optimizer": torch.optim.Adam(module.parameters(), lr=0.02),
        "loader": [(x, y)] * 60,
        "per_task_losses": per_task_losses,
    }
    exec(code, names)
    assert names["descent"].n_steps == 60
    assert bool((per_task_losses(module(x), y).detach() < 0.8 * before).all())


def test_none_is_no_controller_in_a_word_too():
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    assert Descent(module, optimizer, controller="None", n_tasks=2).controller is None


def test_losses_after_are_compared_under_the_scales_of_the_step():
    """An update of length zero changes no loss, whatever the controller changes for the next."""
    script = Script([{"task_scale": [4.0, 1.0, 1.0]}, {}])
    live, module = started("FAMO", script)
    for _ in range(2):
        live.backward(losses_of(module))
        live.observe(losses_of(module).detach())  # without a step of the optimizer
        assert live.aggregator.logits_.tolist() == [0.0, 0.0, 0.0]


def test_losses_after_new_groups_are_not_compared_with_those_before():
    live, module = started("FAMO", Script([{"task_groups": [[0, 2], [1]]}, {}]))
    for _ in range(2):
        live.backward(losses_of(module))
        live.optimizer.step()
        live.observe(losses_of(module).detach())
    assert live.aggregator.n_adam_steps_.tolist() == [1.0, 1.0]  # of the two groups


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_update_that_is_zero_but_for_rounding_is_not_made_longer(dtype):
    """Two opposite gradients: any length given to their balance would be that of an error."""
    for seed in range(20):
        torch.manual_seed(seed)
        g = torch.randn(12, dtype=dtype)
        j = torch.stack([g, -0.3 * g])
        point = torch.nn.Linear(12, 1, bias=False, dtype=dtype)
        optimizer = torch.optim.SGD(point.parameters(), lr=0.1)
        live = Descent(point, optimizer, "MGDA", n_tasks=2, update_norm="mean")
        live.backward((point.weight @ j.T)[0] + 5)
        assert float(point.weight.grad.norm()) < 1e-5 * float(g.norm())


def test_only_tasks_that_were_there_are_looked_at_when_the_epoch_ends():
    module = nn.Linear(2, 2)
    descent = Descent(module, torch.optim.SGD(module.parameters(), lr=0.1), n_tasks=2)
    descent.check_losses([math.nan, math.nan])  # steps looked at their own
    descent._unchecked_tasks = {0}  # as on a device, where they do not
    descent.check_losses([1.0, math.nan])
    descent._unchecked_tasks = {0, 1}
    with pytest.raises(DivergenceError, match="task '1' became nan"):
        descent.check_losses([1.0, math.nan])
    descent.check_losses([1.0, math.nan])  # a new epoch
