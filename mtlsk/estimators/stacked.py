"""P nets of one shape as one: parameters stacked, batched matrix products, buffers kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtlsk.modules import HardSharing

BUDGET = 1 << 21
"""Numbers in the activations of one pass: more members than that take several passes."""

LANES = 64
"""The flat tensor's length is a multiple: numbers left over by vector instructions are rounded in
another way, and which those are must not depend on how many members there are."""

aten = torch.ops.aten


@dataclass(frozen=True)
class ActivationStep:
    """An activation and how a gradient goes back through it.

    Attributes
    ----------
    apply : callable
        z -> act(z), in place or not.
    back : callable
        (d, z) -> None, which multiplies d by act'. What is left of z after ``apply`` is what it
        gets: act(z) itself where that was in place.
    """

    apply: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], object]


def by_result(apply: Callable[[Tensor], Tensor], slope: Any, *constants: Any) -> ActivationStep:
    """Return the step of an activation that works in place and whose slope is of its result."""
    return ActivationStep(apply, lambda d, a: slope.grad_input(d, a, *constants, grad_input=d))


def by_input(apply: Callable[[Tensor], Tensor], slope: Any, *constants: Any) -> ActivationStep:
    """Return the step of an activation whose slope is of what goes into it."""
    return ActivationStep(apply, lambda d, z: slope.grad_input(d, z, *constants, grad_input=d))


def elu_back(d: Tensor, a: Tensor) -> None:
    """Multiply d by the slope of ELU with alpha = 1, given its result."""
    aten.elu_backward.grad_input(d, 1.0, 1.0, 1.0, True, a, grad_input=d)


ACTIVATION_STEPS: dict[type[nn.Module], ActivationStep] = {
    nn.ReLU: by_result(torch.relu_, aten.threshold_backward, 0),
    nn.Tanh: by_result(torch.tanh_, aten.tanh_backward),
    nn.Sigmoid: by_result(torch.sigmoid_, aten.sigmoid_backward),
    nn.ELU: ActivationStep(functional.elu_, elu_back),
    nn.GELU: by_input(functional.gelu, aten.gelu_backward),
    nn.SiLU: by_input(functional.silu, aten.silu_backward),
    nn.Softplus: by_input(functional.softplus, aten.softplus_backward, 1.0, 20.0),
    nn.Identity: ActivationStep(lambda z: z, lambda d, a: None),
}


def is_stackable(module: nn.Module) -> bool:
    """Say whether a module is a HardSharing of linear layers and known activations."""
    return type(module) is HardSharing and all(
        type(layer) is nn.Linear or type(layer) in ACTIVATION_STEPS for layer in module.trunk
    )


class StackedNets:
    """P members that all start as one HardSharing MLP, each with parameters of its own.

    A weight (out, in) of the module is a block (P, in, out) here, a bias (out,) one (P, 1, out),
    and all blocks lie one after the other in one flat tensor, so that an optimizer sees a single
    parameter. Rows are shared: the inputs (B, d) are seen by every member and never copied.

    Parameters
    ----------
    module : HardSharing
        For which :func:`is_stackable` holds.
    n_members : int
        P.

    Attributes
    ----------
    flat : tensor of shape (P M and what fills it up to ``LANES``,)
        The parameters of all members; ``.grad`` is a buffer that :meth:`accumulate` overwrites.
    """

    def __init__(self, module: Any, n_members: int) -> None:
        self.n_members = n_members
        own = dict(module.named_parameters())
        self.shapes = {name: (p.T if p.ndim == 2 else p[None]).shape for name, p in own.items()}
        one = own["head.weight"].detach()
        self.n_numbers = n_members * sum(p.numel() for p in own.values())
        self.flat = one.new_zeros(-(-self.n_numbers // LANES) * LANES)
        self.flat.grad = torch.zeros_like(self.flat)
        self.blocks, self.slopes = self.split(self.flat), self.split(self.flat.grad)
        for name, p in own.items():
            self.blocks[name].copy_(p.detach().T if p.ndim == 2 else p.detach())
        linears = [f"trunk.{i}" for i, m in enumerate(module.trunk) if type(m) is nn.Linear]
        self.layers = [*linears, "head"]
        self.widths = [self.shapes[f"{name}.weight"][1] for name in self.layers]
        acts = [ACTIVATION_STEPS[type(m)] for m in module.trunk if type(m) is not nn.Linear]
        self.act = acts[0] if acts else ACTIVATION_STEPS[nn.Identity]
        self._buffers: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the blocks (P, ., .) of a tensor laid out like ``flat``, as views, by name."""
        sizes = [self.n_members * shape.numel() for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), torch.split(flat[: self.n_numbers], sizes), strict=True)
        return {name: part.view(self.n_members, *shape) for (name, shape), part in parts}

    def member(self, flat: Tensor, p: int) -> dict[str, Tensor]:
        """Return member ``p``'s part of a tensor laid out like ``flat``, as the module has it."""
        return {
            name: block[p].T if name.endswith("weight") else block[p, 0]
            for name, block in self.split(flat).items()
        }

    def per_member(self, values: Tensor) -> Tensor:
        """Return one number a member (P,) spread over a tensor laid out like ``flat``."""
        each = [values.repeat_interleave(shape.numel()) for shape in self.shapes.values()]
        spread = torch.zeros_like(self.flat)
        spread[: self.n_numbers] = torch.cat(each)
        return spread

    def finite(self) -> Tensor:
        """Return which members have finite parameters only, (P,) bool."""
        each = [block.isfinite().flatten(1).all(1) for block in self.blocks.values()]
        return torch.stack(each).all(0)

    def passes(self, n_rows: int) -> list[slice]:
        """Return the members in groups whose activations stay within the budget."""
        size = min(self.n_members, max(1, BUDGET // (n_rows * sum(self.widths))))
        return [slice(i, min(i + size, self.n_members)) for i in range(0, self.n_members, size)]

    def accumulate(self, X: Tensor, loss: Callable[[Tensor, slice], Tensor]) -> None:
        """Fill ``.grad`` with the gradient of the sum over the members of their losses.

        Members share no parameter, so each gets the gradient of its own loss alone.

        Parameters
        ----------
        X : (B, d)
        loss : callable
            (outputs (p, B, K), which members these are) -> the sum of their losses.
        """
        for members in self.passes(len(X)):
            last, before, after = self._forward(X, members)
            outputs = last.requires_grad_()
            loss(outputs, members).backward()  # type: ignore[no-untyped-call]
            assert outputs.grad is not None
            self._backward(members, before, after, outputs.grad)

    def outputs(self, X: Tensor, members: slice) -> Tensor:
        """Return the outputs (p, B, K) of some members; the next call overwrites them."""
        return self._forward(X, members)[0]

    def _room(self, size: int, n_rows: int) -> list[tuple[Tensor, Tensor]]:
        """Return buffers for the values of each layer and for gradients by them."""
        key = size, n_rows
        if key not in self._buffers:
            made = [self.flat.new_empty(2, size, n_rows, width) for width in self.widths]
            self._buffers[key] = [(pair[0], pair[1]) for pair in made]
        return self._buffers[key]

    def _forward(self, X: Tensor, members: slice) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return outputs (p, B, K), and for the way back what goes into and out of each layer."""
        h = X.expand(members.stop - members.start, *X.shape)
        before, after = [], []
        for name, (z, _) in zip(self.layers, self._room(*h.shape[:2]), strict=True):
            before.append(h)
            weight, bias = self.blocks[f"{name}.weight"], self.blocks.get(f"{name}.bias")
            if bias is None:
                torch.bmm(h, weight[members], out=z)
            else:
                torch.baddbmm(bias[members], h, weight[members], out=z)
            after.append(z)
            if len(after) < len(self.layers):
                h = self.act.apply(z)
        outputs = after[-1].detach()
        if "skip.weight" in self.blocks:
            outputs.baddbmm_(before[0], self.blocks["skip.weight"][members])
        return outputs, before, after

    def _backward(
        self, members: slice, before: list[Tensor], after: list[Tensor], d: Tensor
    ) -> None:
        """Write the gradients of some members, given d (p, B, K) by their outputs."""
        if "skip.weight" in self.slopes:
            torch.bmm(before[0].mT, d, out=self.slopes["skip.weight"][members])
        room = self._room(*d.shape[:2])
        for i in range(len(self.layers) - 1, -1, -1):
            name = self.layers[i]
            torch.bmm(before[i].mT, d, out=self.slopes[f"{name}.weight"][members])
            if f"{name}.bias" in self.slopes:
                torch.sum(d, 1, keepdim=True, out=self.slopes[f"{name}.bias"][members])
            if i:
                weight = self.blocks[f"{name}.weight"][members]
                d = torch.bmm(d, weight.mT, out=room[i - 1][1])
                self.act.back(d, after[i - 1])
