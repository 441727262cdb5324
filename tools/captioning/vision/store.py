"""Exemplars of a vision subject on disk: memory-mapped, resumable, mergeable to the bit.

A folder holds `manifest.json` and one `units-N.safetensors` (what is known after N pictures). The
manifest is written last and names the other, so whatever interrupts a pass, it shows a whole state.
"""

import errno
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dragoman.core.errors import IntegrityError, ToolError, UserError
from dragoman.core.files import atomic_path, write_atomic
from dragoman.core.records import Record
from dragoman.tools.captioning.vision.masks import MASK_SIZE, masks
from dragoman.tools.captioning.vision.tally import LayerTally

VERSION = 1
"""Of what the numbers mean; a store of another version is made anew."""
_MANIFEST = "manifest.json"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Question(Record):
    """All that the numbers depend on."""

    subject_digest: str
    images_digest: str
    layers: tuple[int, ...]
    units: tuple[int, ...]
    """Of each layer."""
    grids: tuple[tuple[int, int], ...]
    """Height and width of each layer's maps."""
    parts: tuple[tuple[int, int], ...]
    """Which pictures: ranges from a first number up to an end."""
    version: int = VERSION


class Manifest(Record):
    """How far a pass has come."""

    question: Question
    done: int
    """Pictures before this number were seen."""
    failed: dict[int, str]
    """Pictures that did not decode, and why."""
    file: str
    complete: bool


class Stored(NamedTuple):
    """A state of a pass as it lies on disk."""

    folder: Path
    manifest: Manifest

    @property
    def done(self) -> int:
        """Pictures before this number were seen."""
        return self.manifest.done

    @property
    def failed(self) -> dict[int, str]:
        """Pictures that did not decode, and why."""
        return self.manifest.failed

    @property
    def complete(self) -> bool:
        """Whether the pass came to its end."""
        return self.manifest.complete

    def load(self) -> list[dict[str, Tensor]]:
        """Each layer's tensors, memory-mapped."""
        return _mapped(self.folder / self.manifest.file, self.manifest.question.layers)


class VisionExemplar(NamedTuple):
    """One of a unit's strongest pictures."""

    image: int
    activation: float
    """The unit's spatial maximum."""


class VisionExemplars:
    """What a pass found, read from disk as it is asked for. Layers go by the subject's numbers."""

    def __init__(self, folder: Path) -> None:
        manifest = _manifest(folder)
        if manifest is None or not manifest.complete:
            raise UserError(f"{folder}: no finished pass over pictures")
        self.folder, self.manifest = folder, manifest
        self.question = manifest.question

    @cached_property
    def _layers(self) -> dict[int, dict[str, Tensor]]:
        stored = Stored(self.folder, self.manifest).load()
        return dict(zip(self.question.layers, stored, strict=True))

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that were read."""
        return self.question.layers

    @property
    def failed(self) -> dict[int, str]:
        """Pictures that did not decode, by number, and why."""
        return self.manifest.failed

    @property
    def n_images(self) -> int:
        """Pictures that were seen."""
        return sum(end - start for start, end in self.question.parts) - len(self.failed)

    def n_units(self, layer: int) -> int:
        """Units of a layer."""
        return len(self._at(layer)["highest"])

    def thresholds(self, layer: int) -> Float[ndarray, " units"]:
        """The units' 0.99 quantiles over all positions of all pictures, and never below zero."""
        return self._at(layer)["thresholds"].numpy()

    def threshold(self, layer: int, unit: int) -> float:
        """One unit's 0.99 quantile."""
        return float(self._unit(layer, unit, "thresholds"))

    def density(self, layer: int) -> Float[ndarray, " units"]:
        """Share of positions at which a unit is above zero."""
        found = self._at(layer)
        share: Float[ndarray, " units"] = (found["n_above_zero"] / found["n_positions"]).numpy()
        return share

    def dead(self, layer: int) -> Bool[ndarray, " units"]:
        """Units that are never above zero, or everywhere the same: nothing to describe."""
        highest, lowest = self._at(layer)["highest"], self._at(layer)["lowest"]
        return ((highest <= 0) | (highest == lowest)).numpy()

    def highest(self, layer: int) -> Float[ndarray, " units"]:
        """The units' highest activations anywhere."""
        return self._at(layer)["highest"].numpy()

    def images(self, layer: int, unit: int) -> Int64[ndarray, " k"]:
        """Numbers of the unit's strongest pictures, strongest first; fewer than 15 if few exist."""
        numbers = self._unit(layer, unit, "images")
        return numbers[numbers >= 0].numpy()

    def activations(self, layer: int, unit: int) -> Float[ndarray, " k"]:
        """The unit's spatial maxima in those pictures."""
        return self._unit(layer, unit, "activations")[: len(self.images(layer, unit))].numpy()

    def exemplars(self, layer: int, unit: int) -> list[VisionExemplar]:
        """The unit's strongest pictures, strongest first."""
        pairs = zip(self.images(layer, unit), self.activations(layer, unit), strict=True)
        return [VisionExemplar(int(image), float(activation)) for image, activation in pairs]

    def map(self, layer: int, unit: int, image: int) -> Float[ndarray, "h w"]:
        """The unit's activations in one of its strongest pictures, by place."""
        return self._unit(layer, unit, "maps")[self._rank(layer, unit, image)].numpy()

    def mask(
        self, layer: int, unit: int, image: int, size: int | tuple[int, int] = MASK_SIZE
    ) -> Bool[ndarray, "height width"]:
        """Where in one of its strongest pictures the unit exceeds its dataset-wide quantile."""
        found = self._unit(layer, unit, "maps")[self._rank(layer, unit, image)]
        return masks(found, self.threshold(layer, unit), size)

    def masks(
        self, layer: int, unit: int, size: int | tuple[int, int] = MASK_SIZE
    ) -> Bool[ndarray, "k height width"]:
        """The masks of all of the unit's strongest pictures, in their order."""
        found = self._unit(layer, unit, "maps")[: len(self.images(layer, unit))]
        return masks(found, self.threshold(layer, unit), size)

    def tensors(self, layer: int) -> Mapping[str, Tensor]:
        """All that is stored of a layer; for merging and for tests."""
        return self._at(layer)

    def _at(self, layer: int) -> dict[str, Tensor]:
        if layer not in self._layers:
            known = ", ".join(map(str, self.layers))
            raise ToolError(f"layer {layer} was not read (read: {known})")
        return self._layers[layer]

    def _unit(self, layer: int, unit: int, name: str) -> Tensor:
        tensor = self._at(layer)[name]
        if not 0 <= unit < len(tensor):
            raise ToolError(f"unit {unit} is outside 0..{len(tensor) - 1} of layer {layer}")
        return tensor[unit]

    def _rank(self, layer: int, unit: int, image: int) -> int:
        numbers: list[int] = self.images(layer, unit).tolist()
        if image not in numbers:
            raise ToolError(
                f"picture {image} is not among the {len(numbers)} strongest of unit "
                f"{layer}.{unit}: {', '.join(map(str, numbers))}"
            )
        return numbers.index(image)


