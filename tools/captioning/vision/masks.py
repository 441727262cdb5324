"""Where in a picture a unit is active: its map at picture size, above a dataset-wide threshold.

Bau et al. 2017 (Network Dissection), as in MILAN (arXiv:2201.11114): the threshold is the unit's
0.99 quantile over all positions of all pictures, never that of one picture.
"""

import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

MASK_SIZE = 224


def upsampled(
    maps: Float[Tensor, "*batch h w"], size: int | tuple[int, int] = MASK_SIZE
) -> Float[Tensor, "*batch height width"]:
    """Bilinear interpolation between the centres of the map's cells."""
    height, width = (size, size) if isinstance(size, int) else size
    flat = maps.reshape(-1, 1, *maps.shape[-2:]).float()
    large = functional.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
    return large.reshape(*maps.shape[:-2], height, width)


def masks(
    maps: Float[Tensor, "*batch h w"],
    threshold: float | Float[Tensor, "*batch"],
    size: int | tuple[int, int] = MASK_SIZE,
) -> Bool[ndarray, "*batch height width"]:
    """True where the upsampled maps exceed `threshold`, one for all or one a map."""
    limit = torch.as_tensor(threshold)[..., None, None]
    found: Bool[ndarray, "*batch height width"] = (upsampled(maps, size) > limit).numpy()
    return found
