"""Adam and AdamW whose first momentum may change from step to step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor


class VaryingBeta1(torch.optim.Optimizer):
    """Mixin before a ``torch.optim`` Adam: exact bias correction when ``betas[0]`` changes.

    m_t = beta_t m_{t-1} + (1 - beta_t) g_t is corrected by 1 - prod_{i<=t} beta_i, the sum of its
    coefficients; torch corrects by 1 - beta_t^t, which after a change of beta_1 can multiply a
    step many times over. The host's own update runs with lr scaled by the ratio of the two, and
    decoupled weight decay is left alone. While all betas so far are equal the host runs untouched,
    bit for bit.

    Each parameter counts its own steps, as torch does: one without a gradient does not take part.
    """

    corrects_varying_beta1 = True

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` re-evaluates the loss, as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # betas[0] may have been set by what the closure ran, so it is read only now
        groups = self.param_groups
        counted: list[tuple[Tensor, int, float]] = []
        self.param_groups = [part for group in groups for part in self._parts(group, counted)]
        try:
            bound: Any = super().step
            host = bound.__func__
            # torch wraps `step` of every class it builds with hooks: ours has them already
            (host.__wrapped__ if getattr(host, "hooked", False) else host)(self)
        finally:
            self.param_groups = groups
        for p, n_steps, product in counted:  # only now: torch initialises a state that is empty
            self.state[p]["n_steps"], self.state[p]["beta1_product"] = n_steps, product
        return loss

    def _parts(
        self, group: dict[str, Any], counted: list[tuple[Tensor, int, float]]
    ) -> list[dict[str, Any]]:
        """Split a group into parts of one correction each: one part unless steps were skipped."""
        beta = group["betas"][0]
        constant = group.setdefault("constant_beta1", beta)
        group["beta1_varies"] = group.get("beta1_varies", False) or beta != constant
        if not group["beta1_varies"]:
            return [group]
        parts: dict[float, list[Tensor]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if "beta1_product" in state:
                taken, product = state["n_steps"], state["beta1_product"]
            else:  # steps so far, if any, were at the constant
                taken = int(state["step"]) if "step" in state else 0
                product = constant**taken
            counted.append((p, taken + 1, product * beta))
            parts[(1 - beta ** (taken + 1)) / (1 - product * beta)].append(p)
        return [self._rescaled(group, factor, params) for factor, params in parts.items()]

    @staticmethod
    def _rescaled(group: dict[str, Any], factor: float, params: list[Tensor]) -> dict[str, Any]:
        decoupled = group.get("decoupled_weight_decay", False)
        decay = group["weight_decay"] / factor if decoupled else group["weight_decay"]
        return {**group, "params": params, "lr": group["lr"] * factor, "weight_decay": decay}


class Adam(VaryingBeta1, torch.optim.Adam):
    """``torch.optim.Adam`` that stays exact when its first momentum changes during training.

    Takes the parameters of ``torch.optim.Adam`` and is bit for bit equal to it at a constant
    ``betas[0]``.
    """


class AdamW(VaryingBeta1, torch.optim.AdamW):
    """``torch.optim.AdamW`` that stays exact when its first momentum changes during training.

    Takes the parameters of ``torch.optim.AdamW``, but decays no weights unless told to
    (``weight_decay=0.0`` where torch has 0.01); bit for bit equal to it at a constant
    ``betas[0]`` and the same weight decay.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **kwargs)
