"""One multi-task descent step, for the estimators and for people with a training loop of their own.

.. code:: python

    descent = Descent(module, optimizer, aggregator="ConicGrad", n_tasks=3)
    for x, y in loader:
        losses = per_task_losses(module(x), y)      # shape (3,)
        descent.backward(losses)                    # fills .grad, lets the controller act
        optimizer.step()
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlsk.aggregators import AGGREGATORS, Aggregator, OnlineDual
from mtlsk.aggregators.online_dual import functions
from mtlsk.autodiff import weighted_gradient
from mtlsk.compatibility import check_engine, losses_only
from mtlsk.controllers import CONTROLLERS, Change, Controller, Live
from mtlsk.engines import (
    Budget,
    Engine,
    Forward,
    Online,
    TaskGradients,
    build_engine,
    check_directions,
    preserves_directions,
    task_directions,
)
from mtlsk.engines.exact import AutogradGradients
from mtlsk.engines.linear import LinearGradients
from mtlsk.gramian import mean_weights
from mtlsk.optimizers import set_option
from mtlsk.record import StepRecord
from mtlsk.taskmap import TaskMap, mapped, mapped_back

UPDATE_NORMS = ("native", "mean")


class DivergenceError(ArithmeticError):
    """A task's loss or gradient is no longer finite: training diverged."""


