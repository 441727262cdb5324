"""What every editor is: a map from what is read of an edit to the direction that is added.

Read of an edit are two vectors (`READ`): the attribute and the entity's own representation. A kind
that does not take the entity leaves the second alone, so that kinds can be exchanged.
"""

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

Part: TypeAlias = Literal["attribute", "entity"]
READ: tuple[Part, ...] = ("attribute", "entity")
"""What the second axis of an editor's input holds."""


_RIDGE = 0.03
"""Of the mean squared length of the inputs: of 0.003 to 1 all came within .003 of the same."""


class Editor(nn.Module, ABC):
    """d = strength * (start (x - mean) + offset + correction); x is the attribute.

    The correction, of standardised input, is zero at first, so training starts from the rest: the
    centred attribute itself or, after `begin`, the linear map from attributes to given directions.
    That pushes the right way already, and training learns what is to be mended. Residual streams
    have a few huge coordinates: dividing by the spread makes one learning rate fit all of them.

    `strength` (alpha) multiplies the whole direction; it is 1 in training and chosen afterwards.
    """

    mean: Float[Tensor, "part d_model"]
    scale: Float[Tensor, "part d_model"]
    start: Float[Tensor, "d_model d_model"]
    offset: Float[Tensor, " d_model"]
    strength: Float[Tensor, ""]

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(READ), d_model))
        self.register_buffer("scale", torch.ones(len(READ), d_model))
        self.register_buffer("start", torch.eye(d_model))
        self.register_buffer("offset", torch.zeros(d_model))
        self.register_buffer("strength", torch.ones(()))

    @abstractmethod
    def correction(self, inputs: Float[Tensor, "record part d_model"]) -> Float[Tensor, "record d"]:
        """What is added to the centred attribute, from standardised inputs; zero at first."""

    def standardise(self, inputs: Float[Tensor, "record part d_model"]) -> None:
        """Take mean and scale from the training inputs."""
        self.mean.copy_(inputs.mean(0))
        self.scale.copy_(inputs.std(0).clamp(min=1e-3))

    def begin(
        self,
        inputs: Float[Tensor, "record part d_model"],
        directions: Float[Tensor, "record d_model"],
    ) -> None:
        """Start from the ridge regression of `directions` on the attributes; after `standardise`.

        Of the directions' mean over entities, say, one reading of one entity gives a noisy copy;
        the regression takes the noise away.
        """
        read = (inputs - self.mean)[:, READ.index("attribute")]
        offset = directions.mean(0)
        gram = read @ read.T
        penalty = (_RIDGE * gram.trace() / len(gram)).clamp(min=1e-6)
        dual = torch.linalg.solve(
            gram + penalty * torch.eye(len(gram), device=gram.device), directions - offset
        )
        self.start.copy_(dual.T @ read)
        self.offset.copy_(offset)

    def forward(self, inputs: Float[Tensor, "record part d_model"]) -> Float[Tensor, "record d"]:
        """One direction for each record."""
        centred = inputs - self.mean
        start = centred[:, READ.index("attribute")] @ self.start.T + self.offset
        direction: Tensor = self.strength * (start + self.correction(centred / self.scale))
        return direction


def at_random(
    shape: tuple[int, ...], fan_in: int, generator: torch.Generator
) -> Float[Tensor, "..."]:
    """Gaussian weights of variance 1/fan_in, drawn without touching the process's random state."""
    weights: Tensor = torch.randn(shape, generator=generator) / fan_in**0.5
    return weights
