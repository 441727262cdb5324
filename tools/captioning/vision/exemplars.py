"""Where in which pictures each unit is most active: one pass for all layers (MILAN's exemplars).

Hernandez et al. 2022 (arXiv:2201.11114): the 15 pictures of highest spatial maximum, and a
threshold at the 0.99 quantile of the unit over all positions of all pictures. MILAN runs the data
once for each layer and once more for the masks; here the maps of the best pictures so far are kept
as the pass goes along, so one forward pass a picture is all.

Pictures go through the network in fixed batches that begin at multiples of their size, whatever
part of the set is asked for and whatever fails to decode. So a pass that was stopped goes on, and
two halves merge, to the same result to the bit.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from dragoman.core.errors import Interrupted, ToolError
from dragoman.tools.captioning.vision.images import ImageSet, Undecodable, quiet
from dragoman.tools.captioning.vision.store import Question, VisionExemplars, open_store, save_store
from dragoman.tools.captioning.vision.tally import LayerTally
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.vision import VisionSubject

BATCH = 16
CHECKPOINT_BATCHES = 64
"""A pass that is killed loses at most so many batches."""


class _Batch(NamedTuple):
    """Consecutive pictures; one that did not decode is black and stands in `failed`."""

    start: int
    views: UInt8[ndarray, "batch h w 3"]
    failed: dict[int, str]
    """Picture number and reason."""
    real: list[int]
    """Rows that hold a picture: neither failed nor there to fill the batch."""


def collect(
    context: ToolContext,
    images: ImageSet,
    layers: Sequence[int],
    *,
    part: tuple[int, int] | None = None,
    folder: Path | None = None,
) -> VisionExemplars:
    """The exemplars of every unit of `layers` over `images`, in one pass.

    The result lies memory-mapped in the cache (or in `folder`) and is found there the next time; a
    pass that was interrupted goes on where it stopped. `part` takes pictures `start` up to `end`
    alone, for results that are merged afterwards (`store.merged`).

    Raises:
        ToolError: the subject has no such layer, or its activations are not finite.
        UserError: no picture could be decoded, or the disk is full.
        Interrupted: the person asked to stop; what was seen is kept.
    """
    subject = context.vision
    for layer in layers:
        subject.check_layer(layer)
    start, end = part or (0, len(images))
    if not 0 <= start < end <= len(images) or start % BATCH:
        raise ToolError(
            f"pictures {start} to {end}: give a part of 0..{len(images)} that begins at a "
            f"multiple of {BATCH}"
        )
    question = Question(
        subject_digest=subject.identity.digest,
        images_digest=images.digest,
        layers=tuple(sorted(set(layers))),
        units=tuple(subject.n_units(layer) for layer in sorted(set(layers))),
        grids=tuple(subject.grid(layer) for layer in sorted(set(layers))),
        parts=((start, end),),
    )
    folder = folder or context.cache / "vision_exemplars" / question.content_id()[:24]
    found = open_store(folder, question)
    if found is not None and found.complete:
        return VisionExemplars(folder)
    tallies = [
        LayerTally(n_units, grid)
        for n_units, grid in zip(question.units, question.grids, strict=True)
    ]
    done, failed = start, dict[int, str]()
    if found is not None:
        done, failed = found.done, dict(found.failed)
        for tally, tensors in zip(tallies, found.load(), strict=True):
            tally.restore(tensors)
    with quiet():
        _run(context, images, question, folder, tallies, done, failed)
    return VisionExemplars(folder)


def _run(
    context: ToolContext,
    images: ImageSet,
    question: Question,
    folder: Path,
    tallies: Sequence[LayerTally],
    done: int,
    failed: dict[int, str],
) -> None:
    subject = context.vision
    ((start, end),) = question.parts
    saved = done

    def save(*, complete: bool = False) -> None:
        save_store(folder, question, tallies, done=done, failed=failed, complete=complete)

    try:
        for batch in _batches(subject, images, done, end):
            shown = f"reading {sum(question.units)} units in {end - start} pictures"
            context.step(done - start, end - start, shown)
            failed |= batch.failed
            maps = subject.maps(subject.pixels(batch.views), question.layers)
            numbers = torch.tensor([batch.start + row for row in batch.real])
            for tally, layer in zip(tallies, question.layers, strict=True):
                if batch.real:
                    tally.see(numbers, maps.pop(layer)[batch.real].cpu())
            done = min(batch.start + BATCH, end)
            if done - saved >= CHECKPOINT_BATCHES * BATCH and done < end:
                save()
                saved = done
    except (Interrupted, KeyboardInterrupt):
        if done > saved:
            save()
        raise
    if len(failed) == end - start:
        first = next(iter(failed.values()))
        raise ToolError(f"none of the {end - start} pictures decodes, first {first}")
    save(complete=True)


def _batches(subject: VisionSubject, images: ImageSet, start: int, end: int) -> Iterator[_Batch]:
    """Batches in order, each decoded by a second thread while the network reads the one before."""
    height, width = subject.preprocessing.size

    def decoded(first: int) -> _Batch:
        views = np.zeros((BATCH, height, width, 3), np.uint8)
        failed, real = dict[int, str](), list[int]()
        for row in range(min(BATCH, end - first)):
            try:
                views[row] = subject.view(images.decode(first + row))
            except Undecodable as error:
                failed[first + row] = str(error)
            else:
                real.append(row)
        return _Batch(first, views, failed, real)

    starts = iter(range(start, end, BATCH))
    with ThreadPoolExecutor(1, thread_name_prefix="decoding") as pool:
        first = next(starts, None)
        coming = None if first is None else pool.submit(decoded, first)
        while coming is not None:
            batch = coming.result()
            following = next(starts, None)
            coming = None if following is None else pool.submit(decoded, following)
            yield batch
