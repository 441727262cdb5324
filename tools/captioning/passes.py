"""One pass over a corpus for every unit of every requested layer at once.

For each unit: the 15 documents of highest activation (MILAN; Hernandez et al. 2022,
arXiv:2201.11114), the 0.99 quantile over the whole corpus, how often it is above zero, and random
contexts in which it is silent. Memory does not grow with the corpus; every finished shard is on
disk, and a run that was stopped goes on to the same result, to the bit.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt64
from numpy import ndarray
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import content_id
from dragoman.tools.captioning.corpora import TextCorpus, TextPart
from dragoman.tools.captioning.corpus import TOKENS
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.exemplars import Rows, UnitSummaries
from dragoman.tools.captioning.packing import (
    Packed,
    Tokens,
    document_start,
    packed,
    tokenise,
)
from dragoman.tools.captioning.silence import SilentSample, mixed
from dragoman.tools.captioning.store import (
    ExemplarStore,
    Manifest,
    Question,
    Writer,
    mapped,
    read_manifest,
)
from dragoman.tools.captioning.units import UnitLayer, UnitReader
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.language import LanguageSubject

SHARD_TOKENS = 65_536
"""A shard ends here at the latest, so that a stop costs a minute or two."""
SKETCH_BITS = 2
"""One position in four, chosen by hash, is counted for the quantile: after a million tokens the
0.99 quantile stands within 0.99 ± 0.0004 (95%) of the ranks, and the cost is a quarter."""
_TOKENISED_AT_ONCE = 256
_COUNTED_AT_ONCE = 10_000


class _Document(NamedTuple):
    number: int
    """In its part."""
    text: str
    tokens: Tokens


def collect(
    context: ToolContext,
    corpus: TextCorpus,
    wheres: Sequence[UnitLayer],
    *,
    dictionary: SparseDictionary | None = None,
    folder: Path | None = None,
    tokens: int = TOKENS,
    shard_tokens: int = SHARD_TOKENS,
) -> ExemplarStore:
    """Exemplars of all units of `wheres` over `corpus`, each document cut after `tokens` tokens.

    The store lies in `folder`, by default in the cache under the name of all that it depends on;
    what is there already is not done again. Batches never hold documents of two shards, and shards
    never of two parts of the corpus, so that `store.merge` of runs over single parts gives to the
    bit what one run over all of them gives. `ToolError` for an empty corpus, a layer that is not
    there, a full disk; `Interrupted` when asked to stop: finished shards are kept.
    """
    if not wheres or len(set(wheres)) < len(wheres):
        raise ToolError("layers: name at least one, and each once")
    reader = UnitReader(context.subject, wheres, dictionary)
    question = Question(
        subject_digest=context.subject.identity.digest,
        seed=context.seed,
        wheres=tuple(wheres),
        sizes=tuple(reader.sizes.values()),
        dictionary_digest="" if dictionary is None else dictionary.digest,
        tokens=tokens,
        sketch_bits=SKETCH_BITS,
    )
    begun = Manifest(
        question=question,
        parts=tuple(part.id for part in corpus.parts),
        description=corpus.description,
    )
    if folder is None:
        name = content_id([question.model_dump(mode="json"), list(begun.parts), shard_tokens])
        folder = context.cache / "exemplars" / name
    manifest = _kept(folder, begun)
    if not manifest.complete:
        run = _Run(context, reader, Writer(folder, manifest))
        run.read(corpus, tokens, shard_tokens)
        manifest = run.writer.manifest
    return ExemplarStore(folder, manifest)


def count_texts(context: ToolContext, parts: Sequence[TextPart]) -> int:
    """How many texts there are; `UserError` names a bad line."""
    count = 0
    for count, _ in enumerate(chain.from_iterable(part.texts() for part in parts), start=1):
        if count % _COUNTED_AT_ONCE == 0:
            context.step(count, 0, "counting the texts")
    return count


def _kept(folder: Path, begun: Manifest) -> Manifest:
    found = read_manifest(folder)
    if found is None:
        return begun
    if (found.question, found.parts) != (begun.question, begun.parts):
        raise ToolError(f"{folder}: holds the exemplars of another question or corpus")
    return found


class _Run:
    """The state of one pass."""

    def __init__(self, context: ToolContext, reader: UnitReader, writer: Writer) -> None:
        self.writer = writer
        self._context, self._reader = context, reader
        sizes = list(reader.sizes.values())
        manifest = writer.manifest
        if manifest.units:
            # A copy: the file stays what it is until the next shard is done.
            kept = {
                name: tensor.clone()
                for name, tensor in mapped(writer.folder / manifest.units).items()
            }
            sample = {name: kept.pop(name) for name in SilentSample.NAMES}
            self._summaries = UnitSummaries(sum(sizes), tensors=kept)
            self._sample = SilentSample.empty(sum(sizes))
            self._sample.merge(SilentSample(sample), shift=0)
        else:
            self._summaries = UnitSummaries(sum(sizes))
            self._sample = SilentSample.empty(sum(sizes))
        starts = np.cumsum([0, *sizes]).tolist()
        self._parts = {
            where: (slice(start, start + size), self._summaries.part(start, size))
            for (where, size), start in zip(reader.sizes.items(), starts, strict=False)
        }
        self._skip = len(document_start(context.subject))

    def read(self, corpus: TextCorpus, tokens: int, shard_tokens: int) -> None:
        done = self.writer.manifest.shards
        # So that progress has a total, and a bad line is found before the pass, not hours into it.
        total = corpus.n_documents
        if total is None:
            total = count_texts(self._context, corpus.parts)
        for number, part in enumerate(corpus.parts):
            behind = sum(shard.n_documents for shard in done if shard.part == number)
            texts = islice(part.texts(), behind, None)
            for shard in _shards(texts, behind, self._context.subject, tokens, shard_tokens):
                self._read_shard(number, part, shard, total)
        if not int(self._summaries.n_positions):
            raise ToolError(f"the corpus is empty: {corpus.description}")
        self.writer.finish()

    def _read_shard(
        self, number: int, part: TextPart, shard: Sequence[_Document], total: int
    ) -> None:
        first = self.writer.manifest.n_documents
        key = _key(part.id, self._context.seed)
        task = f"reading {self._summaries.n_units} units"
        n_read = first
        for batch in packed(self._context.subject, [each.tokens for each in shard]):
            self._context.step(n_read, total, task)
            n_read += len(batch.rows)
            numbers = torch.from_numpy(first + batch.rows)
            own = np.array([shard[row].number for row in batch.rows], dtype=np.uint64)
            self._read_batch(batch, numbers, own, key)
        self.writer.checkpoint(
            number,
            [(each.text, each.tokens) for each in shard],
            self._summaries,
            self._sample,
        )

    def _read_batch(
        self,
        batch: Packed,
        numbers: Int64[Tensor, " batch"],
        own: UInt64[ndarray, " batch"],
        key: np.uint64,
    ) -> None:
        hashes = mixed(mixed(own + key) + own)
        counted = _counted(hashes, batch.lengths.numpy(), self._skip, batch.batch.ids.shape[1])
        rows = Rows(numbers, self._skip, batch.lengths, counted)
        drawn = self._sample.draw(numbers.tolist(), batch.lengths.tolist(), mixed(hashes))

        def see(where: UnitLayer, activations: Float[Tensor, "batch pos units"]) -> None:
            values = activations.detach().float().cpu()
            units, summaries = self._parts[where]
            summaries.see(rows, values)
            self._sample.see(drawn, self._skip, units, values)

        self._reader.observe(batch.batch, see)
        self._summaries.count_positions(int(batch.lengths.sum()))


def _key(part: str, seed: int) -> np.uint64:
    # By the part's content, not its place: a part draws the same whichever corpus it is in.
    digest = hashlib.sha256(f"exemplars {seed} {part}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def _counted(
    hashes: UInt64[ndarray, " batch"],
    lengths: Int64[ndarray, " batch"],
    skip: int,
    width: int,
) -> Int64[Tensor, " sampled"]:
    steps = np.arange(lengths.max(), dtype=np.uint64)
    each = mixed(mixed(hashes[:, None] + steps) + steps)
    chosen = (each >> np.uint64(64 - SKETCH_BITS) == 0) & (steps < lengths[:, None])
    row, step = chosen.nonzero()
    return torch.from_numpy(row * width + skip + step)


def _shards(
    texts: Iterator[str], first: int, subject: LanguageSubject, tokens: int, shard_tokens: int
) -> Iterator[list[_Document]]:
    shard: list[_Document] = []
    size = 0
    for document in _tokenised(texts, first, subject, tokens):
        shard.append(document)
        size += len(document.tokens.ids)
        if size >= shard_tokens:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def _tokenised(
    texts: Iterator[str], first: int, subject: LanguageSubject, tokens: int
) -> Iterator[_Document]:
    index = first
    while some := list(islice(texts, _TOKENISED_AT_ONCE)):
        for text, read in zip(some, tokenise(some, subject.tokenizer, tokens), strict=True):
            yield _Document(index, text, read)
            index += 1
