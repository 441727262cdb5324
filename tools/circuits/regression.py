"""Linear regression from h to z: what a linear map can do that has seen the same facts.

The rival that Hernandez et al. 2024 (arXiv:2308.09124, section 4) train by gradient descent, here
in closed form: ridge regression with an intercept, in its dual form since facts are few and
dimensions many. Leave-one-out predictions follow from the hat matrix, so the layer and the ridge
are chosen on facts that the judged fit has not seen.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""In units of the mean squared distance of h from its mean."""


class Regression(NamedTuple):
    """A fit at one layer with one ridge."""

    left_out: Float[Tensor, "fact d_model"]
    """Each fact's z as a fit without it predicts."""
    entity: Float[Tensor, "fact d_model"]
    dual: Float[Tensor, "fact d_model"]
    mean_entity: Float[Tensor, " d_model"]
    mean_final: Float[Tensor, " d_model"]

    def __call__(self, entity: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The predicted z of entities' h."""
        centred = self.entity - self.mean_entity
        return self.mean_final + (entity - self.mean_entity) @ centred.T @ self.dual


def regress(
    entity: Float[Tensor, "fact d_model"], final: Float[Tensor, "fact d_model"]
) -> list[Regression]:
    """One fit for each of `RIDGES`; at least two facts."""
    count = entity.shape[0]
    if count < 2:
        raise ValueError("a regression needs at least two facts")
    mean_entity, mean_final = entity.mean(dim=0), final.mean(dim=0)
    centred, target = (entity - mean_entity).double(), (final - mean_final).double()
    kernel = centred @ centred.T
    unit = kernel.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    fits = []
    for ridge in RIDGES:
        solved = torch.linalg.inv(kernel + ridge * unit * torch.eye(count, device=kernel.device))
        hat = kernel @ solved + 1.0 / count
        error = (target - kernel @ solved @ target) / (1 - hat.diagonal())[:, None]
        fits.append(
            Regression(
                (final.double() - error).float(),
                entity,
                (solved @ target).float(),
                mean_entity,
                mean_final,
            )
        )
    return fits
