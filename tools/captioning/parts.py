"""Some of a corpus's documents, with what units do at each of their tokens."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.contexts import Contexts, contexts_of
from dragoman.tools.captioning.exemplars import UnitSummaries
from dragoman.tools.captioning.tokens import TokenTable


class Part(NamedTuple):
    """The tokens of some of the documents."""

    table: TokenTable
    contexts: Contexts
    activations: Float[ndarray, "tokens units"]

    @property
    def texts(self) -> list[str]:
        """Each context's text."""
        ends = [*self.contexts.starts[1:], self.table.n]
        return [
            "".join(self.table.surface[start:end])
            for start, end in zip(self.contexts.starts, ends, strict=True)
        ]


def part_of(
    table: TokenTable, activations: Float[ndarray, "tokens units"], first: int, end: int
) -> Part:
    """The documents from number `first` on, up to `end`."""
    rows = table.stretch(first, end)
    chosen = (table.document >= first) & (table.document < end)
    return Part(rows, contexts_of(rows), activations[chosen])


class Further(NamedTuple):
    """What a pass over a whole corpus adds to what is seen on a sample of its texts."""

    table: TokenTable | None
    """Documents at which the units are strongest in the whole corpus, none of them in the sample;
    numbered from 0. None where all of them are in the sample."""
    activations: Float[ndarray, "tokens units"]
    """Of the units on these documents."""
    summaries: UnitSummaries
    """Of the same units on the whole corpus."""


def with_further(part: Part, further: Further, first: int) -> Part:
    """The part, and the further documents behind its own, numbered from `first` on."""
    if further.table is None:
        return part
    rows = part.table.followed_by(further.table, first)
    return Part(rows, contexts_of(rows), np.concatenate([part.activations, further.activations]))
