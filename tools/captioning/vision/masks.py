"""Where in a picture a unit is active: its map at picture size, above a dataset-wide threshold.

Bau et al. 2017 (Network Dissection), as in MILAN (arXiv:2201.11114): the threshold is the unit's
0.99 quantile over all positions of all pictures, never that of one picture.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

MASK_SIZE = 224
_AT_ONCE = 32
"""Maps that are upsampled together: more would leave the processor's cache, at half the speed."""


def upsampled(
    maps: Float[Tensor, "*batch h w"], size: int | tuple[int, int] = MASK_SIZE
) -> Float[Tensor, "*batch height width"]:
    """Bilinear interpolation between the centres of the map's cells."""
    height, width = (size, size) if isinstance(size, int) else size
    down, across = _weights(maps.shape[-2], height), _weights(maps.shape[-1], width)
    return down @ (maps.float() @ across.T)


def masks(
    maps: Float[Tensor, "*batch h w"],
    threshold: float | Float[Tensor, "*batch"],
    size: int | tuple[int, int] = MASK_SIZE,
) -> Bool[ndarray, "*batch height width"]:
    """True where the upsampled maps exceed `threshold`, one for all or one a map."""
    flat = maps.reshape(-1, *maps.shape[-2:])
    limits = torch.as_tensor(threshold).expand(maps.shape[:-2]).reshape(-1)
    height, width = (size, size) if isinstance(size, int) else size
    found = np.empty((len(flat), height, width), np.bool_)
    for start in range(0, len(flat), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        found[some] = (upsampled(flat[some], size) > limits[some, None, None]).numpy()
    return found.reshape(*maps.shape[:-2], height, width)


@lru_cache(maxsize=64)
def _weights(n: int, size: int) -> Float[Tensor, "size n"]:
    """What each cell of a row of `n` gives to each of `size` places: interpolation is linear."""
    cells = functional.interpolate(torch.eye(n)[:, None], size, mode="linear", align_corners=False)
    return cells[:, 0].T.contiguous()
