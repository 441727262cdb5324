"""The embedded probe set: pictures that need no download, some of them with known attributes.

Two of three are crops, at many scales, of the real pictures that scikit-image ships in its wheel;
the others are drawn to a recipe: shapes, stripes, checks, dots, rings, grids, gradients, noise and
plain colours. Picture `i` depends on the seed and on `i` alone, so a small set begins a large one.
"""

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from dragoman.core.errors import UserError
from dragoman.core.records import content_id
from dragoman.tools.captioning.vision.drawing import KINDS, draw
from dragoman.tools.captioning.vision.images import ImageSet, read_picture

VERSION = 1
"""Of the recipe: what is kept of a pass over another version is not used again."""
_SMALLEST_CROP = 64

PICTURES: Mapping[str, str] = {
    "astronaut.png": "person",
    "brick.png": "brick wall",
    "camera.png": "photographer",
    "cell.png": "cell",
    "chelsea.png": "cat",
    "clock_motion.png": "clock",
    "coffee.png": "coffee cup",
    "coins.png": "coins",
    "color.png": "colour wheel",
    "grass.png": "grass",
    "gravel.png": "gravel",
    "horse.png": "horse silhouette",
    "hubble_deep_field.jpg": "galaxies",
    "ihc.png": "stained tissue",
    "logo.png": "logo",
    "moon.png": "moon",
    "motorcycle_left.png": "motorcycle",
    "page.png": "printed page",
    "retina.jpg": "retina",
    "rocket.jpg": "rocket",
    "text.png": "handwriting",
}
"""File in scikit-image's data folder, and what it shows."""
_LETTERED = frozenset({"page.png", "text.png"})


def probe_images(seed: int = 0, n: int = 900) -> ImageSet:
    """The first `n` pictures of the probe set of `seed`, labelled by what they show.

    `attributes` gives `content`, `colour` and, where the recipe has them, `second_colour`,
    `orientation`, `scale` and `count`; for crops of pictures only `content` and `picture`.
    """
    if n < 1:
        raise UserError(f"a probe set of {n} pictures; give at least 1")
    folder = _picture_folder()
    names = tuple(name for name in PICTURES if (folder / name).is_file())
    if not names:
        raise UserError("scikit-image lies here without its pictures: install it again")
    recipes = [_recipe(seed, index, names) for index in range(n)]
    return ImageSet(
        ids=tuple(f"probe-{seed}-{index}" for index in range(n)),
        labels=tuple(recipe["content"] for recipe in recipes),
        digest=content_id(["probe", VERSION, seed, n, names]),
        description=f"the embedded probe set: {n} crops of pictures and drawn patterns",
        decode=lambda index: _picture(seed, index, names),
        attributes=tuple(recipes),
    )


def _generator(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, index, VERSION])


def _drawn_kind(index: int) -> str | None:
    """Which pattern picture `index` shows; None for a crop."""
    return KINDS[(index // 3) % len(KINDS)] if index % 3 == 2 else None


def _crop_of(index: int, names: tuple[str, ...]) -> str:
    return names[(index - index // 3) % len(names)]


def _recipe(seed: int, index: int, names: tuple[str, ...]) -> dict[str, str]:
    kind = _drawn_kind(index)
    if kind is None:
        name = _crop_of(index, names)
        return {"content": PICTURES[name], "picture": name}
    return draw(kind, _generator(seed, index), pixels=False).attributes


def _picture(seed: int, index: int, names: tuple[str, ...]) -> Image.Image:
    generator = _generator(seed, index)
    kind = _drawn_kind(index)
    if kind is not None:
        return draw(kind, generator).image
    name = _crop_of(index, names)
    whole = _whole(_picture_folder() / name)
    longest = min(whole.size)
    # Even in the logarithm: as many close-ups as wide views.
    side = round(float(np.exp(generator.uniform(np.log(_SMALLEST_CROP), np.log(longest)))))
    left = int(generator.integers(whole.width - side + 1))
    top = int(generator.integers(whole.height - side + 1))
    crop = whole.crop((left, top, left + side, top + side))
    mirrored = generator.random() < 0.5 and name not in _LETTERED
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop


@lru_cache(maxsize=len(PICTURES))
def _whole(path: Path) -> Image.Image:
    return read_picture(path)


def _picture_folder() -> Path:
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise UserError("the probe set needs scikit-image: install Dragoman again")
    return Path(found.submodule_search_locations[0]) / "data"
