"""The multi-task path norm of a shallow ReLU net, whose minimum has few neurons, shared ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mtlsk.domains import Interval
from mtlsk.regularizers.base import Rates, Regularizer


def shallow_layers(net: Any) -> tuple[nn.Linear, nn.Linear]:
    """Return the hidden layer and the head of a net of one hidden layer with ReLU.

    Raises
    ------
    ValueError
        For another net.
    """
    module = getattr(net, "module_", net)
    module = getattr(module, "_orig_mod", module)  # of a compiled one
    trunk: Any = getattr(module, "trunk", None)
    head: Any = getattr(module, "head", None)
    if not (isinstance(trunk, nn.Sequential) and isinstance(head, nn.Linear)):
        raise ValueError(f"{type(module).__name__} is not a HardSharing net, nor fitted with one")
    layers: list[Any] = list(trunk)
    if [type(layer) for layer in layers] != [nn.Linear, nn.ReLU]:
        found = ", ".join(type(layer).__name__ for layer in layers) or "nothing"
        raise ValueError(
            f"the trunk is {found}; the path norm is that of one hidden layer with relu: "
            "hidden_layer_sizes=(width,), activation='relu'"
        )
    return layers[0], head


def _norms(hidden: nn.Linear, head: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return |w_k|_2 and |v_k|_2 of each neuron, (H,) each."""
    return hidden.weight.norm(dim=1), head.weight.norm(dim=0)


def multitask_path_norm(net: Any) -> Tensor:
    """Return sum_k |w_k|_2 |v_k|_2 of f(x) = sum_k v_k (w_k'x + b_k)_+ + Ax + c, a number.

    w_k (d,) are a neuron's input weights and v_k (T,) those to all T outputs; b, A and c are free.
    It is the smallest (1/2) sum_k |w_k|^2 + |v_k|^2 among the nets that compute f by the same
    neurons, and reached where |w_k| = |v_k| (:func:`balance`): what weight decay comes to
    minimise. Differentiable.

    Parameters
    ----------
    net : HardSharing of one hidden layer with ReLU, or an estimator fitted with one

    Raises
    ------
    ValueError
        For another net.

    **Reference** arXiv 2410.21696 (the norm); checked.
    """
    inner, outer = _norms(*shallow_layers(net))
    return (inner * outer).sum()


@torch.no_grad()
def balance(module: nn.Module) -> None:
    """Rescale each neuron so that |w_k| = |v_k|; the function stays, weight decay is least there.

    (w_k, b_k, v_k) -> (s w_k, s b_k, v_k / s) with s = sqrt(|v_k| / |w_k|); a neuron with w_k = 0
    or v_k = 0 is left as it is.

    Raises
    ------
    ValueError
        As :func:`multitask_path_norm`.
    """
    hidden, head = shallow_layers(module)
    inner, outer = _norms(hidden, head)
    alive = (inner > 0) & (outer > 0)
    scale = torch.where(alive, outer / inner, torch.ones_like(inner)).sqrt()
    hidden.weight *= scale[:, None]
    if hidden.bias is not None:
        hidden.bias.mul_(scale)
    head.weight /= scale


class PathNorm(Regularizer):
    """R = strength * sum_k |w_k|_2 |v_k|_2, the multi-task path norm: neurons become exactly zero.

    What weight decay does to a shallow ReLU net in the end, without waiting for it. The proximal
    step is taken on one layer and then on the other (each is a group soft threshold):

    v_k <- (1 - lr strength |w_k| / |v_k|)_+ v_k, then w_k <- (1 - lr strength |v_k| / |w_k|)_+ w_k

    A neuron with v_k = 0 has no part in the net; its w_k is left, so that it may come back where
    the loss asks for more than R costs. Two factors that shrink with each other decay like
    exp(-lr strength steps), so neurons of little use take about 1 / (lr strength) steps to be zero.
    (Rescaled to |w_k| = 1 they would take fewer, but a neuron of small w_k and large b_k then has
    gradients so large that the usual learning rates diverge.) ``history_`` gets ``penalty`` (R) and
    ``neurons`` (those with v_k != 0) of each epoch.

    Parameters
    ----------
    strength : float
        In units of the mean loss a unit of path norm.

    Raises
    ------
    ValueError
        For a net that is not one hidden layer with ReLU.

    **Reference** arXiv 2410.21696 (the norm); the two alternating proximal steps are ours: descent
    on each block, with ``"SGD"`` without momentum.
    """

    domains = {"strength": Interval(0.0, float("inf"), log=True, search=(1e-5, 1e-1))}

    def __init__(self, strength: float = 1e-3) -> None:
        self.strength = strength

    def check(self, module: nn.Module) -> None:
        """Raise ValueError for a net that is not one hidden layer with ReLU."""
        shallow_layers(module)

    def penalty(self, module: nn.Module) -> Tensor:
        """Return strength * sum_k |w_k| |v_k|."""
        return self.strength * multitask_path_norm(module)

    @torch.no_grad()
    def shrink(self, module: nn.Module, rates: Rates) -> None:
        """Take the two proximal steps."""
        hidden, head = shallow_layers(module)
        inner, outer = _norms(hidden, head)
        step = rates.get(head.weight, 0.0) * self.strength
        head.weight *= _kept(step * inner, outer)
        outer = head.weight.norm(dim=0)
        step = rates.get(hidden.weight, 0.0) * self.strength
        hidden.weight *= _kept(step * outer, inner)[:, None]

    def statistics(self, module: nn.Module) -> dict[str, float]:
        """Return the penalty and the number of neurons that have a part in the net."""
        _, outer = _norms(*shallow_layers(module))
        return {**super().statistics(module), "neurons": int((outer > 0).sum())}


def _kept(threshold: Tensor, norms: Tensor) -> Tensor:
    """Return the factor of a group soft threshold, (1 - threshold / norm)_+, 0 for norm 0."""
    return torch.where(norms > 0, (1 - threshold / norms.clamp_min(1e-38)).clamp_min(0.0), 0.0)
