"""Muon: orthogonalised momentum for hidden weights, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtlsk.component import closest
from mtlsk.domains import Choice, Domain, Interval
from mtlsk.gramian import effective_rank
from mtlsk.optimizers.adam import AdamW, VaryingBeta1
from mtlsk.optimizers.orthogonal import STEPS, orthogonalize_all

OF_MATRICES = {"momentum", "nesterov", "ns_steps", "direction_preservation"}
"""Options that only a group of matrices has."""

OF_BOTH = {"lr", "weight_decay"}
"""Options that every group has; all others are of AdamW's groups only."""


class Muon(AdamW):
    """Step along the orthogonalised momentum of each hidden weight matrix.

    M_t = beta M_{t-1} + (1 - beta) g_t; with Nesterov's look-ahead N_t = beta M_t + (1 - beta) g_t
    instead of M_t. W <- (1 - lr decay) W - lr sqrt(max(1, rows / cols)) O(N_t), O by
    :func:`~mtlsk.optimizers.orthogonal.orthogonalize`, about U V' of N_t = U S V'. Every singular
    direction moves alike, however small the task gradients behind it: where tasks have directions
    of their own, Muon equalises them. O does not feel the length of N_t, so M_t needs no bias
    correction, at a changing momentum neither.

    Parameters that are no matrices, and those said to be none of Muon's (heads, embeddings), are
    stepped by :class:`~mtlsk.optimizers.AdamW` of ``adamw_lr``, ``betas`` and ``eps``.

    Which is which: a group with ``use_muon`` (True or False) is taken at its word, for True all
    must be 2-D. Of plain parameters, and of a group without that key, the 2-D ones are Muon's and
    the others AdamW's: two groups. An ``lr`` that a group has is that of all its parameters,
    unless it has an ``adamw_lr`` too. The estimators give Muon the weights of nn.Linear layers in
    the shared trunk (:func:`hidden_weights`); ``optimizer__param_groups=[("name*", {"use_muon":
    False})]`` overrides it.

    Direction preservation: with rho > 0 what is orthogonalised is, for each matrix,
    N_t + rho |N_t|_F (1/K) sum_k g_k / |g_k|_F, g_k the task gradients of this step over it. The
    multi-task step (:class:`~mtlsk.Descent`) hands these means over in ``task_directions`` before
    ``step()``; matrices that are not shared have none and are stepped as with rho = 0.

    The paper of APT speaks of a light direction preservation for Muon; its formula is not public,
    this one is our reading (rho about .05 to .2). Ours, too: ``adamw_lr`` (the source's example
    has 3e-4 and betas (.9, .95) for language models).

    Parameters
    ----------
    params : iterable of parameters or of groups
    lr : float
        Of the matrices.
    momentum : float in [0, 1)
    nesterov : bool
    ns_steps : int
        Newton-Schulz iterations.
    weight_decay : float
        Decoupled, of both parts.
    direction_preservation : float in [0, inf)
        rho; 0 is plain Muon, to the bit, and asks for nothing.
    adamw_lr, betas, eps
        Of the AdamW part.
    foreach, fused : bool or None
        As in torch, of the AdamW part.

    Attributes
    ----------
    task_directions : dict of parameter -> tensor, or None
        (1/K) sum_k g_k / |g_k|_F, for one step.

    Raises
    ------
    ValueError
        For an option out of its domain, or a parameter in a group of Muon's that is not 2-D.
    RuntimeError
        From :meth:`step` with ``direction_preservation`` when ``task_directions`` were not given.

    **Reference** Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024
    (the update, its defaults and the scale); arXiv 2604.08939 (direction preservation).
    """

    domains: ClassVar[Mapping[str, Domain]] = {
        "lr": Interval(0.0, math.inf, log=True, search=(1e-3, 0.1)),
        "momentum": Interval(0.0, 1.0, open_high=True, search=(0.5, 0.99)),
        "nesterov": Choice(True, False),
        "ns_steps": Interval(1, 100, integer=True, search=(3, 8)),
        "weight_decay": Interval(0.0, math.inf, search=(0.0, 0.1)),
        "direction_preservation": Interval(0.0, math.inf, search=(0.0, 0.3)),
        "adamw_lr": Interval(0.0, math.inf, log=True, search=(3e-4, 3e-2)),
    }
    task_directions: Mapping[Tensor, Tensor] | None = None

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = STEPS,
        weight_decay: float = 0.0,
        direction_preservation: float = 0.0,
        adamw_lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "weight_decay": weight_decay,
            "direction_preservation": direction_preservation,
            "adamw_lr": adamw_lr,
        }
        check(options)
        nothing = [nn.Parameter(torch.zeros(1))]  # torch checks AdamW's options and completes them
        host = AdamW(nothing, adamw_lr, betas, eps, weight_decay, foreach=foreach, fused=fused)
        # not AdamW's __init__: with fused it says that the optimizer can unscale gradients
        torch.optim.Optimizer.__init__(self, params, {**host.defaults, **options})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as two where its parameters are of both kinds."""
        if "use_muon" not in param_group:
            for part in split(param_group, lambda p: p.ndim == 2):
                self.add_param_group(part)
            return
        group = dict(param_group)
        of_muon, params = group["use_muon"], group["params"]
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        adamw = set(self.defaults) - OF_MATRICES - {"adamw_lr"}
        valid = OF_MATRICES | OF_BOTH if of_muon else adamw
        if of_muon:
            check_matrices(group["params"])
        else:
            lr = group.pop("adamw_lr", group.get("lr", self.defaults["adamw_lr"]))
            group["lr"] = lr
        for name in set(group) & set(self.defaults) - valid:
            raise ValueError(
                f"Muon: a group with use_muon={of_muon} has no option {name!r}; "
                f"its options: {', '.join(sorted(valid))}"
            )
        check({name: group[name] for name in valid & set(group)})
        super().add_param_group(group)
        for name in set(self.defaults) - valid:  # torch fills in what another kind has
            self.param_groups[-1].pop(name, None)
        if of_muon:
            self.param_groups[-1] = OfMatrices(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was saved; torch's completion of old states concerns AdamW's groups."""
        groups = state["param_groups"]
        others = [g for g in groups if not g["use_muon"]]
        super().__setstate__({**state, "param_groups": others})  # type: ignore[no-untyped-call]
        self.param_groups = [OfMatrices(g) if g["use_muon"] else g for g in groups]

    @property
    def preserves_directions(self) -> bool:
        """Whether :meth:`step` asks for ``task_directions``."""
        return any(g["use_muon"] and g["direction_preservation"] > 0 for g in self.param_groups)

    def option_places(self, name: str) -> list[tuple[dict[str, Any], str]]:
        """Return where an option of the whole optimizer lives: groups, and the key in each.

        ``lr``, ``momentum`` and the like are the matrices', ``betas`` and ``eps`` AdamW's,
        ``adamw_lr`` its ``lr``, ``weight_decay`` of both: as in the constructor.
        """
        if name not in self.defaults:
            valid = sorted(self.defaults)
            raise ValueError(
                f"optimizer {type(self).__name__} has no option {name!r}{closest(name, valid)}; "
                f"valid options: {', '.join(valid)}"
            )
        key = "lr" if name == "adamw_lr" else name
        of_muon = name == "lr" or name in OF_MATRICES
        everywhere = name == "weight_decay"
        return [(g, key) for g in self.param_groups if everywhere or g["use_muon"] == of_muon]

    def statistics(self) -> dict[str, float]:
        """Return ``effective_rank``, the mean over the momentum matrices, where there are any."""
        buffers = [
            self.state[p]["momentum_buffer"]
            for group in self.param_groups
            if group["use_muon"]
            for p in group["params"]
            if "momentum_buffer" in self.state.get(p, {})
        ]
        ranks = [effective_rank(buffer) for buffer in buffers]
        return {"effective_rank": sum(ranks) / len(ranks)} if ranks else {}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` re-evaluates the loss, as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        directions, self.task_directions = self.task_directions, None
        if directions is None and self.preserves_directions:
            raise RuntimeError(
                "Muon: direction_preservation > 0 needs the task gradients of every step; train by "
                "Descent or a MultiTask estimator, set optimizer.task_directions, or set it to 0"
            )
        groups = self.param_groups
        self._step_matrices([g for g in groups if g["use_muon"]], directions or {})
        self.param_groups = [g for g in groups if not g["use_muon"]]
        try:
            if self.param_groups:  # not AdamW.step, which torch may have wrapped with hooks
                VaryingBeta1.step(self)
        finally:
            self.param_groups = groups
        return loss

    @torch.no_grad()
    def _step_matrices(
        self, groups: list[dict[str, Any]], directions: Mapping[Tensor, Tensor]
    ) -> None:
        by_steps: dict[int, list[tuple[Tensor, Tensor, float]]] = {}
        for group in groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            moved = self._momenta(params, group)
            lr, rho = float(group["lr"]), group["direction_preservation"]
            for p, n in zip(params, moved, strict=True):
                n = preserved(n, directions[p], rho) if rho > 0 and p in directions else n
                scale = math.sqrt(max(1.0, p.shape[0] / p.shape[1]))
                by_steps.setdefault(group["ns_steps"], []).append((p, n, -lr * scale))
            if group["weight_decay"] != 0:
                torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        for ns_steps, entries in by_steps.items():
            ways = orthogonalize_all([n for _, n, _ in entries], ns_steps)
            for (p, _, factor), way in zip(entries, ways, strict=True):
                p.add_(way, alpha=factor)

    def _momenta(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Move the momenta M of a group and return what is to be orthogonalised, M or N."""
        buffers = []
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                if p.grad is not None and p.grad.is_sparse:
                    raise RuntimeError(
                        "Muon does not take sparse gradients; give the parameter use_muon=False"
                    )
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers.append(self.state[p]["momentum_buffer"])
        grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
        beta = group["momentum"]
        torch._foreach_lerp_(buffers, grads, 1 - beta)
        if not group["nesterov"]:
            return buffers
        return list(torch._foreach_lerp(grads, buffers, beta))


class OfMatrices(dict[str, Any]):
    """A group of matrices, whose momentum is also what schedules find under ``betas``.

    torch's schedules that turn the momentum (OneCycleLR, CyclicLR) take an optimizer with
    ``betas`` for an Adam and set ``betas[0]`` of every group.
    """

    def __missing__(self, name: str) -> Any:
        if name == "betas":
            return (self["momentum"],)
        raise KeyError(name)

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "betas":
            name, value = "momentum", value[0]
        super().__setitem__(name, value)


def preserved(moved: Tensor, direction: Tensor, rho: float) -> Tensor:
    """Return N + rho |N|_F D for the mean D of unit task gradients."""
    return torch.addcmul(moved, rho * torch.linalg.vector_norm(moved), direction)


def check(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option of Muon's that is out of its domain."""
    for name, value in options.items():
        domain = Muon.domains.get(name)
        if domain is not None and value not in domain:
            raise ValueError(f"Muon: {name}={value!r} is not allowed; {name} must be {domain}")


def check_matrices(params: Iterable[Any]) -> None:
    """Raise ValueError unless all parameters are 2-D."""
    for p in params:
        if tensor_of(p).ndim != 2:
            raise ValueError(
                f"Muon: use_muon=True is for matrices, not for a parameter of shape "
                f"{tuple(tensor_of(p).shape)}; give it a group with use_muon=False"
            )


def tensor_of(parameter: Any) -> Tensor:
    """Return the tensor of a parameter, which torch also takes with a name before it."""
    found: Tensor = parameter[1] if isinstance(parameter, tuple) else parameter
    return found


def hidden_weights(module: nn.Module, shared: Iterable[Tensor]) -> list[Tensor]:
    """Return the weights of nn.Linear layers among a module's shared parameters.

    They are what Muon is for. Heads, biases, norms and embeddings are not among them. Where no
    parameter is a task's own, nothing says which layer makes the outputs: the last nn.Linear in
    the order of definition is taken for it and left out (ours).
    """
    ids = {id(p) for p in shared}
    weights = [m.weight for m in module.modules() if isinstance(m, nn.Linear)]
    if all(id(p) in ids for p in module.parameters() if p.requires_grad):
        weights = [w for w in weights if w is not weights[-1]]
    found = {id(w): w for w in weights if id(w) in ids}  # a layer used twice has one weight
    return list(found.values())


def muon_groups(params: Iterable[Any], hidden: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Return parameters or groups as groups for :class:`Muon`, ``hidden`` the matrices for it.

    A group that says ``use_muon`` itself is left as it is.
    """
    wanted = {id(p) for p in hidden}
    entries = list(params)
    if not entries or not isinstance(entries[0], dict):
        entries = [{"params": entries}]
    groups: list[dict[str, Any]] = []
    for group in entries:
        parts = [group] if "use_muon" in group else split(group, lambda p: id(p) in wanted)
        groups += parts
    return groups


def split(group: Mapping[str, Any], is_matrix: Callable[[Tensor], bool]) -> list[dict[str, Any]]:
    """Return a group as one of Muon's and one of AdamW's, each with the options it has."""
    params = group["params"]
    params = [params] if isinstance(params, Tensor) else list(params)
    parts = []
    for kind in (True, False):
        part = [p for p in params if is_matrix(tensor_of(p)) == kind]
        given = {k: v for k, v in group.items() if kind or k not in OF_MATRICES}
        if kind:
            of_adamw = {"adamw_lr", "betas", "eps", "foreach", "fused"}
            given = {k: v for k, v in given.items() if k not in of_adamw}
        if part:
            parts.append({**given, "params": part, "use_muon": kind})
    return parts
