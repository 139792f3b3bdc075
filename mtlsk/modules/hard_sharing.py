"""HardSharing, the default module: a trunk that all tasks share and a linear head a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "logistic": nn.Sigmoid,
    "identity": nn.Identity,
}


class HardSharing(nn.Module):
    """A trunk shared by all tasks and one linear head a task, the heads fused in one layer.

    f(x) = V trunk(x) + v (+ A x if ``skip``): column slices of f belong to tasks.

    Parameters
    ----------
    n_features : int
    n_outputs : int
        Sum of the widths of all tasks.
    hidden_layer_sizes : sequence of int
        Widths of the trunk's layers; empty for a linear model without shared parameters.
    activation : str
        A name of ``ACTIVATIONS``; ``"identity"`` makes the trunk linear.
    bias : bool
        Whether the trunk's layers and the head have biases.
    skip : bool
        Add an affine map from the inputs straight to each head.
    trunk : "mlp" or "conv"
        ``"conv"`` sees each row as an image of ``input_shape``: two 3 x 3 convolutions of 16 and
        32 channels with the activation, the second of stride 2, before the layers.
    input_shape : (channels, height, width) or None
        Needed by ``trunk="conv"``; its product must be ``n_features``.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        activation: str = "relu",
        bias: bool = True,
        skip: bool = False,
        trunk: str = "mlp",
        input_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation={activation!r} is not allowed; use one of {', '.join(ACTIVATIONS)}"
            )
        act = ACTIVATIONS[activation]
        layers: list[nn.Module] = []
        width = n_features
        if trunk == "conv":
            layers, width = convolutions(n_features, input_shape, act)
        elif trunk != "mlp":
            raise ValueError(f"trunk={trunk!r} is not allowed; use 'mlp' or 'conv'")
        for size in hidden_layer_sizes:
            layers += [nn.Linear(width, size, bias=bias), act()]
            width = size
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(width, n_outputs, bias=bias)
        self.skip = nn.Linear(n_features, n_outputs, bias=False) if skip else None

    def forward(self, X: Tensor) -> Tensor:
        """Return the fused outputs (B, n_outputs) of rows (B, n_features)."""
        out: Tensor = self.head(self.trunk(X))
        return out if self.skip is None else out + self.skip(X)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trunk's parameters."""
        return self.trunk.parameters()

    def task_parameters(self, k: int) -> Iterator[nn.Parameter]:
        """Yield the tensors that hold head k: the fused ones, whose rows never mix tasks."""
        yield from self.head.parameters()
        if self.skip is not None:
            yield from self.skip.parameters()


def convolutions(
    n_features: int, input_shape: Sequence[int] | None, act: type[nn.Module]
) -> tuple[list[nn.Module], int]:
    """Return the convolutional layers of a trunk and the width of their flattened output."""
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(shape) != 3 or torch.Size(shape).numel() != n_features:
        raise ValueError(
            f"input_shape={input_shape!r} does not fit rows of {n_features} features; "
            "trunk='conv' needs (channels, height, width) with that product"
        )
    channels, height, width = shape
    layers = [
        nn.Unflatten(1, shape),
        nn.Conv2d(channels, 16, 3, padding=1),
        act(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        act(),
        nn.Flatten(),
    ]
    return layers, 32 * ((height + 1) // 2) * ((width + 1) // 2)
