"""Some of a corpus's documents, with what units do at each of their tokens."""

from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.contexts import Contexts, contexts_of
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
