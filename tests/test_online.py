"""The online dual in the step: two gradients and a progress instead of a Gramian."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from test_linear_graph import HAND, D, W, conv, made, numbers, trainable
from torch import nn

from mtlsk import MultiTaskRegressor
from mtlsk.aggregators import MGDA, Aggregator, CAGrad, ConicGrad, LinearScalarization
from mtlsk.autodiff import progress_by_double_backward
from mtlsk.descent import Descent, DivergenceError
from mtlsk.engines import ENGINES, Forward, Online, build_engine
from mtlsk.engines import online as online_module
from mtlsk.engines.exact import AutogradGradients
from mtlsk.engines.online import AutogradPair, LinearPair
from mtlsk.estimators.loop import Again, random_state_of
from mtlsk.linear_graph import Columns
from mtlsk.modules import HardSharing
from mtlsk.taskmap import TaskMap

K = W
ENGINE_NAMES = sorted(ENGINES.members())
ONLINE = {
    "MGDA": MGDA,
    "CAGrad": lambda: CAGrad(c=0.7),
    "wide-CAGrad": lambda: CAGrad(c=1.5),
    "ConicGrad": lambda: ConicGrad(c=0.9),
    "wide-ConicGrad": lambda: ConicGrad(c=0.2),
    "mean-ConicGrad": lambda: ConicGrad(c=1.0),
}
COLUMNS = Columns([slice(k, k + 1) for k in range(K)], K)


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **({"rtol": 1e-9, "atol": 1e-11} | tolerance))


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


class Case:
    """A module on one batch of conflicting tasks: its losses, and what is known of them."""

    def __init__(self, make, dtype=torch.float64, n=12):
        self.module = made(make, dtype)
        self.x, self.y = numbers(n, D, dtype=dtype), numbers(n, K, seed=2, dtype=dtype)
        self.y[:, 1] = 3 * self.y[:, 1] - 3 * self.y[:, 0]
        self.rows = []

    def losses(self, outputs, rows=slice(None)):
        return (outputs - self.y[rows]).square().mean(0)

    def again(self, rows):
        self.rows.append(rows)
        some = slice(None) if rows is None else rows
        outputs = self.module(self.x[some])
        return self.losses(outputs, some), outputs

    def forward(self, known=True):
        outputs = self.module(self.x)
        forward = Forward(outputs, COLUMNS, None, self.again) if known else None
        return self.losses(outputs), forward


def descent(module, aggregator="MGDA", lr=1e-2, n_tasks=K, gramian="online", **options):
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    return Descent(module, optimizer, aggregator, n_tasks=n_tasks, gramian=gramian, **options)


def shared_jacobian(live, losses):
    return torch.cat(AutogradGradients(losses, live.shared).jacobian, 1)


def headed(**options):
    return lambda: HardSharing(D, K, (5, 4), activation="tanh", **options)


def headed_conv():
    return HardSharing(D, K, (5,), "tanh", trunk="conv", input_shape=(1, 2, 3))


# the pair


@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("name", HAND)
def test_the_pair_by_hand(name, n):
    case = Case(HAND[name], n=n)
    parameters = trainable(case.module)
    cut = max(1, len(parameters) - 2)
    shared, own = parameters[:cut], parameters[cut:]
    losses, forward = case.forward()
    engine = build_engine("online")
    w0, w = torch.full((K,), 1 / K, dtype=torch.float64), numbers(K).softmax(0)
    gradients = engine.differentiate(losses, shared, forward, own)
    for alpha, beta in MIXES:
        pair = engine.pair(gradients, own, w0, w, forward)
        assert type(pair) is LinearPair
        check_pair(pair, alpha, beta, losses, shared, own, w0, w)
    assert case.rows == []


MIXES = ((0.0, 1.0), (1.0, 0.0), (0.3, -2.0))


def check_pair(pair, alpha, beta, losses, shared, own, w0, w, progress=True):
    j = torch.cat(AutogradGradients(losses, shared).jacobian, 1)
    both = torch.stack([w0, w]).to(j) @ j
    close(pair.gram2, both @ both.T)
    d = pair.along(alpha, beta)
    assert [t.shape for t in d] == [p.shape for p in shared]
    close(flat(d), alpha * both[0] + beta * both[1])
    if progress:
        found = pair.progress()
        assert (found.dtype, found.shape) == (torch.float64, (K,))
        close(found, j @ flat(d))
        close(flat(d), alpha * both[0] + beta * both[1])  # it was left as it was
    assert [p.shape for p in pair.own] == [p.shape for p in own]
    if own:
        rows = torch.cat(AutogradGradients(losses, own).jacobian, 1)
        close(flat(pair.own), w0.to(rows) @ rows)


@pytest.mark.parametrize("make", [conv, headed_conv], ids=["all-shared", "with-heads"])
def test_the_pair_by_autograd_and_a_double_backward_pass(make):
    case = Case(make)
    parameters = list(case.module.parameters())
    shared, own = (parameters, []) if make is conv else (parameters[:-2], parameters[-2:])
    losses, _ = case.forward()
    engine = build_engine("online")
    w0, w = torch.full((K,), 1 / K, dtype=torch.float64), numbers(K).softmax(0)
    gradients = engine.differentiate(losses, shared, None, own)
    for alpha, beta in MIXES:
        pair = engine.pair(gradients, own, w0, w, None)
        assert type(pair) is AutogradPair
        check_pair(pair, alpha, beta, losses, shared, own, w0, w)


def test_the_loss_difference_is_right_to_first_order(monkeypatch):
    case = Case(conv)
    parameters = list(case.module.parameters())
    losses, forward = case.forward()
    j = torch.cat(AutogradGradients(losses, parameters).jacobian, 1)
    w0, w = torch.full((K,), 1 / K, dtype=torch.float64), numbers(K).softmax(0)
    errors = []
    for stride in (1e-2, 5e-3, 2.5e-3):
        monkeypatch.setattr(online_module, "STRIDE", stride)
        engine = build_engine("online")
        gradients = engine.differentiate(losses, parameters, forward)
        pair = engine.pair(gradients, [], w0, w, forward)
        check_pair(pair, 0.4, 0.7, losses, parameters, [], w0, w, progress=False)
        d = flat(pair.direction)
        errors.append(float((pair.progress() - j @ d).norm() / (j @ d).norm()))
    assert 0 < errors[0] < 0.03
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_the_loss_difference_holds_where_the_update_does_not_help_the_mean():
    """The way does not grow without bound as d turns orthogonal to the mean gradient."""
    case = Case(conv)
    parameters = list(case.module.parameters())
    losses, forward = case.forward()
    j = torch.cat(AutogradGradients(losses, parameters).jacobian, 1)
    w0 = torch.full((K,), 1 / K, dtype=torch.float64)
    w = numbers(K).softmax(0)
    g0, g = w0 @ j, w @ j
    engine = build_engine("online")
    before = float(g @ g0 / (g0 @ g0))
    for off in (1e-1, 1e-3, 1e-6, 0.0):
        pair = engine.pair(engine.differentiate(losses, parameters, forward), [], w0, w, forward)
        d = flat(pair.along(off - before, 1.0))
        error = float((pair.progress() - j @ d).norm() / (j @ d).norm())
        assert error < 0.1


def test_double_backward_where_there_is_nothing_to_differentiate():
    case = Case(conv)
    losses, _ = case.forward()
    other = [nn.Parameter(torch.ones(3, dtype=torch.float64))]
    assert progress_by_double_backward(losses, [torch.ones(3)], other).tolist() == [0.0] * K
    assert progress_by_double_backward(losses, [], []).tolist() == [0.0] * K


@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_shared(known):
    case = Case(lambda: HardSharing(D, K, ()))
    live = descent(case.module, MGDA())
    for _ in range(2):
        losses, forward = case.forward(known)
        record = live.backward(losses, None, forward)
        assert record.direction == ()
        own = AutogradGradients(losses, live.own).jacobian
        close(flat(p.grad for p in live.own), torch.cat(own, 1).mean(0))
        assert live.aggregator.dual_.tolist() == pytest.approx([1 / K] * K)


# the step


def update_of(aggregator, g0, g):
    """Return d from the mean gradient and the dual gradient, by each paper's own words."""
    length = g0.norm()
    if isinstance(aggregator, MGDA):
        return g
    if isinstance(aggregator, CAGrad):
        return g0 + aggregator.c * length * g / g.norm()
    c, s = aggregator.c, math.sqrt(1 - aggregator.c**2)
    along = (g @ g0) / length
    aside = g - along * g0 / length
    if along >= c * g.norm() * (1 - 1e-12):
        return g * length / g.norm()
    if c * along + s * aside.norm() <= 0:
        return g0
    return c * g0 + s * length * aside / aside.norm()


