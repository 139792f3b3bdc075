"""Orthogonalisation by Newton-Schulz iterations: the kernel of Muon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of p(s) = a s + b s^3 + c s^5, which every iteration applies to each singular value.

The slope at 0 was chosen large, so that small singular values grow fast (3.4445^5 = 485
times in five iterations), while what has arrived stays between .68 and 1.21. They do not converge
to 1 and need not: a step along U S V' with S in that range serves as well as one along U V'. The
cubic 1.5 s - .5 s^3, which does converge, has slope 1.5: eight times in five.
"""

STEPS = 5
"""Iterations that bring singular values from .0016 of the Frobenius norm on to .68 to 1.21."""


def orthogonalize(matrix: Tensor, steps: int = STEPS) -> Tensor:
    """Return about U V' of a matrix U S V': its singular values brought to about 1.

    X_0 = M / |M|_F, whose singular values are at most 1, where p is stable; then
    X <- a X + (b A + c A A) X with A = X X'. A is made on the smaller side, by transposing. A zero
    matrix stays zero. The precision is the matrix's own: bfloat16, which the source uses on GPUs,
    can be many times slower than float32 on a CPU that has no units for it.

    Parameters
    ----------
    matrix : tensor of shape (..., m, n)
        Leading dimensions are a batch.
    steps : int
        Number of iterations.

    **Reference** Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024
    (iteration and coefficients); what the coefficients do was computed here.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    # in float64, where the square of 1e-30 is not 0
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float64)
    x = x / norm.clamp_min(torch.finfo(x.dtype).tiny).to(x.dtype)
    batch = x.shape[:-2]
    if len(batch) > 1:
        x = x.flatten(0, -3)
    plus_product = torch.baddbmm if batch else torch.addmm
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = plus_product(gram, gram, gram, beta=b, alpha=c)
        x = plus_product(x, polynomial, x, beta=a)
    x = x.reshape(*batch, *x.shape[-2:])
    return x.mT if tall else x


def orthogonalize_all(matrices: Sequence[Tensor], steps: int = STEPS) -> list[Tensor]:
    """Return each matrix orthogonalized, those of one shape together up to ``TOGETHER`` numbers."""
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, m in enumerate(matrices):
        key = (m.shape, m.dtype, m.device) if m.numel() <= TOGETHER else (i,)
        alike[key].append(i)
    found: list[Tensor] = list(matrices)
    for indices in alike.values():
        if len(indices) == 1:
            found[indices[0]] = orthogonalize(matrices[indices[0]], steps)
            continue
        batch = orthogonalize(torch.stack([matrices[i] for i in indices]), steps)
        for i, m in zip(indices, batch.unbind(), strict=True):
            found[i] = m
    return found


TOGETHER = 1 << 13
"""Numbers of a matrix up to which a batch of them is faster than one after the other."""
