"""Colours by name, as people use the words: each pixel takes the name of the nearest sample colour.

Nearness is measured in OKLab (Ottosson 2020), where equal distances look about equally large; the
names are the eleven basic colour terms of English (Berlin & Kay 1969), and turquoise.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, UInt8
from numpy import ndarray

_SAMPLES: dict[str, str] = {
    "red": "ff0000 e01414 c81e1e b41e28 dc3c32 8c0f14",
    "orange": "ff8c00 f07814 ffa53c e66400 ffa000 fa8246",
    "yellow": "ffff00 fadc1e f0e664 ffd700 c8be28 fffaa0",
    "green": "008000 00ff00 3ca03c 78b43c 1e5028 a0dc8c 6b8e23 2e8b57 96be96 00643c",
    "turquoise": "00ffff 40c8c8 008080 96e6e6 32b4aa 5fd2d2",
    "blue": "0000ff 1e50c8 4682dc 87befa 0a145a 3264a0 6482b4 5050e6",
    "purple": "800080 963cc8 5a288c c896e6 ff00ff 6e46a0 b43cb4",
    "pink": "ff69b4 ffb6c1 e682a0 ff1493 f5a0b4 fac8d2 d25082",
    "brown": "8b4513 654321 a06e3c 50321e 78503c a05a2d 5a4632",
    "black": "000000 0f0f0f 1e1e1e 28282a 191414 14191e",
    "grey": "808080 5a5a5a aaaaaa 464646 c3c3c3 788088 8a847c",
    "white": "ffffff f0f0f0 e6e6e6 faf5eb ebf0fa",
}
NAMES: tuple[str, ...] = tuple(_SAMPLES)
_LIGHTNESS_WEIGHT = 0.7
"""Two shades of one hue share a name more often than two hues of one lightness."""
_BITS = 5


def oklab(rgb: Float[ndarray, "*shape 3"]) -> Float[ndarray, "*shape 3"]:
    """Lightness 0..1 and the two opponent axes of sRGB colours in 0..1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ np.array(_TO_CONES).T)
    lab: Float[ndarray, "*shape 3"] = cones @ np.array(_TO_LAB).T
    return lab


_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def named(pixels: UInt8[ndarray, "*shape 3"]) -> npt.NDArray[np.uint8]:
    """For each pixel the index of its colour in `NAMES`."""
    names: npt.NDArray[np.uint8] = _table()[_codes(pixels)]
    return names


def lightness_and_chroma(
    pixels: UInt8[ndarray, "*shape 3"],
) -> tuple[Float[ndarray, "*shape"], Float[ndarray, "*shape"]]:
    """Perceived lightness (0 black, 1 white) and colourfulness (0 grey, about 0.3 at most)."""
    codes = _codes(pixels)
    return _lightness()[codes], _chroma()[codes]


def _codes(pixels: UInt8[ndarray, "*shape 3"]) -> npt.NDArray[np.int32]:
    coarse = (pixels >> (8 - _BITS)).astype(np.int32)
    codes: npt.NDArray[np.int32] = (
        (coarse[..., 0] << 2 * _BITS) | (coarse[..., 1] << _BITS) | coarse[..., 2]
    )
    return codes


@cache
def _every_colour() -> Float[ndarray, "codes 3"]:
    """OKLab of every colour that `_codes` tells apart."""
    axis = (np.arange(1 << _BITS) / ((1 << _BITS) - 1)).astype(np.float64)
    return oklab(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3))


@cache
def _table() -> npt.NDArray[np.uint8]:
    """For each code the index of its colour."""
    weights = np.array([_LIGHTNESS_WEIGHT, 1.0, 1.0])
    nearest = np.stack(
        [
            np.min(
                [
                    np.square((_every_colour() - oklab(_rgb(sample))) * weights).sum(axis=-1)
                    for sample in samples.split()
                ],
                axis=0,
            )
            for samples in _SAMPLES.values()
        ]
    )
    indices: npt.NDArray[np.uint8] = nearest.argmin(axis=0).astype(np.uint8)
    return indices


def _rgb(hexadecimal: str) -> Float[ndarray, "3"]:
    return np.array(list(bytes.fromhex(hexadecimal))) / 255


@cache
def _lightness() -> Float[ndarray, " codes"]:
    lightness: Float[ndarray, " codes"] = _every_colour()[:, 0].astype(np.float32)
    return lightness


@cache
def _chroma() -> Float[ndarray, " codes"]:
    _, green_red, blue_yellow = _every_colour().astype(np.float32).T
    chroma: Float[ndarray, " codes"] = np.hypot(green_red, blue_yellow)
    return chroma