def on_simplex(v):
    """Return the nearest point of the simplex, by bisection for the threshold."""
    low, high = float(v.min()) - 1, float(v.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((v - middle).clamp_min(0).sum()) > 1 else (low, middle)
    return (v - high).clamp_min(0)


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("make", [headed(), headed(skip=True), headed_conv])
def test_steps_follow_the_dual_weights(name, make):
    """By hand, and by two backward passes and a double one, against the explicit Jacobian."""
    case, w, scale = Case(make), torch.full((K,), 1 / K, dtype=torch.float64), 0.0
    live = descent(case.module, ONLINE[name](), lr=0.05)
    for _ in range(6):
        losses, forward = case.forward(known=make is not headed_conv)
        j = shared_jacobian(live, losses)
        own = AutogradGradients(losses, live.own).jacobian
        record = live.backward(losses, None, forward)
        g0, g = j.mean(0), w @ j
        d = update_of(live.aggregator, g0, g)
        close(flat(p.grad for p in live.shared), d)
        close(flat(record.direction), d)
        close(record.weights @ j, d)
        close(flat(p.grad for p in live.own), torch.cat(own, 1).mean(0))
        progress = j @ d
        scale = max(0.99 * scale, float(progress.abs().max()))
        w = on_simplex(w - 0.1 * progress / scale)
        close(live.aggregator.dual_, w)
        close(float(live.aggregator.dual_scale_), scale)
        assert record.gramian is None
        assert record.losses.tolist() == losses.tolist()
        live.optimizer.step()
    if name != "mean-ConicGrad":
        assert float((w - 1 / K).abs().max()) > 0.05  # they did move


@pytest.mark.parametrize("name", ["MGDA", "CAGrad", "ConicGrad"])
def test_the_loss_difference_moves_the_dual_weights_nearly_alike(name):
    both = []
    for known in (True, False):
        case = Case(headed_conv)
        live = descent(case.module, ONLINE[name](), lr=0.05)
        for _ in range(6):
            losses, forward = case.forward(known)
            live.backward(losses, None, forward)
            live.optimizer.step()
        both.append(live.aggregator.dual_)
        assert len(case.rows) == (1 + 6 if known else 0)  # one look at whether it repeats itself
    close(*both, atol=0.02, rtol=0)
    assert float((both[0] - 1 / K).abs().max()) > 0.05


@pytest.mark.parametrize("name", ["MGDA", "CAGrad", "wide-ConicGrad", "ConicGrad"])
def test_the_mean_of_the_updates_approaches_the_exact_update(name):
    case = Case(headed())
    live, exact = (descent(case.module, ONLINE[name](), gramian=g) for g in ("online", "auto"))
    losses, forward = case.forward()
    d = flat(exact.backward(losses, None, forward).direction)
    j, errors, total = shared_jacobian(live, losses), [], 0.0
    for step in range(1, 801):
        live.engine.dual_lr = 0.5 / math.sqrt(step)
        total = total + flat(live.backward(losses, None, forward).direction)
        if step in (10, 800):
            errors.append(float((total / step - d).norm() / d.norm()))
    assert errors[1] < 0.06 < errors[0]
    worst = float((j @ total / 800).min())
    assert worst >= float((j @ d).min()) - 0.05 * float((j @ d).abs().max())


@pytest.mark.parametrize("make", [headed(), headed_conv])
def test_weights_kept_move_no_dual_weights(make):
    case = Case(make)
    live = descent(case.module, MGDA(), gramian={"name": "Online", "every": 3})
    duals, weights = [], []
    for _ in range(7):
        losses, forward = case.forward()
        j = shared_jacobian(live, losses)
        record = live.backward(losses, None, forward)
        close(flat(p.grad for p in live.shared), record.weights @ j)
        own = AutogradGradients(losses, live.own).jacobian
        close(flat(p.grad for p in live.own), torch.cat(own, 1).mean(0))
        duals.append(live.aggregator.dual_.tolist())
        weights.append(record.weights.tolist())
        live.optimizer.step()
    assert duals[0] == duals[1] == duals[2] != duals[3] == duals[4] == duals[5] != duals[6]
    assert weights[0] == weights[1] == weights[2] != weights[3]


# task maps and tasks that are absent


@pytest.mark.parametrize("name", ["MGDA", "CAGrad", "ConicGrad"])
@pytest.mark.parametrize("make", [headed(), headed_conv])
def test_task_scale_and_groups_are_those_of_the_losses(name, make):
    scale = [0.5, 0.1, 2.4, 1.0, 1.0, 1.0, 1.0]
    groups = [[0, 2], [1], [6, 3, 4], [5]]
    for task_map, matrix in (
        (TaskMap(K, scale), torch.diag(torch.tensor(scale, dtype=torch.float64))),
        (
            TaskMap(K, groups=groups),
            torch.tensor([[float(k in g) for k in range(K)] for g in groups]),
        ),
    ):
        case, twin = Case(make), Case(make)
        live = descent(case.module, ONLINE[name](), task_map=task_map)
        p = matrix.double() * len(matrix) / K
        other = descent(twin.module, ONLINE[name](), n_tasks=len(p))
        for _ in range(4):
            losses, forward = case.forward(known=make is not headed_conv)
            record = live.backward(losses, None, forward)
            expected = other.backward(p @ twin.forward()[0])
            for mine, theirs in zip(
                case.module.parameters(), twin.module.parameters(), strict=True
            ):
                close(mine.grad, theirs.grad)
            close(record.weights, expected.weights @ p)
            close(record.losses, losses.detach())
            close(live.aggregator.dual_, other.aggregator.dual_)
            live.optimizer.step(), other.optimizer.step()


@pytest.mark.parametrize("make", [headed(), headed_conv])
def test_absent_tasks_keep_their_share(make):
    case = Case(make)
    live, all_here = descent(case.module, MGDA()), [True] * K
    for _ in range(3):
        losses, forward = case.forward()
        live.backward(losses, all_here, forward)
    before = live.aggregator.dual_.clone()
    present = [True, False, True, True, False, True, True]
    here = torch.tensor(present)
    losses, forward = case.forward()
    j = shared_jacobian(live, losses)
    record = live.backward(losses, present, forward)
    after = live.aggregator.dual_
    assert after[~here].tolist() == before[~here].tolist()
    assert not torch.equal(after[here], before[here])
    close(after[here].sum(), before[here].sum())
    share = torch.where(here, before, 0.0) / before[here].sum()
    close(flat(record.direction), share @ j)
    close(record.weights, share)
    assert record.losses.isnan().tolist() == (~here).tolist()
    # a head without a label gets no gradient, the others the mean's over the tasks present
    assert not case.module.head.weight.grad[~here].any()
    rows = AutogradGradients(losses, [case.module.head.weight]).jacobian[0]
    close(case.module.head.weight.grad.flatten(), rows[here].sum(0) / 5)


def test_a_task_seen_for_the_first_time_gets_a_mean_share():
    case = Case(headed())
    live = descent(case.module, MGDA())
    losses, forward = case.forward()
    live.backward(losses, [True, True, True] + [False] * 4, forward)
    assert len(live.aggregator.dual_) == 3
    losses, forward = case.forward()
    record = live.backward(losses, None, forward)
    close(record.weights[3:], torch.full((4,), 1 / 7, dtype=torch.float64))


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("make", [headed(), headed_conv])
def test_with_update_norm_mean_the_update_is_as_long_as_the_mean_gradient(name, make):
    case, twin = Case(make), Case(make)
    live = descent(case.module, ONLINE[name](), lr=0.0, update_norm="mean")
    native = descent(twin.module, ONLINE[name](), lr=0.0)
    for _ in range(3):
        losses, forward = case.forward()
        g0 = shared_jacobian(live, losses).mean(0)
        record = live.backward(losses, None, forward)
        d = flat(record.direction)
        close(float(d.norm()), float(g0.norm()))
        close(record.weights @ shared_jacobian(live, losses), d)
        if live.n_steps == 1:
            other = flat(native.backward(*twin.forward()[:1]).direction)
            close(d / d.norm(), other / other.norm())


class Numbers(nn.Module):
    """One parameter, read by two tasks."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.p.expand(2).unsqueeze(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("aggregator", "dual"), [(MGDA, [0.75, 0.25]), (lambda: CAGrad(c=1.0), [1.0, 0.0])]
)
def test_an_update_without_length_is_not_made_longer(aggregator, dual, dtype):
    module = made(Numbers, dtype)
    for update_norm in ("native", "mean"):
        live = descent(module, aggregator(), n_tasks=2, update_norm=update_norm)
        live.aggregator.dual_ = torch.tensor(dual, dtype=torch.float64)
        live.aggregator.dual_scale_ = torch.tensor(1.0, dtype=torch.float64)
        outputs = module(None)[0]
        live.backward(torch.stack([1 + outputs[0], 2 - 3 * outputs[1]]))
        assert abs(float(module.p.grad)) <= 1e-6


# memory


@pytest.mark.parametrize("make", [headed(), headed_conv])
def test_the_dual_weights_are_saved_and_loaded(make):
    case = Case(make)
    live = descent(case.module, MGDA())
    for _ in range(3):
        losses, forward = case.forward()
        live.backward(losses, None, forward)
    state = live.aggregator.state_dict()
    assert set(state) == {"dual_", "dual_scale_"}
    twin = Case(make)
    twin.module.load_state_dict(case.module.state_dict())
    other = descent(twin.module, MGDA().load_state_dict(state))
    for one, its in ((live, case), (other, twin)):
        losses, forward = its.forward()
        one.backward(losses, None, forward)
    pairs = zip(case.module.parameters(), twin.module.parameters(), strict=True)
    for mine, theirs in pairs:
        close(mine.grad, theirs.grad)
    close(live.aggregator.dual_, other.aggregator.dual_)
    assert state["dual_"].tolist() != live.aggregator.dual_.tolist()  # the copy was left alone
    assert live.aggregator.reset().state_dict() == {}


# what the loss difference leaves behind: nothing


class Drops(nn.Module):
    """Running statistics, dropout, and a counter that is a new tensor at each pass."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        layers = (nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Tanh())
        self.trunk, self.head = nn.Sequential(*layers), nn.Linear(8, n_outputs)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.passes = self.passes + 1
        return self.head(self.trunk(x))

    def shared_parameters(self):
        return self.trunk.parameters()


X = numbers(48, 4, dtype=torch.float32).numpy()
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)


