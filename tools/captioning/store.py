"""Exemplars of all units of some layers, on disk: memory-mapped, resumable, mergeable to the bit.

A folder holds `manifest.json`, one `units-N.safetensors` (the statistics after N shards of the
corpus) and a `texts-N.safetensors` for each shard. The manifest is written last and names the
others, so that whatever interrupts a run, the folder shows the last finished shard.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dragoman.core.errors import IntegrityError, ToolError, UserError
from dragoman.core.files import atomic_path, write_atomic
from dragoman.core.records import Record
from dragoman.tools.captioning.contexts import CONTEXT_TOKENS
from dragoman.tools.captioning.exemplars import Exemplar, UnitSummaries
from dragoman.tools.captioning.packing import Tokens
from dragoman.tools.captioning.silence import SilentSample
from dragoman.tools.captioning.units import UnitLayer

VERSION = 1
"""Of what the numbers mean; a store of another version is made anew."""
_MANIFEST = "manifest.json"


class Question(Record):
    """All that a store's numbers depend on, except the corpus."""

    subject_digest: str
    seed: int
    wheres: tuple[UnitLayer, ...]
    sizes: tuple[int, ...]
    """Units of each."""
    dictionary_digest: str
    tokens: int
    """Documents are cut after so many."""
    sketch_bits: int
    """One position in 2**bits is counted for the quantile."""
    version: int = VERSION


class Shard(Record):
    """Consecutive documents of one part of a corpus, finished."""

    part: int
    """Which of the corpus's parts."""
    n_documents: int
    texts: str
    """File with the documents."""


class Manifest(Record):
    """What a store holds so far."""

    question: Question
    parts: tuple[str, ...]
    """Content digests of the corpus's parts, in order."""
    description: str
    shards: tuple[Shard, ...] = ()
    units: str = ""
    """File with the statistics; none before the first shard is done."""
    complete: bool = False

    @property
    def n_documents(self) -> int:
        """Documents read so far."""
        return sum(shard.n_documents for shard in self.shards)


class Text(NamedTuple):
    """A document, as far as it was read, and the characters that each token covers."""

    text: str
    offsets: list[tuple[int, int]]

    def tokens(self, start: int, end: int) -> list[str]:
        """The text of tokens `start` up to `end`, as far as there are any."""
        return [self.text[left:right] for left, right in self.offsets[max(start, 0) : end]]


class ExemplarStore:
    """What a pass found, read from disk as it is asked for; possibly of a part of the corpus."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        if not manifest.units:
            raise ToolError(f"{folder}: no shard of the corpus is finished yet")
        tensors = mapped(folder / manifest.units)
        question = manifest.question
        sample = {name: tensors.pop(name) for name in SilentSample.NAMES}
        whole = UnitSummaries(sum(question.sizes), tensors=tensors)
        starts = np.cumsum([0, *question.sizes])
        self._start = dict(zip(question.wheres, starts.tolist(), strict=False))
        self.summaries = {
            where: whole.part(self._start[where], size)
            for where, size in zip(question.wheres, question.sizes, strict=True)
        }
        self._sample = SilentSample(sample)
        self._thresholds = tensors["threshold"].numpy()
        self._first = np.cumsum([0, *(shard.n_documents for shard in manifest.shards)])

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The store in `folder`, whole or partial; `UserError` where there is none."""
        manifest = read_manifest(folder)
        if manifest is None:
            raise UserError(f"{folder}: no exemplar store of this version")
        return cls(folder, manifest)

    @classmethod
    def finished(cls, folder: Path) -> Self:
        """The store in `folder`; `UserError` where there is none, or its run was stopped."""
        store = cls.open(folder)
        if not store.complete:
            raise UserError(f"{folder}: this run is not finished; run it again to its end")
        return store

    @property
    def complete(self) -> bool:
        """The whole corpus was read."""
        return self.manifest.complete

    @property
    def n_positions(self) -> int:
        """Tokens read."""
        return int(next(iter(self.summaries.values())).n_positions)

    def thresholds(self, where: UnitLayer) -> Float[ndarray, " units"]:
        """The units' 0.99 quantiles over the whole corpus, and never below zero."""
        start = self._start[where]
        found: Float[ndarray, " units"] = self._thresholds[
            start : start + self.summaries[where].n_units
        ]
        return found

    def exemplars(self, where: UnitLayer, unit: int) -> list[Exemplar]:
        """The unit's strongest contexts, one a document, strongest first."""
        return self.summaries[where].exemplars(unit)

    def silent(self, where: UnitLayer, unit: int, n: int) -> list[tuple[int, int]]:
        """At most `n` random contexts in which the unit never exceeds its threshold.

        Each as document and first token; of `CONTEXT_TOKENS` tokens, or to the document's end.
        """
        threshold = float(self.thresholds(where)[unit])
        generator = np.random.default_rng([self.manifest.question.seed, where.layer, unit])
        return self._sample.silent(self._start[where] + unit, threshold, n, generator)

    def text(self, document: int) -> Text:
        """A document that was read."""
        if not 0 <= document < self._first[-1]:
            raise IndexError(f"document {document} is outside 0..{self._first[-1] - 1}")
        shard = int(np.searchsorted(self._first, document, side="right")) - 1
        row = document - int(self._first[shard])
        with safe_open(self.folder / self.manifest.shards[shard].texts, framework="np") as opened:
            text, ends = opened.get_slice("text"), opened.get_slice("text_ends")
            offsets, counts = opened.get_slice("offsets"), opened.get_slice("token_ends")
            (start, end), (first, last) = ends[row : row + 2], counts[row : row + 2]
            return Text(
                bytes(text[int(start) : int(end)]).decode(),
                [(int(left), int(right)) for left, right in offsets[int(first) : int(last)]],
            )

    def context(self, document: int, start: int) -> list[str]:
        """The tokens of a context that `silent` named."""
        return self.text(document).tokens(start, start + CONTEXT_TOKENS)


def mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in memory that is the file; `IntegrityError` for a damaged one."""
    try:
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path}: cannot be read ({error}); delete its folder") from None


def read_manifest(folder: Path) -> Manifest | None:
    """What is in `folder`, or None where that is no store of this version."""
    try:
        return Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    except (OSError, ValidationError, ValueError):
        return None


class Writer:
    """Adds shard after shard to a store's folder."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    def checkpoint(
        self,
        part: int,
        texts: Sequence[tuple[str, Tokens]],
        summaries: UnitSummaries,
        sample: SilentSample,
    ) -> None:
        """Put on disk that these documents are done; `ToolError` where the disk is full."""
        number = len(self.manifest.shards) + 1
        shard = Shard(part=part, n_documents=len(texts), texts=f"texts-{number:05}.safetensors")
        self._save(shard.texts, _texts(texts))
        self.commit(summaries, sample, (*self.manifest.shards, shard))

    def finish(self) -> None:
        """Say that the whole corpus was read."""
        self.manifest = self.manifest.model_copy(update={"complete": True})
        self._write_manifest()

    def adopt(self, other: ExemplarStore, first_part: int) -> None:
        """Copies of another store's texts, whose parts are counted from `first_part` on."""
        adopted = list(self.manifest.shards)
        for shard in other.manifest.shards:
            name = f"texts-{len(adopted) + 1:05}.safetensors"
            with atomic_path(self.folder / name) as temporary:
                shutil.copyfile(other.folder / shard.texts, temporary)
            part = first_part + shard.part
            adopted.append(shard.model_copy(update={"texts": name, "part": part}))
        self.manifest = self.manifest.model_copy(update={"shards": tuple(adopted)})

    def commit(
        self, summaries: UnitSummaries, sample: SilentSample, shards: tuple[Shard, ...]
    ) -> None:
        """Put the statistics of these shards on disk, in place of those before."""
        old, name = self.manifest.units, f"units-{len(shards):05}.safetensors"
        threshold = torch.from_numpy(summaries.thresholds()).float()
        self._save(name, summaries.tensors | sample.tensors() | {"threshold": threshold})
        self.manifest = self.manifest.model_copy(update={"shards": shards, "units": name})
        self._write_manifest()
        if old and old != name:
            (self.folder / old).unlink(missing_ok=True)

    def _save(self, name: str, tensors: dict[str, Tensor]) -> None:
        try:
            with atomic_path(self.folder / name) as temporary:
                save_file(tensors, temporary)
        except (OSError, SafetensorError) as error:
            raise self._unwritten(error) from None

    def _write_manifest(self) -> None:
        try:
            write_atomic(self.folder / _MANIFEST, self.manifest.model_dump_json())
        except OSError as error:
            raise self._unwritten(error) from None

    def _unwritten(self, error: Exception) -> ToolError:
        read = (read_manifest(self.folder) or self.manifest).n_documents
        return ToolError(
            f"{self.folder}: cannot be written ({error}); the first {read} texts are kept, and "
            "the same call goes on from there once there is room"
        )


def merge(folders: Sequence[Path], target: Path) -> ExemplarStore:
    """One store of what several runs saw: to the bit that of one run over all, in this order.

    The runs asked the same of the same subject; `UserError` where they did not, or where one of
    them was not finished.
    """
    stores = [ExemplarStore.finished(folder) for folder in folders]
    if not stores:
        raise UserError("nothing to merge: name at least one store")
    question = stores[0].manifest.question
    for store in stores:
        if store.manifest.question != question:
            differing = [
                name
                for name in Question.model_fields
                if getattr(store.manifest.question, name) != getattr(question, name)
            ]
            raise UserError(
                f"{store.folder} and {stores[0].folder} differ in {', '.join(differing)}"
            )
    manifests = [store.manifest for store in stores]
    writer = Writer(
        target,
        Manifest(
            question=question,
            parts=tuple(part for each in manifests for part in each.parts),
            description="; ".join(dict.fromkeys(each.description for each in manifests)),
        ),
    )
    summaries = UnitSummaries(sum(question.sizes))
    sample = SilentSample.empty(sum(question.sizes))
    documents = parts = 0
    for store in stores:
        tensors = mapped(store.folder / store.manifest.units)
        other = SilentSample({name: tensors.pop(name) for name in SilentSample.NAMES})
        summaries.merge(UnitSummaries(summaries.n_units, tensors=tensors), shift=documents)
        sample.merge(other, shift=documents)
        documents += store.manifest.n_documents
        writer.adopt(store, parts)
        parts += len(store.manifest.parts)
    writer.commit(summaries, sample, writer.manifest.shards)
    writer.finish()
    return ExemplarStore(target, writer.manifest)


def _texts(documents: Sequence[tuple[str, Tokens]]) -> dict[str, Tensor]:
    cut = [
        text[: tokens.offsets[-1][1]].encode() if tokens.offsets else b""
        for text, tokens in documents
    ]
    offsets = [pair for _, tokens in documents for pair in tokens.offsets]
    return {
        "text": torch.frombuffer(bytearray(b"".join(cut) or b" "), dtype=torch.uint8),
        "text_ends": _ends([len(each) for each in cut]),
        "offsets": torch.tensor(offsets, dtype=torch.int32).reshape(-1, 2),
        "token_ends": _ends([len(tokens.offsets) for _, tokens in documents]),
    }


def _ends(lengths: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int64))
