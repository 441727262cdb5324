"""A table of the patches of many images, and where in it a concept holds.

What is computed for an image is kept by the image's content, so a second look at the same images
costs nothing.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image

from dragoman.core.files import write_atomic
from dragoman.tools.captioning.composition import Column
from dragoman.tools.captioning.vision import colours, objects, shapes, textures
from dragoman.tools.captioning.vision.areas import standing_out
from dragoman.tools.captioning.vision.concepts import (
    TONES,
    Both,
    Colour,
    Concept,
    Either,
    Not,
    Object,
    OfClass,
    Shape,
    Somewhere,
    Texture,
    Thing,
    Toned,
)
from dragoman.tools.captioning.vision.labeller import TOP, Labeller
from dragoman.tools.captioning.vision.labels import kinds
from dragoman.tools.captioning.vision.textures import GRID, PATCH, SIDE

PATCHES = GRID * GRID
_MOST_KNOWN = 1000
"""Columns of truth values that a table remembers."""
CHUNK = 16
_COLOUR_SHARE = 0.4
"""Share of a patch's pixels that a colour has to have."""
_BRIGHT, _DARK, _VIVID = 0.85, 0.3, 0.15
"""Mean lightness, mean lightness and mean chroma in OKLab."""
_KIND_PROBABILITY, _CLASS_PROBABILITY = 0.5, 0.3
_VERSION = "4"
"""Of what is kept: a change of any concept's definition changes it."""


class _Columns(NamedTuple):
    """What is known of the patches of some images; first axis images, second patches."""

    colours: Bool[ndarray, "images patches colours"]
    tones: Bool[ndarray, "images patches tones"]
    textures: Bool[ndarray, "images patches textures"]
    shapes: Bool[ndarray, "images patches shapes"]
    object_colours: Bool[ndarray, "images patches colours"]
    object_textures: Bool[ndarray, "images patches object_textures"]
    kinds: Bool[ndarray, "images patches kinds"]
    classes: npt.NDArray[np.int16]
    """[images, patches, TOP]; -1 where nothing is probable enough."""


class PatchTable:
    """Images cut into 14 by 14 patches; columns of truth values in the order of the images."""

    def __init__(self, columns: _Columns) -> None:
        self.columns = columns
        self._known: dict[str, Column] = {}

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.columns.colours)

    @property
    def sees_things(self) -> bool:
        """Whether a labeller looked at the images."""
        return bool((self.columns.classes >= 0).any())

    def rows(self, images: npt.NDArray[np.int64]) -> "PatchTable":
        """The table of some of the images."""
        return PatchTable(_Columns(*(part[images] for part in self.columns)))

    def holds(self, concept: Concept) -> Column:
        """[images * patches]: where the concept holds."""
        key = concept.model_dump_json()
        column = self._known.get(key)
        if column is None:
            # Each unit adds concepts that no other asks about.
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            column = self._known[key] = self._evaluated(concept).reshape(-1)
        return column

    def counts(self, concept: Concept) -> npt.NDArray[np.int64]:
        """For each image, at how many of its patches the concept holds."""
        counts: npt.NDArray[np.int64] = self.holds(concept).reshape(-1, PATCHES).sum(axis=1)
        return counts

    def likely_classes(self, active: Column) -> list[int]:
        """Classes seen at active patches, by the number of images, at least two of them."""
        at = active.reshape(-1, PATCHES)
        seen: dict[int, int] = {}
        for image in np.flatnonzero(at.any(axis=1)):
            for each in np.unique(self.columns.classes[image][at[image]]):
                if each >= 0:
                    seen[int(each)] = seen.get(int(each), 0) + 1
        return [each for each, n in sorted(seen.items(), key=lambda item: -item[1]) if n >= 2]

    def descriptions(
        self, at: Bool[ndarray, "images patches"]
    ) -> Float[ndarray, "images concepts"]:
        """The share of each image's patches `at` at which each concept holds, classes left out."""
        parts = self.columns[:-1]
        held = np.concatenate([part.astype(np.float32) for part in parts], axis=2)
        weights = at / np.maximum(at.sum(axis=1, keepdims=True), 1)
        shares: Float[ndarray, "images concepts"] = np.einsum("ipc,ip->ic", held, weights)
        return shares

    def _evaluated(self, concept: Concept) -> Column:
        columns = self.columns
        match concept:
            case Colour(name=name):
                return columns.colours[..., colours.NAMES.index(name)]
            case Toned(name=tone):
                return columns.tones[..., TONES.index(tone)]
            case Texture(name=name):
                return columns.textures[..., textures.NAMES.index(name)]
            case Shape(name=name):
                return columns.shapes[..., shapes.NAMES.index(name)]
            case Object(of=Colour(name=name)):
                return columns.object_colours[..., colours.NAMES.index(name)]
            case Object(of=inner):
                return columns.object_textures[..., objects.TEXTURES.index(inner.name)]
            case Thing(name=name):
                return columns.kinds[..., list(kinds()).index(name)]
            case OfClass(index=index):
                return np.asarray((columns.classes == index).any(axis=-1))
            case Somewhere(of=inner):
                return np.repeat(self.counts(inner) > 0, PATCHES)
            case Not(of=inner):
                return ~self.holds(inner)
            case Both(of=parts):
                return np.asarray(np.stack([self.holds(part) for part in parts]).all(axis=0))
            case Either(of=parts):
                return np.asarray(np.stack([self.holds(part) for part in parts]).any(axis=0))


