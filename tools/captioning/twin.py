"""The same pipeline on the same texts and the same units of a network with random weights.

Sparse-autoencoder captions have scored as well on random networks as on trained ones (Heap et al.
2025, arXiv:2501.17727): an untrained unit also fires on this word and not on that. What a trained
unit's caption scores more than its twin's is what training has put there to be described.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import Measurement
from dragoman.tools.captioning.assessment import Assessor, judges_for, said_of
from dragoman.tools.captioning.bench import Bench
from dragoman.tools.captioning.describing import captioner_for, choose_all
from dragoman.tools.captioning.readings import Read, Wanted, read_shards
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.subjects.huggingface import random_twin

SUFFIX = "_random_twin"


def assess_twin(
    context: ToolContext, bench: Bench, names: Sequence[str], *, effort: Effort, pmi: bool = True
) -> list[tuple[Measurement, ...]]:
    """For each of the bench's units the twin's scores, each metric called `..._random_twin`.

    Captions are found without a chat model. A unit's scores are empty if it got no caption there,
    or has too few active contexts. Latents have no twin: a dictionary is made for the subject's own
    weights.
    """
    alone = replace(context, chat=None)
    activations = twin_activations(alone, bench, [*bench.units, *bench.decoys])
    captioner = captioner_for(alone, bench.table, activations, len(names))
    choices = choose_all(
        alone, captioner, [f"{name} of the random twin" for name in names], pmi=pmi
    )
    said = [said_of(chosen) for chosen in choices.chosen]
    judges = judges_for(alone, effort)
    assessor = Assessor(alone, captioner, said, effort=effort, judges=judges)
    return [
        ()
        if found is None
        else tuple(
            each.model_copy(update={"metric": each.metric + SUFFIX}) for each in found.measurements
        )
        for found in (assessor.assess(unit, name) for unit, name in enumerate(names))
    ]


def twin_activations(
    context: ToolContext, bench: Bench, units: Sequence[int]
) -> Float[ndarray, "tokens units"]:
    """What units of the random twin do on the bench's texts; each unit's column is cached."""
    wanted = {bench.where: units}
    return read_twin(context, bench.corpus.documents, bench.table, wanted)[bench.where]


def read_twin(
    context: ToolContext, documents: Sequence[str], table: TokenTable, wanted: Wanted
) -> Read:
    """Activations of the random twin's units, of many layers in one pass; each column is cached."""

    @cache
    def with_twin() -> ToolContext:
        context.step(0, 0, "making a twin with random weights")
        return replace(context, network=random_twin(context.subject, context.seed))

    folder = context.cache / "twins" / f"{context.subject.identity.digest}-{context.seed}"
    return read_shards(with_twin, documents, table, wanted, folder)
