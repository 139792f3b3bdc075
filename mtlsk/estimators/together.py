"""Linear scalarizations of one small net trained together, each as it would be on its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlsk import optimizers
from mtlsk.aggregators import AGGREGATORS, LinearScalarization
from mtlsk.descent import DivergenceError
from mtlsk.estimators.device import seed_generators
from mtlsk.estimators.regressor import MultiTaskRegressor
from mtlsk.estimators.stacked import StackedNets, is_stackable
from mtlsk.estimators.targets import Targets
from mtlsk.estimators.validation import check_features
from mtlsk.modules import HardSharing
from mtlsk.optimizers import OPTIMIZERS, optimizer_arguments

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
ELEMENTWISE = {
    *(optimizers.SGD, optimizers.Adam, optimizers.AdamW, *FUSED),
    *(optimizers.NAdam, optimizers.RAdam, torch.optim.NAdam, torch.optim.RAdam),
    *(torch.optim.Adamax, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta),
}
"""Optimizers that move each number by its own gradients alone, by a multiple of lr."""

Member = MultiTaskRegressor | DivergenceError


def why_apart(net: Any) -> str | None:
    """Return what keeps a regressor from being trained together with others, None for nothing."""
    if type(net) is not MultiTaskRegressor:
        return f"a {type(net).__name__} (only MultiTaskRegressor itself: a subclass may differ)"
    named: list[tuple[str, Callable[[], bool], str]] = [
        ("module", lambda: net.module is HardSharing, "HardSharing"),
        ("module__trunk", lambda: getattr(net, "module__trunk", "mlp") == "mlp", "'mlp'"),
        ("aggregator", lambda: _is_linear(net), "'LinearScalarization'"),
        ("controller", lambda: str(net.controller).lower() == "none", "None"),
        ("regularizer", lambda: str(net.regularizer).lower() == "none", "None"),
        ("update_norm", lambda: net.update_norm != "mean", "'native'"),
        ("train_split", lambda: net.train_split is None, "None"),
        ("callbacks", lambda: not net.callbacks or net.callbacks == "disable", "None"),
        ("criterion", lambda: not isinstance(net.criterion, Mapping), "one for all tasks"),
        ("dtype", lambda: net.dtype == "float32", "'float32'"),
        ("compile", lambda: not net.compile, "False"),
        ("optimizer", lambda: OPTIMIZERS.resolve(net.optimizer)[0] in ELEMENTWISE, NAMES),
    ]
    for name, fits, allowed in named:
        if not fits():
            return f"{name}={_word(getattr(net, name))} (only {allowed})"
    for name in vars(net):
        if name.startswith(("callbacks__", "optimizer__param_groups")):
            return f"{name} (only without it)"
    return None


NAMES = ", ".join(sorted({cls.__name__ for cls in ELEMENTWISE}))


def _is_linear(net: Any) -> bool:
    return AGGREGATORS.resolve(net.aggregator)[0] is LinearScalarization


def _word(value: Any) -> str:
    text = value.__name__ if isinstance(value, type) else " ".join(repr(value).split())
    return text if len(text) < 60 else text[:57] + "..."


def fit_together(
    net: MultiTaskRegressor,
    weights: NDArray[np.float64],
    lrs: Sequence[float] | None,
    X: Any,
    y: Any,
) -> list[Member]:
    """Fit P linear scalarizations of one net at once and return each as it would be on its own.

    Member p minimises sum_k w_pk L_k from the net's own initial parameters, over its own batches,
    with lr_p: up to rounding what ``fit`` makes of the net with ``LinearScalarization(w_p)``.
    Losses of the members add up to one number, whose gradient is each member's own, and one
    optimizer steps on the stacked parameters, number by number. On one thread a member comes out
    the same to the bit whoever is trained beside it (with ``lrs`` given or not: those two differ).
    Rounding is not always small in the end: where a learning rate is near the edge of stability a
    long training multiplies it, as it does that of X.

    Parameters
    ----------
    net : MultiTaskRegressor
        Initialised for X and y and not trained, one for which :func:`why_apart` returns None.
    weights : (P, K)
    lrs : P floats, or None
        None is the net's own for all.
    X, y : as for ``fit``

    Returns
    -------
    list of P
        A fitted net with history, optimizer state and parameters of its own, ``aggregator`` and
        ``lr`` set; or for a member that diverged the DivergenceError that its ``fit`` would raise.

    Raises
    ------
    ValueError
        For wrong input or parameters.
    """
    if not is_stackable(net.module_):
        raise ValueError(f"activation={net.activation!r} cannot be trained together with others")
    features = check_features(net, X, reset=False)
    given = Targets(y)
    given.check_rows(features)
    targets = given.of(net.tasks_, net.dtype)
    labelled = ~np.isnan(targets).all(axis=1)
    if not labelled.all():  # as in fit: a row without any label teaches nothing
        features, targets = features[labelled], targets[labelled]
    run = _Run(net, weights, lrs)
    with net._seeded(net.seed_):
        run.train(features, targets)
    return [run.member(p) for p in range(len(weights))]


class _Run:
    """One training of P members; what it remembers of each ends up in that member."""

    def __init__(
        self, net: MultiTaskRegressor, weights: NDArray[np.float64], lrs: Sequence[float] | None
    ) -> None:
        self.net = net
        self.weights = weights
        self.each = lrs is not None
        own = float(net.optimizer_.param_groups[0]["lr"])
        self.rates = [own] * len(weights) if lrs is None else [float(lr) for lr in lrs]
        self.device = net._device()
        self.nets = StackedNets(net.module_, len(weights))
        scale = np.ones(weights.shape[1]) if net.task_map_.scale is None else net.task_map_.scale
        self.factors = torch.tensor(weights * scale, dtype=self.nets.flat.dtype, device=self.device)
        self.optimizer, self.shares = self._optimizer()
        self.before = torch.empty_like(self.nets.flat)
        self.dead: dict[int, str] = {}  # member -> what became of it
        self.history: list[dict[str, Any]] = []
        self.n_steps = 0
        self.missing = False

    def _optimizer(self) -> tuple[torch.optim.Optimizer, Tensor | None]:
        """Return the optimizer, and where each member has its rate its share of a step."""
        net = self.net
        args, kwargs = net.get_params_for_optimizer("optimizer", [("flat", self.nets.flat)])
        cls, kwargs = optimizer_arguments(net.optimizer, kwargs)
        # a step is a multiple of lr: one of rate 1 is made and a share of it taken, so that no
        # member's rounding depends on the rates of the others
        kwargs["lr"] = 1.0 if self.each else self.rates[0]
        chosen = {"fused", "foreach", "capturable", "differentiable"} & set(kwargs)
        if issubclass(cls, FUSED) and not chosen and self.device.type in ("cpu", "cuda"):
            kwargs["fused"] = True
        optimizer = cls(*args, **kwargs)
        return optimizer, self.nets.per_member(torch.tensor(self.rates)) if self.each else None

    # ---- training

    def train(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        """Train all members; torch's generator must be the net's own."""
        dataset = self.net.get_dataset(X, y)
        batches = self.net.get_iterator(dataset, training=True)
        self.missing = bool(np.isnan(y).any())
        for epoch in range(1, self.net.max_epochs + 1):
            # as the net itself does, so that its shuffles are the members'
            seeds = np.random.SeedSequence([self.net.seed_, epoch])
            seed_generators(int(seeds.generate_state(1)[0]), self.device)
            self._epoch(epoch, batches)
            if len(self.dead) == len(self.weights):
                return
        for p in (~self.nets.finite()).nonzero()[:, 0].tolist():
            self._bury(p, "a parameter is not finite after the last step", self.net.max_epochs)

    def _epoch(self, epoch: int, batches: Any) -> None:
        """Take one pass over the data and look at its losses once, at the end."""
        losses, rows, sizes = [], [], []
        for Xi, yi in batches:
            Xi, yi = (torch.as_tensor(a).to(self.device) for a in (Xi, yi))
            there = (~yi.isnan()).sum(0) if self.missing else yi.new_full(yi.shape[1:], len(yi))
            losses.append(self._step(Xi, yi, there))
            rows.append(there)
            sizes.append(len(yi))
        if not losses:
            self.history.append({"epoch": epoch})
            return
        self.n_steps += len(sizes)
        self._record(
            epoch,
            torch.stack(losses).double().cpu().numpy(),
            torch.stack(rows).double().cpu().numpy(),
            np.array(sizes, dtype=np.float64),
        )

    def _step(self, X: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """Take one step of every member and return the losses (P, K) before it."""
        losses = torch.empty_like(self.factors)
        divisor = rows.clamp_min(1)

        def loss(outputs: Tensor, members: slice) -> Tensor:
            of_task = self._task_losses(outputs, y) / divisor
            losses[members] = of_task.detach()
            return (of_task * self.factors[members]).sum()

        self.nets.accumulate(X, loss)
        if self.shares is None:
            self.optimizer.step()
        else:
            self.before.copy_(self.nets.flat)
            self.optimizer.step()
            torch.lerp(self.before, self.nets.flat, self.shares, out=self.nets.flat)
        return losses

    def _task_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the sum over the labelled rows of each task's loss, (p, K)."""
        size, n_rows, width = outputs.shape
        labels = y.expand(size, *y.shape).reshape(-1, width)
        if self.missing:
            each, mask = self.net.element_losses(outputs.reshape(-1, width), labels)
            each = torch.where(mask, each, 0.0) if each.shape == mask.shape else each
        else:  # one call for all members and tasks
            each = self.net.criterion_[0](outputs.reshape(-1, 1), labels.reshape(-1))
        if each.numel() != labels.numel():
            raise ValueError(
                f"the losses have shape {tuple(each.shape)} for {labels.numel()} labels; a "
                "criterion must return one loss a row, without reduction"
            )
        return each.view(size, n_rows, -1).sum(1)

    def _record(
        self,
        epoch: int,
        losses: NDArray[np.float64],
        rows: NDArray[np.float64],
        sizes: NDArray[np.float64],
    ) -> None:
        """Keep an epoch's means, and mark members with a loss that is not finite.

        ``losses`` (steps, P, K), labelled ``rows`` (steps, K), ``sizes`` of the batches (steps,).
        """
        for p in np.flatnonzero(~np.isfinite(losses).all(axis=(0, 2))):
            step, task = np.argwhere(~np.isfinite(losses[:, p]))[0]
            name, value = self.net.task_names_[task], losses[step, p, task]
            self._bury(int(p), f"the loss of task {name!r} became {value}", epoch)
        present = rows > 0
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            of_task = np.einsum("spk,sk->pk", losses, rows) / rows.sum(0)
            of_batch = (losses * present[:, None]).sum(2) / present.sum(1)[:, None]
            mean = sizes @ of_batch / sizes.sum()
        shares = present.mean(axis=0)  # a task takes part in batches that have a label of it
        scale = self.net.task_map_.scale
        acting = self.weights * shares * (1.0 if scale is None else np.asarray(scale))
        self.history.append(
            {"epoch": epoch, "train_loss": mean, "train_losses": of_task, "task_weights": acting}
        )

    def _bury(self, p: int, what: str, epoch: int) -> None:
        lr = self.rates[p]
        self.dead.setdefault(
            p,
            f"training diverged: {what} in epoch {epoch} at lr={lr:g}; "
            f"try a smaller lr, e.g. lr={lr / 10:g}, and standardise X and y",
        )

    # ---- taking a member out

    def member(self, p: int) -> Member:
        """Return member ``p`` as a net of its own, or what became of it."""
        if p in self.dead:
            return DivergenceError(self.dead[p])
        net = twin(self.net)
        spec = {"name": "LinearScalarization", "weights": self.weights[p].tolist()}
        net.set_params(aggregator=spec, **({"lr": self.rates[p]} if self.each else {}))
        with torch.no_grad():
            own = dict(net.module_.named_parameters())
            for name, value in self.nets.member(self.nets.flat, p).items():
                own[name].copy_(value)
        for key, value in self.optimizer.state[self.nets.flat].items():
            for name, part in self._parts(net, value, p).items():
                net.optimizer_.state[own[name]][key] = part
        net.n_steps_ = self.n_steps
        for row in self.history:
            net.history_.new_epoch()
            for name, number in row.items():
                net.history_.record(name, number if name == "epoch" else number[p].tolist())
        return net

    def _parts(self, net: MultiTaskRegressor, value: Any, p: int) -> dict[str, Any]:
        """Return what of an entry of the optimizer's state belongs to each parameter of ``p``."""
        if isinstance(value, Tensor) and value.shape == self.nets.flat.shape:
            layout = torch.contiguous_format
            parts = self.nets.member(value, p).items()
            return {name: part.clone(memory_format=layout) for name, part in parts}
        if isinstance(value, Tensor):  # the number of steps
            group = net.optimizer_.param_groups[0]
            value = value if group.get("fused") or group.get("capturable") else value.cpu()
        return {name: copy.deepcopy(value) for name in self.nets.shapes}


def twin(net: MultiTaskRegressor) -> MultiTaskRegressor:
    """Return a deep copy of a net, without the detour over a file that skorch's own takes."""
    other: MultiTaskRegressor = object.__new__(type(net))
    other.__dict__.update(copy.deepcopy(vars(net), {id(net): other}))
    return other
