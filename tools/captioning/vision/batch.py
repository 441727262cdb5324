"""Units of a vision subject for the batch engine: many layers a pass, captioned as by the tool."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dragoman.core.files import write_atomic
from dragoman.core.records import content_id
from dragoman.tools.captioning.batch import BatchSettings, Group
from dragoman.tools.captioning.batch_language import GROUP_UNITS, ranges
from dragoman.tools.captioning.meanings import embedder
from dragoman.tools.captioning.rows import ImageExemplar, UnitCaption, row_of_entry, unit_name
from dragoman.tools.captioning.vision.bench import (
    DECOYS,
    VisionBench,
    bench_of,
    decoys,
    labeller_of,
    shown_exemplars,
    split_of,
)
from dragoman.tools.captioning.vision.captioner import TAU
from dragoman.tools.captioning.vision.causal import with_causes
from dragoman.tools.captioning.vision.describing import Proposer, choose_all, choose_twin
from dragoman.tools.captioning.vision.entries import entry_of
from dragoman.tools.captioning.vision.images import ImageSet
from dragoman.tools.captioning.vision.parts import ImageSplit
from dragoman.tools.captioning.vision.patches import PATCHES
from dragoman.tools.captioning.vision.pictures import grid, masked_views
from dragoman.tools.captioning.vision.scores import assess_bench
from dragoman.tools.captioning.vision.store import VisionExemplars
from dragoman.tools.captioning.vision.survey import Asked, Survey, survey
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tools_digest
from dragoman.tools.subjects.vision import VisionSubject
from dragoman.tools.subjects.vision_twin import random_vision_twin

PICTURES = "pictures"
_CHUNK_BYTES = 320 * 1024 * 1024


class _Asked(NamedTuple):
    """A group's units, with the decoys that their floors need."""

    layer: int
    units: tuple[int, ...]
    decoys: tuple[int, ...]

    @property
    def columns(self) -> tuple[int, ...]:
        return (*self.units, *self.decoys)


class _Seen(NamedTuple):
    """A pass over the images for several groups."""

    survey: Survey
    places: dict[int, int]
    """Of each group, where its units stand in the survey; the twin's come right after."""


