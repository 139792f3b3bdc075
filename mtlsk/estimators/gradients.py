"""The Gramian of a fitted net's task gradients over whole sets of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from torch import Tensor

from mtlsk.descent import split_parameters
from mtlsk.engines.exact import AutogradGradients, gramian_of
from mtlsk.estimators.batches import SlicedBatches


def gramian_over(
    net: Any, features: NDArray[Any], targets: NDArray[Any], *, chunk: int = 4096
) -> tuple[Tensor, Tensor]:
    """Return (G, L) over rows as a fit holds them; 0 for a task without any label.

    In evaluation mode, ``chunk`` rows at a time; float64, on the CPU.
    """
    labelled = torch.from_numpy((~np.isnan(targets)).sum(0)).clamp_min(1)
    shared, _ = split_parameters(net.module_, len(net.task_names_))
    net._set_training(False)
    losses = torch.zeros(len(net.task_names_), dtype=torch.float64, device=net._device())
    jacobian: list[Tensor] = [torch.zeros((), device=p.device) for p in shared]
    X = features if issparse(features) else torch.from_numpy(features)
    for Xi, yi in SlicedBatches(X, torch.from_numpy(targets), batch_size=chunk):
        part, rows = net.task_losses(net.infer(Xi), yi, Xi)
        part = part * (rows.cpu() / labelled).to(part)
        of_part = AutogradGradients(part, shared).jacobian
        jacobian = [a + b for a, b in zip(jacobian, of_part, strict=True)]
        losses += part.detach()
    return gramian_of(jacobian, losses).cpu(), losses.cpu()
