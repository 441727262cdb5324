"""Sets of pictures by number, decoded when they are asked for.

What a person's folder holds is not trusted to be a picture: files that do not decode are counted
and named, animations give their first frame, transparency is laid over white, and every colour
mode becomes RGB. Nothing is kept in memory.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dragoman.core.errors import DragomanError, UserError
from dragoman.core.files import file_sha256
from dragoman.core.records import content_id

MAX_PIXELS = 150_000_000
"""A larger picture is refused before it is decoded: it would take half a gigabyte."""
_DRAFT_SIDE = 1024
_TRANSPARENT = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


class Undecodable(DragomanError):
    """A file that is no picture that can be read; the message says which and why."""


@dataclass(frozen=True)
class ImageSet:
    """Pictures by number, each with a name and, where known, the class that it shows."""

    ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    digest: str
    """Of all that decides what the pictures are: names and content, or the recipe."""
    description: str
    """In words, for a report."""
    decode: Callable[[int], Image.Image]
    """Called with a number, from any thread, under `quiet`; raises `Undecodable`."""
    undecodable: tuple[str, ...] = ()
    """Files that were left out because they do not decode."""
    attributes: tuple[Mapping[str, str], ...] = field(default=())
    """What is known to be shown, for pictures that were drawn to a recipe; else empty."""

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> Image.Image:
        """Picture `index` in RGB; `Undecodable` if it turns out damaged."""
        with quiet():
            return self.decode(index)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, in alphabetical order."""
        return tuple(sorted({label for label in self.labels if label is not None}))

    def of_class(self, label: str) -> list[int]:
        """The numbers of the pictures with that label."""
        return [index for index, each in enumerate(self.labels) if each == label]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PIL's remarks on large pictures, odd palettes and metadata off the terminal.

    Filters of warnings belong to the process, not to a thread: enter it once, around the threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def folder_images(path: Path | str, limit: int | None = None) -> ImageSet:
    """The pictures in a folder and its sub-folders; a sub-folder's name is its pictures' class.

    Nothing is decoded here but headers. With `limit`, every n-th picture is taken, so that each
    class keeps its share. `UserError` if there is no such folder, no picture in it, or none that
    decodes.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"images {str(path)!r}: no such folder; name a folder of pictures")
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = sorted(
        file
        for file in root.rglob("*")
        if file.suffix.lower() in known and file.is_file() and not file.name.startswith(".")
    )
    if not files:
        raise UserError(f"images {str(path)!r}: no picture files (.jpg, .png, .webp …) in it")
    if limit is not None and len(files) > limit:
        files = [files[index * len(files) // limit] for index in range(limit)]
    good, bad = [], []
    with quiet():
        for file in files:
            try:
                _open(file).close()
            except Undecodable:
                bad.append(str(file.relative_to(root)))
            else:
                good.append(file)
    if not good:
        raise UserError(
            f"images {str(path)!r}: none of its {len(files)} picture files decodes, "
            f"first {bad[0]!r}"
        )
    names = tuple(str(file.relative_to(root)) for file in good)
    left_out = f", {len(bad)} more did not decode" if bad else ""
    return ImageSet(
        ids=names,
        labels=tuple(_class_of(file, root) for file in good),
        digest=content_id(
            [[name, file_sha256(file)] for name, file in zip(names, good, strict=True)]
        ),
        description=f"{len(good)} pictures of the folder {root.name!r}{left_out}",
        decode=lambda index: read_picture(good[index], names[index]),
        undecodable=tuple(bad),
    )


def read_picture(file: Path, name: str | None = None) -> Image.Image:
    """One picture file as RGB, turned the way its camera was held; `Undecodable` otherwise."""
    try:
        with _open(file) as opened:
            # A JPEG can be decoded at a fraction of its size, no network sees more of it.
            opened.draft(None, (_DRAFT_SIDE, _DRAFT_SIDE))
            opened.load()
            return as_rgb(ImageOps.exif_transpose(opened))
    except Undecodable:
        raise
    # What a damaged file raises inside its decoder has no common base class.
    except Exception as error:
        raise Undecodable(f"{name or file.name}: {_reason(error)}") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency over white, more than 8 bits a channel scaled down."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        values = np.nan_to_num(values, posinf=0, neginf=0)
        low = min(values.min(initial=0), 0)
        # Integers fill 16 bits by convention; floats have no range but their own.
        high = max(values.max(initial=1), 1) if image.mode == "F" else 65535
        if image.mode != "F" and values.max(initial=0) <= 255:
            high = 255
        scaled = (values - low) / (high - low) * 255
        return Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _open(file: Path) -> Image.Image:
    try:
        opened = Image.open(file)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Undecodable(f"{file.name}: {_reason(error)}") from error
    if opened.width * opened.height > MAX_PIXELS:
        opened.close()
        raise Undecodable(f"{file.name}: more than {MAX_PIXELS // 1_000_000} million pixels")
    return opened


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _class_of(file: Path, root: Path) -> str | None:
    parts = file.relative_to(root).parts
    return parts[0] if len(parts) > 1 else None


def chosen(images: ImageSet, indices: Sequence[int]) -> ImageSet:
    """Some of the pictures, renumbered in the order given."""
    picked = list(indices)
    return ImageSet(
        ids=tuple(images.ids[index] for index in picked),
        labels=tuple(images.labels[index] for index in picked),
        digest=content_id([images.digest, picked]),
        description=f"{len(picked)} of {images.description}",
        decode=lambda index: images.load(picked[index]),
        attributes=tuple(images.attributes[index] for index in picked) if images.attributes else (),
    )