def net(**params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 2, "batch_size": 16, "random_state": 0}
    return MultiTaskRegressor(**{**small, "gramian": "online", "aggregator": "ConicGrad", **params})


def test_looking_again_sees_the_same_and_leaves_nothing():
    ready = net(module=Drops, hidden_layer_sizes=(64, 64)).initialize_for(X, Y)
    module, x, y = ready.module_.train(), torch.from_numpy(X), torch.from_numpy(Y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = random_state_of(torch.device("cpu"))
        outputs = module(x)
        losses, _ = ready.task_losses(outputs, y, x)
        buffers = {n: b.clone() for n, b in module.named_buffers()}
        generator = torch.get_rng_state()
        again = Again(ready, x, y, state, {})
        with torch.no_grad():
            for _ in range(2):
                after, seen = again(None)
                assert torch.equal(after, losses)
                assert torch.equal(seen, outputs)
        assert torch.equal(torch.get_rng_state(), generator)
    assert {n: b.tolist() for n, b in module.named_buffers()} == {
        n: b.tolist() for n, b in buffers.items()
    }
    assert float(module.passes) == 1


def test_parameters_come_back_bit_for_bit():
    case = Case(headed_conv, torch.float32)
    live = descent(case.module, MGDA(), lr=0.0)
    before = [p.detach().clone() for p in case.module.parameters()]
    pointers, moved = [p.data_ptr() for p in case.module.parameters()], []
    again = case.again

    def watched(rows):
        moved.append(not torch.equal(flat(case.module.parameters()), flat(before)))
        return again(rows)

    case.again = watched
    for _ in range(3):
        losses, forward = case.forward()
        live.backward(losses, None, forward)
        found = list(case.module.parameters())
        assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True))
        assert [p.data_ptr() for p in found] == pointers
    assert moved == [False, True, True, True]  # the first is the look at whether it repeats itself


