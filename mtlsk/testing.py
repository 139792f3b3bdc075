"""The contract of aggregators and controllers as checks, for us and for third parties.

.. code:: python

    from mtlsk.testing import check_aggregator


    def test_mine():
        check_aggregator(InverseNorm())
"""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor

from mtlsk.aggregators import AGGREGATORS, PROPERTIES, Aggregator, OnlineDual
from mtlsk.component import Component, describe
from mtlsk.controllers import CONTROLLERS, Change, Controller
from mtlsk.descent import Descent
from mtlsk.engines import Exact


def gramians(seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield (what it is, Gramian): ordinary, then hostile ones."""
    generator = torch.Generator().manual_seed(seed)

    def rows(k: int, m: int) -> Tensor:
        return torch.randn(k, m, generator=generator, dtype=torch.float64)

    for k in (2, 3, 7):
        j = rows(k, 12)
        yield f"random, K = {k}", j @ j.T
    j = rows(4, 3)
    yield "rank-deficient", j @ j.T
    j = rows(1, 5)
    yield "K = 1", j @ j.T
    j = rows(3, 6)
    yield "duplicated rows", (d := torch.cat([j, j[:1]])) @ d.T
    yield "zero row", (d := torch.cat([j, torch.zeros(1, 6, dtype=torch.float64)])) @ d.T
    yield "opposite rows", (d := torch.cat([j[:1], -j[:1]])) @ d.T
    yield "norm ratio 1e3", (d := j * torch.tensor([[1e3], [1.0], [1.0]])) @ d.T
    yield "|J| = 1e-8", 1e-16 * (j @ j.T)
    yield "all zero", torch.zeros(3, 3, dtype=torch.float64)


def saved_and_loaded(state: Any) -> Any:
    """Return a state as a checkpoint brings it back: tensors, numbers, words, lists and dicts."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def check_component(component: Component, registry: Any) -> None:
    """Check the config grammar: clone, pickle, describe and build, domains, reset, state."""
    component.check_domains()
    name = type(component).__name__
    for other in (
        clone(component),
        pickle.loads(pickle.dumps(component)),
        registry.build(component),
        registry.build(describe(component)),
    ):
        assert type(other) is type(component), f"{name}: another class after a round trip"
        same = repr(describe(other)) == repr(describe(component))
        assert same, f"{name}: parameters changed"


def check_aggregator(aggregator: Aggregator) -> None:
    """Raise AssertionError where an aggregator breaks the contract.

    Checked: clone, pickle and the config grammar; weights of shape (K,), float64 and finite on
    ordinary and hostile Gramians (K = 1, zero and duplicated rows, norm ratios of 1e3, |J| = 1e-8,
    all zero); inputs left as they were; the same answer again after reset and after a state round
    trip; permuted tasks give permuted weights, and random ones come from torch's generator only;
    one unit for all tasks changes no direction; NaN and inf are refused by a ValueError that names
    the task; a float32 Gramian is accepted; what its ``properties`` claim
    (:func:`check_properties`); where there is an online dual, :func:`check_online_dual`.
    """
    check_component(aggregator, AGGREGATORS)
    check_refusals(aggregator)
    check_properties(aggregator)
    name = type(aggregator).__name__
    for what, gramian in gramians():
        k = len(gramian)
        live, params = clone(aggregator), aggregator.get_params()
        per_task = [n for n, d in aggregator.domains.items() if type(d).__name__ == "Simplex"]
        if any(params[n] is not None and len(params[n]) != k for n in per_task):
            continue  # a parameter of one entry a task fits one K only
        losses = torch.linspace(1.0, 2.0, k, dtype=torch.float64)
        before = gramian.clone(), losses.clone()
        weights = _step(live, gramian, losses)
        where = f"{name} on a Gramian: {what}"
        assert weights.shape == (k,), f"{where}: shape {tuple(weights.shape)}, not ({k},)"
        assert weights.dtype == torch.float64, f"{where}: {weights.dtype}, not float64"
        assert bool(weights.isfinite().all()), f"{where}: weights {weights.tolist()}"
        assert torch.equal(gramian, before[0]), f"{where}: changed the Gramian in place"
        assert torch.equal(losses, before[1]), f"{where}: changed the losses in place"

        again = _step(live.reset(), gramian, losses)
        assert torch.equal(again, weights), f"{where}: another answer after reset()"
        for step in range(1, 4):  # the memory of some steps, in which losses fall
            weights = _step(live, gramian, losses * _falling(len(losses)) ** step)
            assert bool(weights.isfinite().all()), f"{where}: weights {weights.tolist()}"

        other = clone(aggregator).load_state_dict(saved_and_loaded(live.state_dict()))
        for _ in range(2):  # what the memory says, and what it becomes
            expected, got = (_step(a, gramian, losses) for a in (live, other))
            same = torch.equal(got, expected)
            assert same, f"{where}: state_dict does not hold all of the memory"

        weights = _call(clone(aggregator), gramian, losses)
        order = torch.arange(k - 1, -1, -1)
        if not aggregator.stochastic and not any(params[n] is not None for n in per_task):
            permuted = _call(clone(aggregator), gramian[order][:, order], losses[order])
            # in the norm of the update: weights of a singular Gramian are not unique
            gap = permuted - weights[order]
            square = float(gap @ gramian[order][:, order] @ gap)
            size = float(gramian.diagonal().max()) * float(weights.abs().max()) ** 2
            assert square <= 1e-10 * size, f"{where}: permuted tasks change the update"
        _call(clone(aggregator), gramian.float(), losses.float())
        if aggregator.unit_free and what.startswith("random"):
            units = _call(clone(aggregator), 1e4 * gramian, 1e2 * losses)
            x, y = (float(w @ gramian @ w) for w in (weights, units))
            along = float(weights @ gramian @ units)
            parallel = along >= 0 and along**2 >= x * y * (1 - 1e-9)
            assert parallel, f"{where}: another direction in another unit for all losses"
        with_zero = losses.clone()
        with_zero[0] = 0.0  # nothing is left to learn
        weights = _call(clone(aggregator), gramian, with_zero)
        assert bool(weights.isfinite().all()), f"{where}, a loss of 0: weights {weights.tolist()}"
    if isinstance(aggregator, OnlineDual) and aggregator.has_online_dual:
        check_online_dual(aggregator)


def check_online_dual(aggregator: OnlineDual) -> None:
    """Raise AssertionError where the online dual of an aggregator breaks its contract.

    Checked on ordinary and hostile Gramians: finite coefficients, the same from floats as from
    tensors, and dual weights that stay on the simplex.
    """
    name = type(aggregator).__name__
    for what, gramian in gramians():
        where = f"{name} online on a Gramian: {what}"
        live: Any = clone(aggregator)
        for _ in range(3):
            w = live.dual_weights(len(gramian))
            w0 = torch.full_like(w, 1 / len(w))
            s0, b, r = w0 @ gramian @ w0, w0 @ gramian @ w, w @ gramian @ w
            mix = [float(x) for x in live.coefficients(float(s0), float(b), float(r))]
            other = [float(x) for x in live.coefficients(s0, b, r)]
            assert all(map(math.isfinite, mix)), f"{where}: coefficients {mix}"
            close = all(abs(x - y) <= 1e-9 * (1 + abs(x)) for x, y in zip(mix, other, strict=True))
            assert close, f"{where}: {mix} from floats, {other} from tensors"
            moved = live.advance(gramian @ (mix[0] * w0 + mix[1] * w))
            total = float(moved.sum())
            inside = bool((moved >= 0).all()) and abs(total - 1) < 1e-9
            assert inside, f"{where}: dual weights {moved.tolist()}"


def check_refusals(aggregator: Aggregator) -> None:
    """Raise AssertionError unless NaN and inf are refused, naming the task, and nothing is kept."""
    name = type(aggregator).__name__
    good, losses = torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for value in (math.nan, math.inf):
        gramian, bad_losses = good.clone(), losses.clone()
        gramian[1, :], gramian[:, 1], bad_losses[1] = value, value, value
        cases = [("loss", good, bad_losses)]
        if aggregator.needs == "gramian":
            cases.append(("gradient", gramian, losses))
        for what, g, values in cases:
            live = clone(aggregator)
            try:
                weights = _call(live, g, values)
            except ValueError as error:
                said = str(error)
                assert "task 1" in said, f"{name}: a {what} of {value} names no task: {said}"
            else:
                raise AssertionError(f"{name}: a {what} of {value} gives {weights.tolist()}")
            assert not live.state_dict(), f"{name}: a {what} of {value} is remembered"


def check_properties(aggregator: Aggregator) -> None:
    """Raise AssertionError where something claimed in ``properties`` does not hold.

    Each is tried on random Gramians of independent, correlated and conflicting gradients of
    different norms; of an aggregator with a memory, in its first and in its fifth call.
    """
    name = type(aggregator).__name__
    unknown = aggregator.properties - set(PROPERTIES)
    assert not unknown, f"{name} claims {sorted(unknown)}; known: {', '.join(PROPERTIES)}"
    for seed in range(12):
        j = gradients(seed)
        for calls in (1, 5):
            for claimed in sorted(aggregator.properties):
                held = holds(claimed, aggregator, j, calls)
                assert held, f"{name} is not {claimed} on gradients({seed}), call {calls}"


def gradients(seed: int, k: int = 3, m: int = 8, ratio: float = 10.0) -> Tensor:
    """Return J (K, m): independent, correlated or conflicting rows in turn, of different norms."""
    generator = torch.Generator().manual_seed(seed)
    j = torch.randn(k, m, generator=generator, dtype=torch.float64)
    common = torch.randn(m, generator=generator, dtype=torch.float64)
    if seed % 3 == 1:
        j = 0.3 * j + common
    if seed % 3 == 2:
        j = j + torch.tensor([1.0, -1.0] * k, dtype=torch.float64)[:k, None] * common
    scales = torch.logspace(0, math.log10(ratio), k, dtype=torch.float64)
    return j * scales[torch.randperm(k, generator=generator), None]


def holds(claimed: str, aggregator: Aggregator, j: Tensor, calls: int = 1) -> bool:
    """Say whether a property of ``PROPERTIES`` holds for the update from J, in its n-th call."""
    losses = torch.linspace(1.0, 2.0, len(j), dtype=torch.float64)

    def update(j: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        live = clone(aggregator)
        for step in range(calls):  # gradients fall to J, or a memory would see none change
            earlier = _falling(len(j))[:, None] ** (step + 1 - calls) * j
            w = _step(live, earlier @ earlier.T, losses * _falling(len(j)) ** step)
        return w, w @ j

    w, d = update(j, losses)
    if claimed == "non-conflicting":
        return bool((j @ d >= -1e-9 * j.norm(dim=1) * d.norm()).all())
    if claimed == "simplex":
        return bool((w >= 0).all()) and math.isclose(float(w.sum()), 1, rel_tol=1e-9)
    if claimed == "mean length":
        return math.isclose(float(d.norm()), float(j.mean(0).norm()), rel_tol=1e-9)
    if claimed == "scale-invariant":
        units = torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64).repeat(len(j))[: len(j)]
        _, other = update(units[:, None] * j, units * losses)
        return bool(torch.allclose(d / d.norm(), other / other.norm(), rtol=1e-6, atol=1e-7))
    if claimed == "stationary":  # all tasks in balance, and two of them while the others agree
        points = (torch.cat([j[:-1], -j[:-1].mean(0, keepdim=True)]), torch.cat([j[:-1], -j[:1]]))
        updates = [update(point, losses)[1].norm() for point in points]
        pairs = zip(updates, points, strict=True)
        return all(float(d) <= 1e-6 * float(point.norm()) for d, point in pairs)
    raise ValueError(f"unknown property {claimed!r}; known: {', '.join(PROPERTIES)}")


def _call(aggregator: Aggregator, gramian: Tensor, losses: Tensor) -> Tensor:
    """Call the aggregator with torch's generator seeded; only a stochastic one may draw from it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed keeps a stack a call for GPUs
        before = torch.get_rng_state()
        w = aggregator.task_weights(gramian if aggregator.needs == "gramian" else None, losses)
        drew = not torch.equal(before, torch.get_rng_state())
    assert aggregator.stochastic or not drew, (
        f"{type(aggregator).__name__} draws random numbers; it must say stochastic = True"
    )
    return w


def _step(aggregator: Aggregator, gramian: Tensor, losses: Tensor) -> Tensor:
    """Call the aggregator in a step that is an epoch of its own and makes the losses fall."""
    weights = _call(aggregator, gramian, losses)
    if aggregator.needs_losses_after:
        aggregator.observe(losses * _falling(len(losses)))
    aggregator.end_epoch()
    return weights


def _falling(n_tasks: int) -> Tensor:
    """Return by how much the losses of the tasks fall in one step: (K,), not alike."""
    return torch.tensor([0.9, 0.7, 0.8], dtype=torch.float64).repeat(n_tasks)[:n_tasks]


def check_controller(
    controller: Controller,
    make_optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    aggregator: Any = "ConicGrad",
) -> None:
    """Raise AssertionError where a controller breaks the contract.

    Checked: clone, pickle and the config grammar; ten steps of a small net with three tasks, and
    with one, with a label missing now and then, in which its changes are live parameters, have
    finite values and give a reason, and its own parameters stay as they were; a state round trip
    in the middle goes on with the same changes; reset forgets.

    Parameters
    ----------
    controller : Controller
    make_optimizer : callable, or None
        Parameters -> optimizer that it can drive; AdamW by default.
    aggregator : config grammar
        An aggregator that it can drive.
    """
    from mtlsk.optimizers import AdamW

    check_component(controller, CONTROLLERS)
    make = make_optimizer or (lambda p: AdamW(p, lr=0.01))
    name, params = type(controller).__name__, repr(controller)
    for n_tasks in (3, 1):
        first, _ = _trace(clone(controller), make, aggregator, n_tasks, None)
        live = clone(controller)
        second, state = _trace(live, make, aggregator, n_tasks, None)
        assert first == second, f"{name}: two runs make other changes"
        saved = saved_and_loaded(state)
        resumed, _ = _trace(clone(controller), make, aggregator, n_tasks, saved)
        assert resumed[5:] == first[5:], f"{name}: state_dict does not hold all of the memory"
        assert repr(live) == params, f"{name}: altered its own parameters"
        again, _ = _trace(live.reset(), make, aggregator, n_tasks, None)
        assert again == first, f"{name}: another run after reset()"
        for changes in first:
            for word, change in changes.items():
                assert change.reason, f"{name}: no reason for a change of {word}"
                values = change.value if isinstance(change.value, list) else [change.value]
                numbers = [v for v in values if isinstance(v, float)]
                assert all(map(math.isfinite, numbers)), f"{name}: {word} = {change.value}"


def _trace(
    controller: Controller,
    make: Callable[[Any], torch.optim.Optimizer],
    aggregator: Any,
    n_tasks: int,
    state: Any,
) -> tuple[list[dict[str, Change]], dict[str, Any]]:
    """Return the changes of ten steps, and the state after five, which ``state`` replaces."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torch.nn.Linear(4, n_tasks)
        x, y = torch.randn(16, 4), torch.randn(16, n_tasks)
    optimizer = make(module.parameters())
    descent = Descent(
        module, optimizer, aggregator, controller, n_tasks=n_tasks, gramian=Exact("autograd")
    )
    changes = []
    middle: dict[str, Any] = {}
    for step in range(10):
        if step == 5:
            middle = copy.deepcopy(controller.state_dict())
            if state is not None:
                descent.controller = controller = clone(controller).load_state_dict(state)
                controller.bind(descent.live)
        present = [k == 0 or step != 3 for k in range(n_tasks)]
        descent.backward(((module(x) - y) ** 2).mean(0), present)
        changes.append(dict(descent.changes))
        descent.optimizer.step()
    return changes, middle
