"""HolomorphicSharing: HardSharing with complex parameters, holomorphic in every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

HOLOMORPHIC: dict[str, Callable[[Tensor], Tensor]] = {
    "sine": torch.sin,
    "square": torch.square,
    "tanh": torch.tanh,
    "identity": torch.clone,
}
"""Activations by name: all entire but tanh, which has poles at odd multiples of i pi / 2."""


class HolomorphicSharing(nn.Module):
    """A trunk that all tasks share and a linear head a task, with complex weights and biases.

    Outputs are complex numbers f_k, returned as pairs of real columns, Re f_0, Im f_0, Re f_1, ...
    for targets that come in such pairs: ``y.view(float)`` of a C-contiguous complex y (n, K) is
    that table. The mean of the squared errors of a pair is half of |f_k - y_k|^2, a holomorphic
    residual Phi. Parameters are stored as real pairs (..., 2): every engine, optimizer and
    certificate sees real coordinates.

    Parameters
    ----------
    n_features : int
    n_outputs : int
        Real columns, twice the complex outputs; given by the estimator.
    hidden_layer_sizes : sequence of int
        Widths of the trunk's layers, in complex numbers.
    activation : str
        A name of ``HOLOMORPHIC``.

    Raises
    ------
    ValueError
        For an odd ``n_outputs`` or another activation.

    Examples
    --------
    >>> from mtlsk import MultiTaskRegressor
    >>> from mtlsk.modules import HolomorphicSharing
    >>> net = MultiTaskRegressor(module=HolomorphicSharing, module__hidden_layer_sizes=(16,))
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden_layer_sizes: Sequence[int] = (32,),
        activation: str = "sine",
    ) -> None:
        super().__init__()
        if activation not in HOLOMORPHIC:
            raise ValueError(
                f"activation={activation!r} is not allowed; use one of {', '.join(HOLOMORPHIC)}"
            )
        if n_outputs % 2:
            raise ValueError(
                f"there are {n_outputs} target columns; a holomorphic net needs pairs, the real "
                "and the imaginary part of each: y.view(float) of a complex y"
            )
        self.activation = activation
        widths = [n_features, *hidden_layer_sizes]
        layers = pairwise(widths)
        self.trunk = nn.ModuleList(ComplexLinear(a, b) for a, b in layers)
        self.head = ComplexLinear(widths[-1], n_outputs // 2)

    def forward(self, X: Tensor) -> Tensor:
        """Return the outputs (B, n_outputs) of real rows (B, n_features), in pairs."""
        z = torch.complex(X, torch.zeros_like(X))
        for layer in self.trunk:
            z = HOLOMORPHIC[self.activation](layer(z))
        return torch.view_as_real(self.head(z)).flatten(1)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trunk's parameters."""
        return self.trunk.parameters()

    def task_parameters(self, k: int) -> Iterator[nn.Parameter]:
        """Yield the tensors that hold head k: the fused ones; a pair of columns has one row."""
        return self.head.parameters()


class ComplexLinear(nn.Module):
    """W z + b with complex W and b, stored as real tensors (out, in, 2) and (out, 2).

    At the start real and imaginary parts of W are normal with variance 1 / (2 in), b is 0.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 2) / (2 * n_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(n_out, 2))

    def forward(self, z: Tensor) -> Tensor:
        """Return rows (B, out) of rows (B, in), complex."""
        weight, bias = torch.view_as_complex(self.weight), torch.view_as_complex(self.bias)
        return functional.linear(z, weight, bias)