def test_parameters_come_back_where_the_second_pass_breaks():
    case = Case(headed_conv)
    live = descent(case.module, MGDA())
    before = [p.detach().clone() for p in case.module.parameters()]
    losses, forward = case.forward()
    live.backward(losses, None, forward)

    def breaks(rows):
        raise KeyboardInterrupt

    case.again = breaks
    losses, forward = case.forward()
    with pytest.raises(KeyboardInterrupt):
        live.backward(losses, None, forward)
    assert all(torch.equal(a, b) for a, b in zip(case.module.parameters(), before, strict=True))


class Noisy(nn.Module):
    """Random beyond torch's generators."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Conv1d(1, 3, 2), nn.Linear(3 * (D - 1), K)
        self.random = np.random.default_rng(0)

    def forward(self, x):
        noise = torch.from_numpy(self.random.normal(size=x.shape)).to(x)
        return self.head(torch.tanh(self.a((x + 0.1 * noise).unsqueeze(1))).flatten(1))


def test_a_module_that_does_not_repeat_itself_takes_a_double_backward_pass():
    case, w = Case(Noisy), torch.full((K,), 1 / K, dtype=torch.float64)
    live, scale = descent(case.module, MGDA()), 0.0
    for step in range(4):
        losses, forward = case.forward()
        j = shared_jacobian(live, losses)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            live.backward(losses, None, forward)
        assert len(caught) == (step == 0)
        assert all("J d is taken by a double backward pass" in str(c.message) for c in caught)
        progress = j @ (w @ j)
        scale = max(0.99 * scale, float(progress.abs().max()))
        w = on_simplex(w - 0.1 * progress / scale)
        close(live.aggregator.dual_, w)
    assert len(case.rows) == 1


@pytest.mark.parametrize("make", [headed(), headed_conv])
def test_a_loss_that_is_not_finite_moves_no_dual_weights(make):
    case = Case(make)
    live = descent(case.module, MGDA(), task_names=list("abcdefg"))
    losses, forward = case.forward()
    live.backward(losses, None, forward)
    before = live.aggregator.dual_.clone()
    grads = [p.grad.clone() for p in case.module.parameters()]
    losses, forward = case.forward()
    bad = losses * torch.tensor([1.0, 1.0, math.inf, 1.0, 1.0, 1.0, 1.0])
    with pytest.raises(DivergenceError, match="loss of task 'c' became inf"):
        live.backward(bad, None, forward)
    assert torch.equal(live.aggregator.dual_, before)
    assert all(torch.equal(p.grad, g) for p, g in zip(case.module.parameters(), grads, strict=True))


def test_losses_ahead_that_are_not_finite_leave_the_dual_weights_on_the_simplex():
    case = Case(headed_conv)
    live = descent(case.module, MGDA())
    losses, forward = case.forward()
    live.backward(losses, None, forward)
    again = case.again

    def steep(rows):
        losses, outputs = again(rows)
        return losses * math.inf, outputs

    case.again = steep
    losses, forward = case.forward()
    live.backward(losses, None, forward)
    assert bool(live.aggregator.dual_.isfinite().all())
    close(float(live.aggregator.dual_.sum()), 1.0)
    assert math.isfinite(float(live.aggregator.dual_scale_))


def test_a_second_pass_is_prepared_only_where_it_may_be_needed():
    by_hand, other = Case(headed()), Case(headed_conv)
    for case, again in ((by_hand, False), (other, True)):
        live = descent(case.module, MGDA())
        assert live.looks_again  # nothing is known yet
        losses, forward = case.forward()
        live.backward(losses, None, forward)
        assert live.looks_again == again
        for engine in ("auto", "features"):
            assert not descent(case.module, MGDA(), gramian=engine).looks_again
        assert not descent(case.module, "LinearScalarization").looks_again


# which aggregator can use which engine


class Inverse(Aggregator):
    """A third party's, by the whole Gramian."""

    def task_weights(self, gramian, losses):
        w = gramian.diagonal() ** -0.5
        return w / w.sum()