def open_store(folder: Path, question: Question) -> Stored | None:
    """The state of the pass that answers `question`; None where there is none yet."""
    manifest = _manifest(folder)
    if manifest is None or manifest.question != question:
        return None
    return Stored(folder, manifest) if (folder / manifest.file).is_file() else None


def save_store(
    folder: Path,
    question: Question,
    tallies: Sequence[LayerTally],
    *,
    done: int,
    failed: Mapping[int, str],
    complete: bool,
) -> None:
    """Put the present state on disk, whole or not at all; `UserError` if the disk is full."""
    name = f"units-{done}.safetensors"
    tensors = {
        f"{layer}.{key}": tensor.contiguous()
        for layer, tally in zip(question.layers, tallies, strict=True)
        for key, tensor in tally.tensors().items()
    }
    manifest = Manifest(
        question=question, done=done, failed=dict(failed), file=name, complete=complete
    )
    try:
        with atomic_path(folder / name) as temporary:
            save_file(tensors, temporary)
        write_atomic(folder / _MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    except (OSError, SafetensorError) as error:
        # The library tells a full disk only in its words.
        if getattr(error, "errno", None) in _FULL or "No space left" in str(error):
            raise UserError(
                f"{folder}: the disk is full; what was finished is kept: free some space and run "
                "again"
            ) from error
        raise
    for path in folder.glob("units-*.safetensors"):
        if path.name != name:
            path.unlink(missing_ok=True)


def merged(first: VisionExemplars, second: VisionExemplars, folder: Path) -> VisionExemplars:
    """One result of two, over different pictures of one set; written into `folder`.

    `ToolError` unless both are of the same subject, set and layers, and no picture is in both.
    """
    one, two = first.question, second.question
    if one.model_copy(update={"parts": ()}) != two.model_copy(update={"parts": ()}):
        raise ToolError("exemplars of different subjects, pictures or layers cannot be merged")
    parts = _joined([*one.parts, *two.parts])
    tallies = []
    for layer, n_units, grid in zip(one.layers, one.units, one.grids, strict=True):
        tally = LayerTally(n_units, grid)
        tally.restore(first.tensors(layer))
        tally.merge(second.tensors(layer))
        tallies.append(tally)
    save_store(
        folder,
        one.model_copy(update={"parts": parts}),
        tallies,
        done=parts[-1][1],
        failed={**first.failed, **second.failed},
        complete=True,
    )
    return VisionExemplars(folder)


def _joined(parts: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(parts):
        if joined and start < joined[-1][1]:
            raise ToolError(f"picture {start} is in both results: they cannot be merged")
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(joined)


def _manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def _mapped(path: Path, layers: Sequence[int]) -> list[dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {layer: {} for layer in layers}
    try:
        with safe_open(path, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118  # the library's object is no mapping
                layer, _, name = key.partition(".")
                found[int(layer)][name] = opened.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path}: damaged; delete its folder and run again") from error
    return [found[layer] for layer in layers]
