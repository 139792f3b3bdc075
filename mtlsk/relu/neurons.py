"""How far tasks share the neurons of a network with one hidden layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mtlsk.regularizers import shallow_layers


def neuron_sharing(of: Any, tol: float = 1e-3) -> float:
    """Return the mean over active neurons of max_t |v_kt| / |v_k|_1: 1 alone, 1/T shared by all.

    Parameters
    ----------
    of : array of shape (M, T), HardSharing, or a fitted estimator of one
        Output weights v_k, a row a neuron; a net as for ``multitask_path_norm``.
    tol : float
        A neuron is active if |v_k|_2 |w_k|_2 (|v_k|_2 of an array) exceeds this share of the
        largest: trained neurons shrink towards zero without reaching it.

    Raises
    ------
    ValueError
        For arrays of other shapes or not finite, and if all weights are zero.

    **Reference** arXiv 2410.21696.
    """
    if isinstance(of, nn.Module) or hasattr(of, "module_"):
        inner, outer = (la.weight.detach().double().cpu().numpy() for la in shallow_layers(of))
        weights: NDArray[np.float64] = outer.T
        size = np.linalg.norm(weights, axis=1) * np.linalg.norm(inner, axis=1)
    else:
        weights = np.asarray(of, dtype=np.float64)
        if weights.ndim != 2 or not weights.size:
            raise ValueError(f"output weights have the shape {weights.shape}; (neurons, tasks)")
        size = np.linalg.norm(weights, axis=1)
    if not np.isfinite(size).all():
        raise ValueError("some weights are not finite: did the training diverge?")
    if not size.max() > 0:
        raise ValueError("all neurons are zero: there is none that tasks could share")
    active = np.abs(weights[size > tol * size.max()])
    return float((active.max(axis=1) / active.sum(axis=1)).mean())