@pytest.mark.parametrize(
    ("aggregator", "words"),
    [
        (Inverse(), ["cannot serve Inverse()", "no online dual"]),
        (ConicGrad(solver="flip"), ["solver='flip'", "no online dual"]),
        (ConicGrad(solver="printed"), ["solver='printed'", "no online dual"]),
    ],
    ids=str,
)
def test_aggregators_without_an_online_dual_are_refused(aggregator, words):
    module = made(headed())
    with pytest.raises(ValueError, match="gramian='online' cannot serve") as caught:
        descent(module, aggregator)
    for word in (*words, "can use: auto, budget, exact, features"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    for engine in ("auto", "budget", "exact", "features"):
        descent(module, aggregator, gramian=engine)


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_aggregators_that_need_losses_only_take_any_engine(engine):
    case = Case(headed())
    live = descent(case.module, LinearScalarization(), gramian=engine)
    losses, forward = case.forward()
    live.backward(losses, None, forward)
    expected = torch.autograd.grad(case.forward()[0].mean(), live.shared + live.own)
    close(flat(p.grad for p in live.shared + live.own), flat(expected))
    weights = LinearScalarization([2.0] * K)
    normed = descent(case.module, weights, gramian=engine, update_norm="mean")
    losses, forward = case.forward()
    normed.backward(losses, None, forward)
    if engine != "Budget":  # whose lengths are those of some rows
        close(flat(p.grad for p in live.shared), flat(expected[: len(live.shared)]))


def test_a_combination_that_is_refused_leaves_a_fitted_net_as_it_was():
    fitted = net().fit(X, Y)
    before = flat(p.detach().clone() for p in fitted.module_.parameters())
    fitted.set_params(aggregator=ConicGrad(solver="flip"))
    with pytest.raises(ValueError, match="no online dual"):
        fitted.fit(X, Y)
    assert torch.equal(flat(fitted.module_.parameters()), before)
    assert len(fitted.history_) == 2


def test_a_live_engine_is_used_as_it_is():
    engine = Online(dual_lr=0.3)
    assert descent(made(headed()), MGDA(), gramian=engine).engine is engine
