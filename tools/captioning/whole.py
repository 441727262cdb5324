"""A corpus that was read whole: captions find its strongest contexts, and use its quantiles.

A sample of a thousand texts tells what a unit does as a rule; where it is strongest in a million is
told only by a pass over all of them. `passes.collect` makes that pass for every unit of a layer at
once and keeps the texts. Captions are then found on a sample and on the strongest contexts, and
judged on the sample alone: of all texts each had the same chance to be in it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dragoman.core.errors import ToolError, UserError
from dragoman.core.records import content_id
from dragoman.tools.captioning.corpora import open_corpus
from dragoman.tools.captioning.corpus import (
    MIN_DOCUMENTS,
    TOKENS,
    Corpus,
    read_corpus,
    sample_corpus,
)
from dragoman.tools.captioning.describing import table_of
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.parts import Further
from dragoman.tools.captioning.passes import collect, count_texts
from dragoman.tools.captioning.store import ExemplarStore
from dragoman.tools.captioning.units import UnitLayer, read_layers
from dragoman.tools.context import ToolContext


class Texts(NamedTuple):
    """What units are watched on."""

    corpus: Corpus
    whole: "WholeCorpus | None" = None
    """What `corpus` is a sample of, where that was read whole."""


class WholeCorpus:
    """A finished store of exemplars, and a sample of its texts."""

    def __init__(self, store: ExemplarStore, seed: int, n_documents: int) -> None:
        """`n_documents` of the store's texts are drawn with `seed`; they keep their order."""
        self.store = store
        total = store.manifest.n_documents
        drawn = np.random.default_rng([seed, 9]).permutation(total)[:n_documents]
        self._sampled = sorted(drawn.tolist())
        self.sample = Corpus(
            id=content_id([self.id, seed, n_documents]),
            description=(
                f"{len(self._sampled)} of {total} texts ({store.manifest.description}) drawn with "
                f"seed {seed}, each cut after {store.manifest.question.tokens} tokens; quantiles "
                "and strongest contexts are those of all"
            ),
            documents=tuple(store.text(number).text for number in self._sampled),
        )

    @property
    def id(self) -> str:
        """Digest of the question and of the corpus's content."""
        manifest = self.store.manifest
        return content_id([manifest.question.model_dump(mode="json"), list(manifest.parts)])

    def further(
        self,
        context: ToolContext,
        where: UnitLayer,
        units: Sequence[int],
        decoys: Sequence[int],
        *,
        dictionary: SparseDictionary | None = None,
    ) -> Further:
        """The strongest contexts of `units` that are not in the sample, read for decoys as well."""
        strongest = {
            exemplar.document for unit in units for exemplar in self.store.exemplars(where, unit)
        }
        numbers = sorted(strongest.difference(self._sampled))
        documents = [self.store.text(number).text for number in numbers]
        columns = [*units, *decoys]
        summaries = self.store.summaries[where].of(columns)
        if not documents:
            return Further(None, np.zeros((0, len(columns)), np.float32), summaries)
        table = table_of(context, documents)
        read = read_layers(context, documents, table, {where: columns}, dictionary=dictionary)
        return Further(table, read[where], summaries)


def texts_of(
    context: ToolContext,
    path: Path | None,
    wheres: Sequence[UnitLayer],
    n_documents: int,
    *,
    entire: bool,
    dictionary: SparseDictionary | None = None,
) -> Texts:
    """A person's texts, or the subject's own; `UserError` names what is wrong with a file.

    Without `entire` the first `n_documents` of a person's count, else all, as of `read_whole`.
    """
    if path is None:
        return Texts(sample_corpus(context, n_documents))
    file = path.expanduser()
    if not entire:
        return Texts(read_corpus(file, context.subject.tokenizer, n_documents))
    return read_whole(context, file, wheres, n_documents, dictionary=dictionary)


def read_whole(
    context: ToolContext,
    path: Path,
    wheres: Sequence[UnitLayer],
    n_documents: int,
    *,
    dictionary: SparseDictionary | None = None,
) -> Texts:
    """A person's texts; more than `n_documents` of them are read whole, in a pass that is cached.

    A pass that was stopped goes on after its last finished shard. `UserError` and `ToolError` as of
    `read_corpus` and `collect`.
    """
    corpus = open_corpus(path)
    count = count_texts(context, corpus.parts)
    if count <= n_documents:
        return Texts(read_corpus(path, context.subject.tokenizer, n_documents))
    store = collect(context, replace(corpus, counted=count), wheres, dictionary=dictionary)
    return _sampled(store, context, n_documents)


def read_store(
    context: ToolContext,
    folder: Path,
    wheres: Sequence[UnitLayer],
    n_documents: int,
    *,
    dictionary: SparseDictionary | None = None,
) -> Texts:
    """What `dragoman exemplars` left, of this subject and these layers among others.

    `UserError` where there is none or it is not finished, `ToolError` where it does not fit.
    """
    store = ExemplarStore.finished(folder)
    question = store.manifest.question
    if question.subject_digest != context.subject.identity.digest:
        raise ToolError(
            f"{folder}: holds exemplars of another subject than {context.subject.identity.name!r}"
        )
    lacking = [str(where) for where in wheres if where not in question.wheres]
    if lacking:
        raise ToolError(
            f"{folder}: holds units of {', '.join(map(str, question.wheres))}, none of "
            f"{', '.join(lacking)}"
        )
    if question.dictionary_digest != ("" if dictionary is None else dictionary.digest):
        raise ToolError(f"{folder}: holds latents of another autoencoder")
    if question.tokens != TOKENS:
        raise ToolError(f"{folder}: its texts are cut after {question.tokens} tokens, not {TOKENS}")
    if store.manifest.n_documents < MIN_DOCUMENTS:
        raise UserError(
            f"{folder}: {store.manifest.n_documents} texts; a corpus needs at least {MIN_DOCUMENTS}"
        )
    return _sampled(store, context, n_documents)


def _sampled(store: ExemplarStore, context: ToolContext, n_documents: int) -> Texts:
    whole = WholeCorpus(store, context.seed, n_documents)
    return Texts(whole.sample, whole)
