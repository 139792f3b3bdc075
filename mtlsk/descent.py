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
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlsk.aggregators import AGGREGATORS, Aggregator
from mtlsk.controllers import CONTROLLERS, Controller
from mtlsk.engines import Engine, TaskGradients, build_engine
from mtlsk.gramian import mean_weights
from mtlsk.optimizers import set_option
from mtlsk.record import StepRecord
from mtlsk.taskmap import TaskMap

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
        ``"mean"`` gives the shared update the length of the mean gradient, |d| = |g0|.
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
        self.changes: Mapping[str, Any] = {}
        if self.controller is not None:
            self.controller.bind(optimizer)

    def backward(self, losses: Tensor, present: Sequence[bool] | None = None) -> StepRecord:
        """Fill ``.grad`` of every parameter and apply what the controller changes.

        Parameters
        ----------
        losses : tensor of shape (K,), with a graph
        present : sequence of K bools, or None for all
            Which tasks have a label in this batch. The losses of the others are ignored, but must
            be finite: a sum over no rows divided by their number puts NaN into every gradient.
        """
        tasks = [k for k in range(len(losses)) if present is None or present[k]]
        if not tasks:
            raise ValueError("no task has a label in this batch")
        self._tasks = tasks
        chosen = losses if len(tasks) == len(losses) else losses[tasks]
        p, active = self.task_map.matrix(tasks)
        gradients = self.engine.differentiate(chosen, self.shared)
        needs_gramian = self.aggregator.needs == "gramian" or self.update_norm == "mean"
        gramian, host = self._to_host(gradients, needs_gramian)
        self._check_finite(host, "loss", tasks)
        if gramian is not None:
            self._check_finite(gramian.diagonal(), "squared gradient norm", tasks)
            gramian = p @ gramian @ p.T
        self.aggregator.active_ = active
        weights = self.aggregator.task_weights(
            gramian if self.aggregator.needs == "gramian" else None, p @ host
        )
        if not bool(weights.isfinite().all()):
            raise DivergenceError(
                f"{type(self.aggregator).__name__} returned weights {weights.tolist()}: not finite"
            )
        back = p.T @ self._renormed(weights, gramian)
        own = p.T @ (weights if self.aggregator.needs == "losses" else mean_weights(p))
        direction = self._write(gradients, back, own)
        record = self._record(losses, host, tasks, gramian, back, direction)
        if self.controller is not None:
            self.changes = self.controller.adjust(record, gradients)
            self.apply(self.changes)
        self.n_steps += 1
        return record

    def observe(self, losses_after: Tensor) -> None:
        """Hand the losses (K,) after the update to an aggregator that asks for them.

        The tasks are those of the last :meth:`backward`; only where the aggregator's
        ``needs_losses_after`` is true is there anything to do.
        """
        p, _ = self.task_map.matrix(self._tasks)
        self.aggregator.observe(p @ losses_after.detach().double().cpu()[self._tasks])

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Make changes to live objects: ``optimizer__*``, ``aggregator__*``, ``task_scale/groups``.

        Those of the optimizer act in this very step (it has not read them yet), the others in the
        next (they have acted already).
        """
        for name, value in changes.items():
            owner, _, option = name.partition("__")
            if name == "lr":
                set_option(self.optimizer, "lr", value)
            elif owner == "optimizer" and option:
                set_option(self.optimizer, option, value)
            elif owner == "aggregator" and option:
                self.aggregator.set_params(**{option: value})
                self.aggregator.check_domains()
            elif name == "task_scale":
                self.task_map.scale = value
            elif name == "task_groups":
                self.task_map.groups = value
            else:
                raise ValueError(
                    f"{type(self.controller).__name__} changes {name!r}, which is not live; "
                    "allowed: lr, optimizer__*, aggregator__*, task_scale, task_groups"
                )

    def _to_host(self, gradients: TaskGradients, gramian: bool) -> tuple[Tensor | None, Tensor]:
        """Bring (G, L) to the CPU as float64 in one transfer."""
        losses = gradients.losses.detach().double()
        if not gramian:
            return None, losses.cpu()
        k = len(losses)
        host = torch.cat([gradients.gramian().reshape(-1), losses]).cpu()
        return host[: k * k].reshape(k, k), host[k * k :]

    def _check_finite(self, values: Tensor, what: str, tasks: list[int]) -> None:
        if bool(values.isfinite().all()):
            return
        index = int((~values.isfinite()).nonzero()[0])
        raise DivergenceError(
            f"the {what} of task {self.task_names[tasks[index]]!r} became {float(values[index])}"
        )

    def _renormed(self, weights: Tensor, gramian: Tensor | None) -> Tensor:
        """Scale weights so that |J^T w| = |g0| where that is asked for and both are not zero."""
        if self.update_norm != "mean" or gramian is None:
            return weights
        w0 = mean_weights(gramian)
        length, wanted = float(weights @ gramian @ weights), float(w0 @ gramian @ w0)
        if length <= 0 or wanted <= 0:
            return weights
        return weights * math.sqrt(wanted / length)

    def _write(self, gradients: TaskGradients, shared: Tensor, own: Tensor) -> tuple[Tensor, ...]:
        """Write J^T w into the shared parameters and the weighted gradient into the others."""
        if self.aggregator.needs == "losses" and self.update_norm == "native":
            # one backward pass for everything
            both = self.engine.differentiate(gradients.losses, (*self.shared, *self.own))
            combined = both.combine(shared)
            direction, rest = combined[: len(self.shared)], combined[len(self.shared) :]
        else:
            direction = gradients.combine(shared)
            rest = self.engine.differentiate(gradients.losses, self.own).combine(own)
        for parameter, gradient in zip((*self.shared, *self.own), (*direction, *rest), strict=True):
            parameter.grad = gradient
        return direction

    def _record(
        self,
        losses: Tensor,
        host: Tensor,
        tasks: list[int],
        gramian: Tensor | None,
        back: Tensor,
        direction: tuple[Tensor, ...],
    ) -> StepRecord:
        all_losses = torch.full((len(losses),), math.nan, dtype=torch.float64)
        all_weights = torch.zeros(len(losses), dtype=torch.float64)
        all_losses[tasks], all_weights[tasks] = host, back
        return StepRecord(self.n_steps, all_losses, gramian, all_weights, direction, tuple(tasks))


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
