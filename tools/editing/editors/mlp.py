"""The editor with one hidden layer, LeakyReLU, as REMEDI compares it with the affine one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.tools.editing.editors.base import READ, Editor, at_random


class Mlp(Editor):
    """d = U leaky_relu(V x + a) + b; the hidden layer is as wide as the residual stream."""

    def __init__(self, d_model: int, generator: torch.Generator) -> None:
        super().__init__(d_model)
        self.down = nn.Parameter(at_random((d_model, d_model), d_model, generator))
        self.down_bias = nn.Parameter(torch.zeros(d_model))
        self.up = nn.Parameter(torch.zeros(d_model, d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def correction(self, inputs: Float[Tensor, "record part d_model"]) -> Float[Tensor, "record d"]:
        """From the attribute, in coordinates divided by their spread."""
        read = inputs[:, READ.index("attribute")]
        hidden = nn.functional.leaky_relu(read @ self.down.T + self.down_bias)
        return hidden @ self.up.T + self.bias