def patch_table(
    views: Sequence[UInt8[ndarray, "h w 3"]],
    *,
    labeller: Labeller | None,
    cache: Path | None = None,
) -> PatchTable:
    """The table of images that were cut out already, all of one size.

    Without a labeller no patch is taken for any thing. What was measured is kept in `cache`.
    """
    chunks = [
        np.stack([sized(view) for view in views[start : start + CHUNK]])
        for start in range(0, len(views), CHUNK)
    ]
    return joined([PatchTable(_columns(chunk, labeller, cache)) for chunk in chunks])


def joined(tables: Sequence[PatchTable]) -> PatchTable:
    """One table of the images of all."""
    parts = [table.columns for table in tables]
    return PatchTable(_Columns(*(np.concatenate(part) for part in zip(*parts, strict=True))))


def in_images(column: Column) -> Column:
    """For each image, whether `column` holds at some patch of it."""
    found: Column = np.logical_or.reduce(column.reshape(-1, PATCHES), axis=1)
    return found


def sized(view: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "224 224 3"]:
    """The image at the size that concepts are measured at."""
    if view.shape[:2] == (SIDE, SIDE):
        return view
    return np.asarray(Image.fromarray(view).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _columns(
    views: UInt8[ndarray, "images 224 224 3"], labeller: Labeller | None, cache: Path | None
) -> _Columns:
    if cache is None:
        return _measured(views, labeller)
    digest = hashlib.sha256(views.tobytes())
    digest.update(f"{_VERSION} {labeller is not None}".encode())
    kept = cache / "patches" / f"{digest.hexdigest()[:32]}.npz"
    try:
        with np.load(kept, allow_pickle=False) as read:
            return _Columns(*(_unpacked(read, name) for name in _Columns._fields))
    except (OSError, ValueError, KeyError, EOFError):  # absent, or cut short: made anew
        columns = _measured(views, labeller)
    write_atomic(kept, _packed(columns))
    return columns


def _measured(views: UInt8[ndarray, "images 224 224 3"], labeller: Labeller | None) -> _Columns:
    n = len(views)
    flat = (n, PATCHES, -1)
    names = colours.named(views)
    one_hot = names[..., None] == np.arange(len(colours.NAMES), dtype=np.uint8)
    lightness, chroma = colours.lightness_and_chroma(views)
    bright, colourful = _patch_means(lightness), _patch_means(chroma)
    tones = np.stack([bright > _BRIGHT, bright < _DARK, colourful > _VIVID], axis=-1)
    if labeller is None:
        seen = np.zeros((n, PATCHES, len(kinds())), dtype=bool)
        classes = np.full((n, PATCHES, TOP), -1, np.int16)
    else:
        labels = labeller.places(views)
        seen = labels.kinds > _KIND_PROBABILITY
        classes = np.where(labels.top_probability > _CLASS_PROBABILITY, labels.top, -1)
    apart = [standing_out(each) for each in names]
    of_shapes = [shapes.shapes(*each) for each in zip(names, apart, strict=True)]
    of_objects = [objects.objects(*each) for each in zip(views, names, apart, strict=True)]
    return _Columns(
        colours=(_patch_means(one_hot) > _COLOUR_SHARE).reshape(flat),
        tones=tones.reshape(flat),
        textures=np.stack([textures.textures(view) for view in views]).reshape(flat),
        shapes=np.stack(of_shapes).reshape(flat),
        object_colours=np.stack([each for each, _ in of_objects]).reshape(flat),
        object_textures=np.stack([each for _, each in of_objects]).reshape(flat),
        kinds=seen.reshape(flat),
        classes=classes.astype(np.int16).reshape(flat),
    )


def _patch_means(values: npt.NDArray[np.generic]) -> Float[ndarray, "images 14 14 *rest"]:
    shape = (len(values), GRID, PATCH, GRID, PATCH, *values.shape[3:])
    means: Float[ndarray, "images 14 14 *rest"] = values.reshape(shape).mean(
        axis=(2, 4), dtype=np.float32
    )
    return means


def _packed(columns: _Columns) -> bytes:
    written = io.BytesIO()
    arrays: dict[str, npt.NDArray[np.generic]] = {"classes": columns.classes}
    for name in _Columns._fields[:-1]:
        column = getattr(columns, name)
        arrays[name] = np.packbits(column, axis=None)
        arrays[f"{name}_shape"] = np.array(column.shape)
    np.savez_compressed(written, allow_pickle=False, **arrays)
    return written.getvalue()


def _unpacked(read: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    if name == "classes":
        return read[name]
    shape = tuple(int(size) for size in read[f"{name}_shape"])
    bits = np.unpackbits(read[name].astype(np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)