class Descent:
    """The step: task losses in, gradients of all parameters out.

    With P the task map, G = P J J^T P^T and w = aggregator(G, P L), shared parameters get
    d = J^T P^T w. Task parameters (heads) get the gradient of the mean of P L, each its own task's
    at the mean loss's scale 1/K, so that ``ConicGrad(c=1)`` is the very step of
    ``LinearScalarization()`` for the whole net. Aggregators that need losses only take one
    backward pass of w'P L for everything.

    Parameters
    ----------
    module : torch module
        ``shared_parameters()`` or ``task_parameters(k)`` say which parameters are shared; with
        neither, all are.
    optimizer : torch optimizer
    aggregator, controller, gramian : config grammar, or live objects, which are used as they are
    n_tasks : int
        K.
    task_map : TaskMap or None
        Scale and groups of the tasks.
    update_norm : "native" or "mean"
        ``"mean"`` gives the shared update the length of the mean gradient, |d| = |g0|, as far as
        the engine knows both: budget and features estimate them, weights kept by ``every`` were
        scaled to an earlier |g0|. An update that is zero but for rounding stays it.
    task_names : sequence of str
        Names for error messages.

    Raises
    ------
    DivergenceError
        From :meth:`backward`, when a loss is not finite or, where there is a Gramian, a task's
        gradient over the shared parameters; no ``.grad`` is written. Other gradients are not
        looked at (it would cost a transfer): they show in the next step's losses.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        aggregator: Any = "LinearScalarization",
        controller: Any = None,
        *,
        n_tasks: int,
        gramian: Any = "auto",
        task_map: TaskMap | None = None,
        update_norm: str = "native",
        task_names: Sequence[str] | None = None,
    ) -> None:
        if update_norm not in UPDATE_NORMS:
            raise ValueError(f"update_norm={update_norm!r} is not allowed; use 'native' or 'mean'")
        self.optimizer = optimizer
        self.aggregator: Aggregator = (
            aggregator if isinstance(aggregator, Aggregator) else AGGREGATORS.build(aggregator)
        )
        if isinstance(controller, str) and controller.lower() == "none":
            controller = None
        self.controller: Controller | None = (
            controller
            if controller is None or isinstance(controller, Controller)
            else CONTROLLERS.build(controller)
        )
        self.engine: Engine = gramian if isinstance(gramian, Engine) else build_engine(gramian)
        self.task_map = TaskMap(n_tasks) if task_map is None else task_map
        self.update_norm = update_norm
        self.task_names = list(task_names or (str(k) for k in range(n_tasks)))
        self.shared, self.own = split_parameters(module, n_tasks)
        self.n_steps = 0
        self._tasks: list[int] = []
        self._seen: tuple[list[int], Tensor | None] | None = None  # tasks and map of the last step
        self.kept: tuple[list[int], Tensor, Tensor] | None = None  # (tasks, weights, of heads)
        blind = self._by_hand = self._losses_only()
        self._unchecked = False
        self._unchecked_tasks: set[int] = set()  # of this epoch
        if not blind:
            check_engine(self.engine, self.aggregator, self.own, self.controller)
        check_directions(self.engine, optimizer, blind)
        self.changes: dict[str, Change] = {}
        if self.controller is not None:
            self.controller.bind(self.live)

    @property
    def live(self) -> Live:
        """What the controller may look at."""
        names, shared = tuple(self.task_names), tuple(self.shared)
        return Live(self.optimizer, self.aggregator, self.task_map, names, shared)

    @torch.no_grad()
    def backward(
        self,
        losses: Tensor,
        present: Sequence[bool] | None = None,
        forward: Forward | None = None,
    ) -> StepRecord:
        """Fill ``.grad`` of every parameter and apply what the controller changes.

        Under ``torch.autocast``, or of losses in bfloat16 or float16, Gramian, weights and update
        are computed in float32 and float64 nonetheless; the task gradients have the rounding of
        the forward pass. A ``GradScaler`` would scale what the aggregator sees: use bfloat16.

        Parameters
        ----------
        losses : tensor of shape (K,), with a graph
        present : sequence of K bools, or None for all
            Which tasks have a label in this batch. The losses of the others are ignored, but must
            be finite: a sum over no rows divided by their number puts NaN into every gradient.
        forward : Forward or None
            The outputs behind the losses and which columns are whose: it buys cheaper routes.
        """
        device = losses.device.type
        if torch.is_autocast_enabled(device):  # it would round the products behind G and J^T w
            with torch.autocast(device, enabled=False):
                return self.backward(losses, present, forward)
        if losses.dtype in (torch.bfloat16, torch.float16):  # and the weights with them
            with torch.enable_grad():
                losses = losses.float()
        tasks = [k for k in range(len(losses)) if present is None or present[k]]
        if not tasks:
            raise ValueError("no task has a label in this batch")
        self._tasks = tasks
        if len(tasks) < len(losses):
            forward = None if forward is None else forward.of(tasks)
            with torch.enable_grad():
                losses = losses[tasks]
        p, self.aggregator.active_ = self.task_map.matrix(tasks)
        self._seen = (tasks, p)
        gradients: TaskGradients
        if self._losses_only():  # no engine is needed; a controller may still ask for gradients
            gradients = AutogradGradients(losses, self.shared)
        else:
            gradients = self.engine.differentiate(losses, self.shared, forward, self.own)
            self._by_hand = isinstance(gradients, LinearGradients)
        if isinstance(self.engine, Online) and isinstance(self.aggregator, OnlineDual):
            host, g, back, direction = self._follow_dual(gradients, p, forward)
        else:
            host, g, back, direction = self._solve(gradients, p)
        record = self._record(host, p, g, back, direction)
        self.changes = {}
        if self.controller is not None:
            for name, change in self.controller.adjust(record, gradients).items():
                known = change if isinstance(change, Change) else Change(change)
                self.changes[name] = known
            self.apply({name: change.value for name, change in self.changes.items()})
        if preserves_directions(self.optimizer):
            feed: Any = self.optimizer
            mean = task_directions(gradients, p)
            feed.task_directions = dict(zip(self.shared, mean, strict=True))
        self.n_steps += 1
        return record

    def _solve(
        self, gradients: TaskGradients, p: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor, tuple[Tensor, ...]]:
        """Bring (G, L) to the host, ask for weights and write the gradients they make."""
        losses_only = self._losses_only()
        kept = self._kept_weights()
        host, gramian = self._to_host(gradients, not losses_only and kept is None)
        self._check_finite(host, gramian)
        if kept is None:
            seen = None if gramian is None else mapped(p, gramian)
            weights = self.aggregator.task_weights(
                seen if self.aggregator.needs == "gramian" else None, mapped(p, host)
            )
            if not math.isfinite(float(weights.sum())):
                name = type(self.aggregator).__name__
                raise DivergenceError(f"{name} returned weights {weights.tolist()}: not finite")
            shared = mapped_back(p, self._renormed(weights, seen))
            by_loss = self.aggregator.needs == "losses"
            own = mapped_back(p, weights if by_loss else mean_weights(weights))
            self.kept = (self._tasks, shared, own)
        else:
            shared, own = kept
        if losses_only:  # one backward pass for everything
            whole = weighted_gradient(
                gradients.losses,
                like(shared, gradients.losses),
                (*self.shared, *self.own),
                keep_graph=self.controller is not None or preserves_directions(self.optimizer),
            )
            direction, rest = whole[: len(self.shared)], whole[len(self.shared) :]
        else:
            direction = gradients.combine(like(shared, gradients.losses))
            rest = gradients.combine_own(like(own, gradients.losses), self.own)
        self._write(direction, rest)
        return host, gramian, shared, direction

    def _follow_dual(
        self, gradients: TaskGradients, p: Tensor | None, forward: Forward | None
    ) -> tuple[Tensor, None, Tensor, tuple[Tensor, ...]]:
        """Take g_0 and g_w, write their mix, and move the dual weights against its progress.

        Nothing is looked at here, so nothing is transferred: where losses are on the CPU they are
        checked, elsewhere a loss that is not finite shows when the record is read.
        """
        assert isinstance(self.engine, Online)
        losses = gradients.losses
        host = losses.detach().double()
        self._unchecked = host.is_cuda
        if self._unchecked:
            self._unchecked_tasks.update(self._tasks)
        else:
            self._check_finite(host, None)
        kept = self._kept_weights()
        if kept is not None:
            back = kept[0].to(host.device)
            direction = gradients.combine(like(back, losses))
            self._write(direction, gradients.combine_own(like(kept[1], losses), self.own))
            return host, None, back, direction
        dual = self.aggregator
        assert isinstance(dual, OnlineDual)
        p = p if p is None or not host.is_cuda else like(p, host)
        w = dual.dual_weights(len(losses) if p is None else len(p), host.device)
        w0 = mapped_back(p, mean_weights(w))
        w = mapped_back(p, w)
        pair = self.engine.pair(gradients, self.own, w0, w, forward)
        (s0, b), (_, r) = pair.gram2 if host.is_cuda else pair.gram2.tolist()
        alpha, beta = dual.coefficients(s0, b, r)
        if self.update_norm == "mean":
            f = functions(s0)
            square = alpha**2 * s0 + 2 * alpha * beta * b + beta**2 * r
            there = (square > 1e-28 * s0) & (s0 > 0)  # a length to make longer, and one to take
            scale = f.where(there, f.sqrt(abs(s0 / (square + 1e-300))), 1.0)
            alpha, beta = alpha * scale, beta * scale
        direction = pair.along(alpha, beta)
        dual.advance(mapped(p, pair.progress()), self.engine.dual_lr)
        self._write(direction, pair.own)
        back = w0 * alpha + w * beta
        self.kept = (self._tasks, back, w0)
        return host, None, back, direction

    def _losses_only(self) -> bool:
        return losses_only(self.aggregator, self.update_norm, self.controller)

    def _kept_weights(self) -> tuple[Tensor, Tensor] | None:
        """Return the weights of an earlier step where ``every`` says that they serve this one."""
        if self.n_steps % self.engine.every == 0 or self.kept is None:
            return None
        tasks, shared, own = self.kept
        return (shared, own) if tasks == self._tasks else None

    @property
    def looks_again(self) -> bool:
        """Whether the next step may evaluate the batch again, by ``Forward.again``."""
        return isinstance(self.engine, Online | Budget) and not self._by_hand

    def follow(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Take over a module or optimizer that was replaced, and what was frozen or thawed.

        What is frozen loses its ``.grad``, with which optimizers would step on. Where anything is
        new a controller forgets what it remembers, since it may be of other shapes.
        """
        shared, own = split_parameters(module, self.task_map.n_tasks)
        before, now = (*self.shared, *self.own), (*shared, *own)
        same = len(before) == len(now) and all(map(operator.is_, before, now))
        if same and optimizer is self.optimizer:
            return
        for parameter in before:
            if not parameter.requires_grad:
                parameter.grad = None
        self.shared, self.own, self.optimizer = shared, own, optimizer
        check_directions(self.engine, optimizer, self._losses_only())
        if self.controller is not None:
            self.controller.reset()
            self.controller.bind(self.live)

    def check_losses(self, losses: Sequence[float]) -> None:
        """Raise DivergenceError for an epoch's mean losses (K,), where no step looked at its own.

        That is so for the online engine on a device: looking would make every step wait for it.
        Tasks without a label in the epoch have no loss.
        """
        tasks, self._unchecked_tasks = self._unchecked_tasks, set()
        for k, (name, value) in enumerate(zip(self.task_names, losses, strict=False)):
            if k in tasks and not math.isfinite(value):
                raise DivergenceError(f"the loss of task {name!r} became {value}")

    def observe(self, losses_after: Tensor) -> None:
        """Hand the losses (K,) after the update to an aggregator that asks for them.

        The tasks are those of the last :meth:`backward`; only where the aggregator's
        ``needs_losses_after`` is true is there anything to do.
        """
        if self._seen is None:  # new groups: the losses before the update are forgotten
            return
        tasks, p = self._seen  # the scales before those that a controller has set since
        self.aggregator.observe(mapped(p, losses_after.detach().double().cpu()[tasks]))

    def end_epoch(self) -> None:
        """Tell the aggregator that an epoch has ended; some average over epochs."""
        self.aggregator.end_epoch()

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Make changes to live objects: ``optimizer__*``, ``aggregator__*``, ``task_scale/groups``.

        Those of the optimizer act in this very step (it has not read them yet), the others in the
        next (they have acted already). New groups reset the aggregator: what it remembers is
        indexed by group.
        """
        for name, value in changes.items():
            owner, _, option = name.partition("__")
            if name == "lr":
                set_option(self.optimizer, "lr", value)
            elif owner == "optimizer" and option.startswith("param_groups__"):
                _, group, option = option.split("__", 2)
                set_option(self.optimizer, option, value, [int(group)])
            elif owner == "optimizer" and option:
                set_option(self.optimizer, option, value)
            elif owner == "aggregator" and option:
                self.aggregator.set_params(**{option: value})
                self.aggregator.check_domains()
            elif name == "task_scale":
                self.task_map.scale = value
            elif name == "task_groups":
                before, self.task_map.groups = self.task_map.groups, value
                if self.task_map.groups != before:
                    self.aggregator.reset()
                    self._seen = None
            else:
                raise ValueError(
                    f"{type(self.controller).__name__} changes {name!r}, which is not live; "
                    "allowed: lr, optimizer__*, aggregator__*, task_scale, task_groups"
                )

    def _to_host(self, gradients: TaskGradients, gramian: bool) -> tuple[Tensor, Tensor | None]:
        """Bring (L, G) to the CPU as float64 in one transfer."""
        losses = gradients.losses.detach().double()
        if not gramian:
            return losses.cpu(), None
        k = len(losses)
        host = torch.cat([losses, gradients.gramian().reshape(-1)]).cpu()
        return host[:k], host[k:].reshape(k, k)

    def _check_finite(self, losses: Tensor, gramian: Tensor | None) -> None:
        if math.isfinite(float(losses.sum() if gramian is None else losses.sum() + gramian.sum())):
            return
        squares = torch.zeros_like(losses) if gramian is None else gramian.diagonal()
        for what, values in (("loss", losses), ("squared gradient norm", squares)):
            if not bool(values.isfinite().all()):
                index = int((~values.isfinite()).nonzero()[0])
                name = self.task_names[self._tasks[index]]
                raise DivergenceError(f"the {what} of task {name!r} became {float(values[index])}")

    def _renormed(self, weights: Tensor, gramian: Tensor | None) -> Tensor:
        """Scale weights so that |J^T w| = |g0| where that is asked for and both are not zero.

        A J^T w that is zero but for rounding has no direction to make longer.
        """
        if self.update_norm != "mean" or gramian is None:
            return weights
        w0 = mean_weights(gramian)
        length, wanted = float(weights @ gramian @ weights), float(w0 @ gramian @ w0)
        terms = float(weights.abs() @ gramian.diagonal().clamp_min(0).sqrt()) ** 2
        eps = torch.finfo(self.shared[0].dtype).eps if self.shared else 0.0
        if length <= 4 * len(w0) * eps * terms or wanted <= 0:
            return weights
        return weights * math.sqrt(wanted / length)

    def _write(self, direction: tuple[Tensor, ...], rest: tuple[Tensor, ...]) -> None:
        """Write the gradients of the shared parameters and of the others."""
        for parameter, gradient in zip((*self.shared, *self.own), (*direction, *rest), strict=True):
            parameter.grad = gradient

    def _record(
        self,
        host: Tensor,
        p: Tensor | None,
        gramian: Tensor | None,
        back: Tensor,
        direction: tuple[Tensor, ...],
    ) -> StepRecord:
        tasks, k = self._tasks, self.task_map.n_tasks
        if len(tasks) < k:
            some, host = host, torch.full((k,), math.nan, dtype=torch.float64, device=host.device)
            host[tasks] = some
            some, back = back, torch.zeros(k, dtype=torch.float64, device=back.device)
            back[tasks] = some
        seen = None if gramian is None else mapped(p, gramian)
        return StepRecord(self.n_steps, host, seen, gramian, back, direction, tuple(tasks))


def like(weights: Tensor, losses: Tensor) -> Tensor:
    """Return weights on the losses' device in their dtype, without waiting for it."""
    if losses.is_cuda and not weights.is_cuda:
        return weights.to(losses.dtype).pin_memory().to(losses.device, non_blocking=True)
    return weights.to(losses)


def split_parameters(module: nn.Module, n_tasks: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return (shared, other) trainable parameters of a module by the protocol it follows.

    ``shared_parameters()`` names the shared ones; else what is in ``task_parameters(k)`` of no
    task is shared; with neither method all are. Frozen parameters are in neither list.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    protocol: Any = module
    if hasattr(module, "shared_parameters"):
        shared = {id(p) for p in protocol.shared_parameters()}
    elif hasattr(module, "task_parameters"):
        own = {id(p) for k in range(n_tasks) for p in protocol.task_parameters(k)}
        shared = {id(p) for p in trainable} - own
    else:
        return list(trainable), []
    return [p for p in trainable if id(p) in shared], [p for p in trainable if id(p) not in shared]
