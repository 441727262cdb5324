"""Textures of the patches of an image: smooth, stripes and edges by direction, checks, fine grain.

Each patch is judged by the power spectrum of the window around it: where the power stands in
frequency tells coarse from fine, where it stands in angle tells stripes from checks from grain.
"""

from functools import cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

GRID = 14
"""Patches along each side of an image."""
SIDE = 224
PATCH = SIDE // GRID
_WINDOW = 48
_MARGIN = (_WINDOW - PATCH) // 2
_DIRECTIONS = ("vertical", "rising", "horizontal", "falling")
"""Of the lines themselves, by the angle of their frequency: 0, 45, 90 and 135 degrees."""
NAMES: tuple[str, ...] = (
    "smooth",
    "busy",
    "fine grain",
    "checks",
    "stripes",
    *(f"{direction} stripes" for direction in _DIRECTIONS),
    "edges",
    *(f"{direction} edges" for direction in _DIRECTIONS),
)
_SMOOTH, _CLEAR, _BUSY = 0.02, 0.06, 0.1
"""Root mean square contrast, of 1, below or above which a window counts as such."""
_CONCENTRATED = 0.75
"""Share of the power within 45 degrees from which on a window has one direction."""
_N_ANGLES = 12
_Padding: TypeAlias = Literal["edge", "constant"]


class _Bands(NamedTuple):
    """Of each frequency of a window's half spectrum: its angle's bin and its band."""

    angle: npt.NDArray[np.int64]
    coarse: Bool[ndarray, " frequencies"]
    """One cycle a window: the band of a single edge."""
    repeated: Bool[ndarray, " frequencies"]
    """Two cycles a window or more."""
    fine: Bool[ndarray, " frequencies"]
    """A period of six pixels or less."""
    weight: Float[ndarray, " frequencies"]


def textures(view: UInt8[ndarray, "224 224 3"]) -> Bool[ndarray, "14 14 textures"]:
    """Which of `NAMES` hold at each patch."""
    windows = _windows(view.astype(np.float32) / 255, "edge")
    windows = windows - windows.mean(axis=(-2, -1), keepdims=True)
    whole = np.ones((_WINDOW, _WINDOW), np.float32)
    return _judged(_power(windows) / _full_scale(whole))


def texture_within(
    image: Float[ndarray, "224 224 3"],
    inside: Bool[ndarray, "224 224"],
    patches: Bool[ndarray, "14 14"],
) -> Bool[ndarray, " textures"]:
    """Which of `NAMES` an area has, whatever is around it.

    The windows around its `patches` are taken as far as they lie in it, and count by how far.
    Colours are in 0..1; some pixel has to be `inside`.
    """
    mean = image[inside].mean(axis=0)
    members = _windows(inside.astype(np.float32)[..., None], "constant")[patches]
    windows = _windows((image - mean) * inside[..., None], "constant")[patches]
    power = _power(windows).sum(axis=0)
    return _judged(power / _full_scale(members[:, 0]))


def _windows(image: Float[ndarray, "224 224 c"], beyond: _Padding) -> Float[ndarray, "14 14 c w w"]:
    """The window around each patch; what is `beyond` the image repeats its edge or is 0."""
    padded = np.pad(image, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), mode=beyond)
    return sliding_window_view(padded, (_WINDOW, _WINDOW), axis=(0, 1))[::PATCH, ::PATCH]


def _power(windows: Float[ndarray, "*windows c w w"]) -> Float[ndarray, "*windows frequencies"]:
    """Power spectra, tapered, summed over colours."""
    spectrum = fft.rfft2(windows * _taper())
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=-3)
    return np.asarray(power.reshape(*power.shape[:-2], -1) * _bands().weight)


def _full_scale(members: Float[ndarray, "*windows w w"]) -> float:
    """Of the power of windows that are full at `members`: what divides it into mean squares."""
    # The taper takes away from the contrast what its own mean square says.
    return float(np.square(members * _taper()).sum()) * _WINDOW**2


def _judged(power: Float[ndarray, "*windows frequencies"]) -> Bool[ndarray, "*windows textures"]:
    bands = _bands()
    contrast = np.sqrt(power.sum(axis=-1))
    total = np.maximum(power.sum(axis=-1), 1e-9)
    repeated = power * bands.repeated
    n_repeated = repeated.sum(axis=-1)
    angles = _by_angle(repeated) / np.maximum(n_repeated, 1e-9)[..., None]
    around = angles + np.roll(angles, 1, -1) + np.roll(angles, -1, -1)
    across = np.roll(around, _N_ANGLES // 2, -1)
    clear = contrast > _CLEAR
    patterned = clear & (n_repeated / total > 0.5)
    stripes = patterned & (around.max(-1) > _CONCENTRATED)
    crossed = (around + across).max(-1) > _CONCENTRATED - 0.1
    checks = patterned & crossed & (np.minimum(around, across).max(-1) > 0.2)
    grain = patterned & ((power * bands.fine).sum(-1) / total > 0.5) & (around.max(-1) < 0.5)
    all_angles = _by_angle(power) / total[..., None]
    all_around = all_angles + np.roll(all_angles, 1, -1) + np.roll(all_angles, -1, -1)
    edges = clear & ~patterned & (all_around.max(-1) > _CONCENTRATED - 0.1)
    columns = [contrast < _SMOOTH, (contrast > _BUSY) & patterned, grain, checks, stripes]
    columns += [stripes & (_direction(around) == each) for each in range(4)]
    columns += [edges]
    columns += [edges & (_direction(all_around) == each) for each in range(4)]
    return np.stack(columns, axis=-1)


def _by_angle(power: Float[ndarray, "*windows frequencies"]) -> Float[ndarray, "*windows angles"]:
    member = np.eye(_N_ANGLES, dtype=np.float32)[_bands().angle]
    by_angle: Float[ndarray, "*windows angles"] = power @ member
    return by_angle


def _direction(around: Float[ndarray, "*windows angles"]) -> npt.NDArray[np.int64]:
    """The strongest of the four directions; a bin spans 15 degrees and bin 0 is centred on 0."""
    degrees = around.argmax(-1) * (180 / _N_ANGLES)
    nearest: npt.NDArray[np.int64] = np.round(degrees / 45).astype(np.int64) % 4
    return nearest


@cache
def _taper() -> Float[ndarray, "w w"]:
    edge = np.hanning(_WINDOW).astype(np.float32)
    return np.outer(edge, edge)


@cache
def _bands() -> _Bands:
    down = np.fft.fftfreq(_WINDOW)[:, None] * _WINDOW
    right = np.fft.rfftfreq(_WINDOW)[None, :] * _WINDOW
    radius = np.hypot(down, right).ravel()
    # Down the image is positive, so lines that rise to the right have a frequency of 45 degrees.
    degrees = np.degrees(np.arctan2(np.broadcast_to(down, (_WINDOW, right.size)), right)).ravel()
    bins = np.round((degrees % 180) / (180 / _N_ANGLES)).astype(np.int64) % _N_ANGLES
    weight = np.full(radius.shape, 2.0, np.float32)
    weight.reshape(_WINDOW, -1)[:, [0, -1]] = 1.0  # the half spectrum holds these but once
    weight[radius == 0] = 0.0
    return _Bands(bins, radius < 1.6, radius >= 1.9, radius >= _WINDOW / 6, weight)
