"""CharLM: a small transformer over characters with one linear head a task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn


class CharLM(nn.Module):
    """A character language model: K heads on one trunk that reads the last characters of a text.

    f(x) = V norm(z_T) + v, z_T the last position of ``n_layers`` pre-norm transformer blocks
    over the embedded characters x_1 ... x_T with a learned embedding of each place. Every task is
    told from that one vector, so the trunk (embeddings, blocks, last norm) is what they share.
    Attention is written out: fused kernels cannot be differentiated twice, as certificates and
    ``gramian="online"`` need.

    Parameters
    ----------
    n_features : int
        T, characters of context; given by the estimator.
    n_outputs : int
        Sum of the widths of all tasks; given by the estimator.
    n_characters : int
        Codes of X run from 0 to one less; ``len(text.vocabulary)`` of ``load_text`` or more.
    width : int
        d of each position, a multiple of ``n_heads``.
    n_layers : int
        Blocks.
    n_heads : int
        Of the attention; the tasks' heads are ``n_outputs``.

    Raises
    ------
    ValueError
        For sizes that are not allowed, and for X that holds no codes.

    **Reference** Vaswani et al., "Attention is all you need", 2017; norms before, not after, each
    part as in Xiong et al., "On layer normalization in the transformer architecture", 2020.

    Examples
    --------
    >>> from mtlsk import MultiTaskClassifier
    >>> from mtlsk.modules import CharLM
    >>> net = MultiTaskClassifier(module=CharLM, module__n_characters=40, aggregator="ConicGrad")
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        n_characters: int = 256,
        width: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
    ) -> None:
        super().__init__()
        sizes = {"n_characters": n_characters, "width": width, "n_heads": n_heads}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name}={value!r} is not allowed; use an integer >= 1")
        if n_layers < 0:
            raise ValueError(f"n_layers={n_layers!r} is not allowed; use an integer >= 0")
        if width % n_heads:
            raise ValueError(
                f"width={width} is no multiple of n_heads={n_heads}; use n_heads=1 or a width of "
                f"{n_heads * math.ceil(width / n_heads)}"
            )
        self.embedding = nn.Embedding(n_characters, width)
        self.place = nn.Parameter(torch.randn(n_features, width) / math.sqrt(width))
        self.blocks = nn.Sequential(*(Block(width, n_heads) for _ in range(n_layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, X: Tensor) -> Tensor:
        """Return the fused outputs (B, n_outputs) of rows of codes (B, T)."""
        codes = X.long()
        if not torch.compiler.is_compiling():  # an exported module has no branches
            self._check(X, codes)
        z = self.blocks(self.embedding(codes) + self.place)
        out: Tensor = self.head(self.norm(z[:, -1]))
        return out

    def _check(self, X: Tensor, codes: Tensor) -> None:
        size = self.embedding.num_embeddings
        wrong = (codes != X) | (codes < 0) | (codes >= size)
        if bool(wrong.any()):
            value = float(X[wrong][0])
            raise ValueError(
                f"X holds {value:g}, which is no code of {size} characters: codes are integers "
                f"from 0 to {size - 1}; give module__n_characters=len(vocabulary), do not scale X"
            )

    def example_rows(self, count: int) -> Tensor:
        """Return rows of codes (count, T), for an export to be tried on."""
        size = self.embedding.num_embeddings
        return (torch.arange(count * len(self.place)) % size).view(count, -1)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of everything before the heads."""
        parts = (self.embedding, self.blocks, self.norm)
        return chain([self.place], *(part.parameters() for part in parts))

    def task_parameters(self, k: int) -> Iterator[nn.Parameter]:
        """Yield the tensors that hold head k: the fused ones, whose rows never mix tasks."""
        return self.head.parameters()


class Block(nn.Module):
    """z + attention(norm z), then z + mlp(norm z): a pre-norm transformer block.

    Parameters
    ----------
    width : int
    n_heads : int
        A divisor of ``width``.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return positions (B, T, width) after the block; all see all, for only the last is read.

        softmax(Q K' / sqrt(width / n_heads)) V in each of ``n_heads`` parts of the width.
        """
        size, places, width = z.shape
        parts = self.query_key_value(self.norm(z)).view(size, places, 3, self.n_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, T, width / heads)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.n_heads)
        read = (scores.softmax(-1) @ value).transpose(1, 2).reshape(size, places, width)
        z = z + self.mix(read)
        out: Tensor = z + self.mlp(z)
        return out
