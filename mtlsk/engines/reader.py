"""Which nets are differentiated by hand: graphs of linear layers that have been checked once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from mtlsk.autodiff import weighted_gradient
from mtlsk.engines.base import Engine, Forward
from mtlsk.engines.linear import LinearGradients
from mtlsk.linear_graph import LinearGraph, Unrecognised, Workspace, leaves_beside


class Reader:
    """Reads the graphs of forward passes, and trusts a structure only once it has been checked.

    In every pass the way from the losses to the outputs is looked at: parameters met on it (a
    penalty) would be missed. The first pass of a structure is differentiated by hand and by
    autograd: what is said of the losses in :class:`Forward` could be wrong. Where either finds
    something, autograd is used for such passes, and a warning says so once.
    """

    def __init__(self) -> None:
        self.trusted: dict[tuple[str, ...], bool] = {}
        self.workspace = Workspace()
        self.last: LinearGraph | None = None  # trusted, of these parameters
        self.last_shared: Sequence[Tensor] = ()

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Return the reader of an engine: what one has seen lives as long as it does."""
        reader: Self | None = vars(engine).get("_reader")
        if reader is None:
            reader = engine._reader = cls()
        return reader

    def read(
        self,
        losses: Tensor,
        shared: Sequence[Tensor],
        own: Sequence[Tensor],
        forward: Forward | None,
    ) -> LinearGraph | None:
        """Return the graph of the outputs if it is one of linear layers, else None."""
        if forward is None or not shared or not losses.requires_grad:
            return None
        beside = leaves_beside(losses, forward.outputs)
        graph = None if self.last is None else self.last.again(forward.outputs)
        if graph is not None and shared is self.last_shared and not beside:
            return graph
        try:
            graph = LinearGraph(forward.outputs, self.workspace)
        except Unrecognised:
            return None
        known = {id(p) for layer in graph.layers for p in (layer.weight, layer.bias)}
        # what acts in the losses beside the outputs too, the graph does not see
        straight = not beside & (known | {id(p) for p in shared})
        key = (str(straight), *graph.signature, *(str(id(p) in known) for p in shared))
        if key not in self.trusted:
            self.trusted[key] = straight and agree(losses, shared, own, forward, graph)
            if not self.trusted[key]:
                warnings.warn(
                    "the losses depend on the parameters in another way than through the "
                    "outputs of their own tasks: gradients are computed by autograd, one backward "
                    "pass a task",
                    stacklevel=2,
                )
        if not self.trusted[key]:
            return None
        self.last, self.last_shared = graph.outline(), shared
        return graph


def agree(
    losses: Tensor,
    shared: Sequence[Tensor],
    own: Sequence[Tensor],
    forward: Forward,
    graph: LinearGraph,
) -> bool:
    """Say whether autograd and the graph give one gradient for arbitrary task weights."""
    k = len(losses)
    weights = torch.cos(1.7 * torch.arange(k, dtype=losses.dtype, device=losses.device) + 0.3)
    gradients = LinearGradients(losses, shared, forward, graph)
    by_hand = (*gradients.combine(weights), *gradients.combine_own(weights, own))
    pairs = zip(by_hand, weighted_gradient(losses, weights, (*shared, *own)), strict=True)
    error = size = 0.0
    for mine, autograd in pairs:
        error += float((mine - autograd).double().square().sum())
        size += float(autograd.double().square().sum())
    # where terms cancel, rounding is to be compared with the terms
    top = (gradients.top * forward.columns.of(weights)).unsqueeze(1)
    terms = sum(
        float(c.value.double().square().sum() * a.double().square().sum())
        for c, layer in zip(graph.cotangents(top), graph.layers, strict=True)
        if (a := layer.input) is not None
    )
    return not error > (100 * torch.finfo(losses.dtype).eps) ** 2 * max(size, terms)
