"""The affine editor with a correction of low rank: fewer weights for few records."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.tools.editing.editors.base import READ, Editor, Part, at_random

RANK = 32


class LowRank(Editor):
    """d = U V x + b over the parts that it reads; U is zero at first."""

    parts: tuple[Part, ...] = ("attribute",)

    def __init__(self, d_model: int, generator: torch.Generator) -> None:
        super().__init__(d_model)
        rank = min(RANK, d_model)
        shape = (rank, len(self.parts), d_model)
        self.down = nn.Parameter(at_random(shape, len(self.parts) * d_model, generator))
        self.up = nn.Parameter(torch.zeros(d_model, rank))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def correction(self, inputs: Float[Tensor, "record part d_model"]) -> Float[Tensor, "record d"]:
        """U V x + b, in coordinates divided by their spread."""
        read = inputs[:, [READ.index(part) for part in self.parts]]
        return torch.einsum("rpi,kpi->rk", read, self.down) @ self.up.T + self.bias


class LowRankWithEntity(LowRank):
    """It reads the entity's representation too."""

    parts = ("attribute", "entity")
