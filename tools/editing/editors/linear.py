"""The affine editor of REMEDI (Hernandez, Li & Andreas 2023, arXiv:2304.00740), of full rank."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.tools.editing.editors.base import READ, Editor, Part


class Linear(Editor):
    """d = W x + b over the parts that it reads."""

    parts: tuple[Part, ...] = ("attribute",)

    def __init__(self, d_model: int, generator: torch.Generator) -> None:
        super().__init__(d_model)
        self.weight = nn.Parameter(torch.zeros(len(self.parts), d_model, d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def correction(self, inputs: Float[Tensor, "record part d_model"]) -> Float[Tensor, "record d"]:
        """W x + b, in coordinates divided by their spread."""
        read = inputs[:, [READ.index(part) for part in self.parts]]
        return torch.einsum("rpi,poi->ro", read, self.weight) + self.bias


class LinearWithEntity(Linear):
    """It reads the entity's representation too: one object may need another push elsewhere."""

    parts = ("attribute", "entity")
