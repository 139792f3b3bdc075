"""APT: momentum from the cosine similarity of successive gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtlsk.controllers.base import Change, Controller, Live
from mtlsk.domains import Interval
from mtlsk.engines.base import TaskGradients
from mtlsk.record import StepRecord


class APT(Controller):
    """Momentum beta_t = beta_min + (beta_max - beta_min) (1 + s_t) / 2, s_t = cos(d_t, d_{t-1}).

    d_t is the update direction over the shared parameters that the aggregator made; the first
    step takes beta_min. With an unchanged gradient the momentum is beta_max, with an opposite one
    beta_min. It acts in the very step it is computed in: m_t = beta_t m_{t-1} + (1 - beta_t) d_t.
    On ``"Adam"`` and ``"AdamW"`` it drives ``betas[0]`` with the bias correction
    1 - prod_i beta_i; on ``"SGD"`` momentum and dampening together.
    ``beta_min == beta_max`` is the host optimizer bit for bit.

    The source says that the momentum follows the cosine of successive gradients between two
    bounds; no formula is public: the affine map, the first step and the choice of gradient are our
    reading. It helps where gradients flip abruptly, not in stationary noise.

    Parameters
    ----------
    beta_min, beta_max : float
        Bounds of the momentum, 0 <= beta_min <= beta_max < 1.

    Attributes
    ----------
    previous_ : tensor of shape (M,)
        The last direction over all shared parameters. Memory.
    beta_ : float
        The momentum last set. Memory.

    Raises
    ------
    ValueError
        If the optimizer has no momentum that can be driven exactly.

    **Reference** arXiv 2604.08939 (adaptive momentum from gradient cosines).
    """

    paper = "arXiv 2604.08939"
    domains = {
        "beta_min": Interval(0.0, 1.0, open_high=True, search=(0.0, 0.9)),
        "beta_max": Interval("beta_min", 1.0, open_high=True, search=(0.0, 0.99)),
    }

    previous_: Tensor
    beta_: float

    def __init__(self, beta_min: float = 0.5, beta_max: float = 0.95) -> None:
        self.beta_min = beta_min
        self.beta_max = beta_max

    def bind(self, live: Live) -> None:
        """Find where the optimizer keeps its momentum."""
        super().bind(live)
        optimizer = live.optimizer
        name = type(optimizer).__name__
        group = optimizer.defaults
        if getattr(optimizer, "corrects_varying_beta1", False):
            self._drives_dampening = False
        elif "momentum" in group and "dampening" in group:
            if group.get("nesterov"):
                raise ValueError(
                    f"APT drives momentum and dampening of {name} together, which nesterov=True "
                    "excludes; set optimizer__nesterov=False"
                )
            self._drives_dampening = True
        elif "betas" in group:
            raise ValueError(
                f"APT cannot drive {type(optimizer).__module__}.{name}: its bias correction is "
                "wrong when betas[0] changes; use optimizer='Adam' or 'AdamW', which are exact"
            )
        else:
            raise ValueError(
                f"APT needs a momentum it can drive exactly, with dampening or as betas[0], and "
                f"{name} has none; use 'SGD', 'Adam' or 'AdamW'"
            )

    def adjust(self, record: StepRecord, gradients: TaskGradients) -> Mapping[str, Any]:
        """Return the momentum of this step."""
        s = -1.0  # the first step takes beta_min
        direction = torch.cat([d.reshape(-1) for d in record.direction] or [torch.zeros(0)])
        if getattr(self, "previous_", None) is not None:
            s = cosine(direction, self.previous_)
        self.previous_ = direction
        self.beta_ = momentum(self.beta_min, self.beta_max, s)
        if not self._drives_dampening:
            return {"optimizer__momentum": Change(self.beta_, REASON)}
        # torch keeps no buffer at momentum 0: the smallest positive number is 0 in every product
        beta = self.beta_ if self.beta_min == self.beta_max else max(self.beta_, sys.float_info.min)
        return {
            name: Change(beta, REASON) for name in ("optimizer__momentum", "optimizer__dampening")
        }


REASON = "cosine of successive updates"


def momentum(beta_min: float, beta_max: float, s: float) -> float:
    """Return beta_min + (beta_max - beta_min) (1 + s) / 2, kept in the bounds against rounding."""
    return min(max(beta_min + (beta_max - beta_min) * (1 + s) / 2, beta_min), beta_max)


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two directions (M,), in float64; 0 if either is zero."""
    x, y = a.double(), b.double()  # |d| = 1e-30 must give the same as |d| = 1
    dot: float
    first: float
    second: float
    dot, first, second = torch.stack([x @ y, x @ x, y @ y]).tolist()
    if first == 0 or second == 0:
        return 0.0
    return max(-1.0, min(1.0, dot / math.sqrt(first) / math.sqrt(second)))