class VisionUnits:
    """Requested channels of a vision subject, and how to describe them."""

    def __init__(
        self,
        context: ToolContext,
        requests: Mapping[int, Sequence[int]],
        images: ImageSet,
        *,
        effort: Effort,
        pmi: bool = True,
        thorough: bool = False,
        proposers: Sequence[Proposer] = (),
    ) -> None:
        """`requests` names units by layer; `thorough` adds the random twin and the
        causal check.

        `ToolError` for a layer or a unit that the subject lacks.
        """
        for layer, units in requests.items():
            context.vision.check_units(layer, units)
        self._context, self._images, self._effort = context, images, effort
        self._pmi, self._thorough, self._requests = pmi, thorough, requests
        self._proposers = proposers
        self._asked = [
            _Asked(layer, group, tuple(decoys(context, layer, group, DECOYS[effort])))
            for layer, units in requests.items()
            for start in range(0, len(units), GROUP_UNITS)
            for group in [tuple(units[start : start + GROUP_UNITS])]
        ]
        self._seen: _Seen | None = None
        self._split: ImageSplit | None = None

    @cached_property
    def groups(self) -> list[Group]:
        """Names of the units that are captioned together."""
        return [
            Group(tuple(unit_name("channel", each.layer, unit) for unit in each.units))
            for each in self._asked
        ]

    @property
    def settings(self) -> BatchSettings:
        """All that the rows depend on."""
        subject = self._context.vision.identity
        return BatchSettings(
            subject=subject.name,
            subject_digest=subject.digest,
            units=tuple(
                f"{self._context.vision.layers[layer]} (layer {layer}): {ranges(units)}"
                for layer, units in self._requests.items()
            ),
            units_digest=content_id([list(group.names) for group in self.groups]),
            corpus=self._images.description,
            corpus_digest=content_id(
                [
                    self._images.digest,
                    labeller_of(self._context) is not None,
                    embedder(self._context) is not None,
                ]
            ),
            effort=self._effort,
            seed=self._context.seed,
            chat=", ".join(proposer.name for proposer in self._proposers),
            pmi=self._pmi,
            thorough=self._thorough,
            code=tools_digest(),
        )

    def describe(self, folder: Path, index: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
        """The rows of the units `wanted` of a group; their pictures go into the run's `folder`."""
        asked, bench = self._asked[index], self._bench(index)
        choices = choose_all(self._context, bench, pmi=self._pmi, proposers=self._proposers)
        found = assess_bench(
            bench,
            choices.chosen,
            choose_twin(bench, pmi=self._pmi),
            effort=self._effort,
            seed=self._context.seed,
            vectors=embedder(self._context),
        )
        if self._thorough:
            found = with_causes(self._context, bench, choices.chosen, found, effort=self._effort)
        tau = TAU if self._pmi else 0.0
        for column, name in enumerate(self.groups[index].names):
            if name not in wanted:
                continue
            self._context.step(column, len(asked.units), f"writing unit {name}")
            scored = found[column]
            entry = entry_of(bench, column, choices.chosen[column], scored, tau=tau)
            if bench.n_failed:
                entry["n_images_failed"] = bench.n_failed
            if choices.replies_per_unit:
                entry["replies_per_unit"] = dict(choices.replies_per_unit)
            yield row_of_entry(
                "channel",
                asked.layer,
                asked.units[column],
                entry,
                () if scored is None else scored.measurements,
                () if scored is None else scored.controls,
                images=self._picture(folder, asked.layer, asked.units[column]),
            )

    def _picture(self, folder: Path, layer: int, unit: int) -> ImageExemplar | None:
        exemplars, images = self._exemplars
        if exemplars.dead(layer)[unit]:
            return None
        name = f"{PICTURES}/{layer}.{unit}.jpg"
        write_atomic(
            folder / name, grid(masked_views(self._context.vision, images, exemplars, layer, unit))
        )
        shown = exemplars.exemplars(layer, unit)
        labels = [images.labels[each.image] for each in shown]
        return ImageExemplar(
            picture=name,
            activations=tuple(round(each.activation, 4) for each in shown),
            labels=tuple(label or "" for label in labels) if any(labels) else (),
        )

    @cached_property
    def _exemplars(self) -> tuple[VisionExemplars, ImageSet]:
        """Of every unit of every layer that is asked about, in one pass."""
        assert self._seen is not None  # its bench is there before a unit's picture is wanted
        return shown_exemplars(self._context, self._seen.survey.images, list(self._requests))

    def _bench(self, index: int) -> VisionBench:
        """A group laid out as the tool would lay it out."""
        split, seen = self._split_and_seen(index)
        asked, place = self._asked[index], seen.places[index]
        return bench_of(
            self._context,
            seen.survey,
            split,
            asked.layer,
            asked.units,
            asked.columns,
            place=place,
            twin_place=place + 1 if self._thorough else None,
        )

    def _split_and_seen(self, index: int) -> tuple[ImageSplit, _Seen]:
        if self._seen is None or index not in self._seen.places:
            self._seen = None  # Room for the next before it is read.
            self._seen = self._look_from(index)
        if self._split is None:
            self._split = split_of(self._context, self._seen.survey)
        return self._split, self._seen

    def _look_from(self, first: int) -> _Seen:
        """Look at the images for a group, and for as many after it as memory is given for."""
        subjects: list[VisionSubject] = [self._context.vision]
        if self._thorough:
            subjects.append(random_vision_twin(self._context.vision, self._context.seed))
        most = _CHUNK_BYTES // (4 * PATCHES * max(len(self._images), 1) * len(subjects))
        asked: list[Asked] = []
        places: dict[int, int] = {}
        n_columns = 0
        for index, group in enumerate(self._asked[first:], start=first):
            n_columns += len(group.columns)
            if asked and n_columns > most:
                break
            places[index] = len(asked)
            asked += [Asked(subject, group.layer, group.columns) for subject in subjects]
        seen = survey(self._context, self._images, asked, labeller_of(self._context))
        return _Seen(seen, places)
