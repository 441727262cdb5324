"""Random contexts in which a unit is silent, drawn while a corpus streams past.

Which contexts are silent is known only at the end, when the threshold is. So the pass keeps, of a
random sample of contexts, how active every unit became; the sample is the contexts of lowest hash,
so that it is the same whoever read which part of the corpus.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt64
from numpy import ndarray
from torch import Tensor

from dragoman.tools.captioning.contexts import CONTEXT_TOKENS

SAMPLED_CONTEXTS = 256
_NO_PRIORITY = torch.iinfo(torch.int64).max


class Drawn(NamedTuple):
    """A document of a batch that enters the sample."""

    row: int
    """In the batch."""
    start: int
    """The context's first token."""
    end: int
    slot: int
    """Where in the sample."""


def mixed(values: UInt64[ndarray, "*any"]) -> UInt64[ndarray, "*any"]:
    """Well-mixed bits of each number (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    finished: UInt64[ndarray, "*any"] = values ^ (values >> np.uint64(31))
    return finished


class SilentSample:
    """For each of `SAMPLED_CONTEXTS` random contexts, the highest activation of every unit."""

    NAMES: ClassVar = ("context_priority", "context_document", "context_start", "context_peaks")

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._priority: Int64[Tensor, " contexts"] = tensors["context_priority"]
        self._document: Int64[Tensor, " contexts"] = tensors["context_document"]
        self._start: Int64[Tensor, " contexts"] = tensors["context_start"]
        self._peaks: Float[Tensor, "contexts units"] = tensors["context_peaks"]

    @classmethod
    def empty(cls, n_units: int) -> Self:
        """A sample of nothing."""
        return cls(
            {
                "context_priority": torch.full((SAMPLED_CONTEXTS,), _NO_PRIORITY),
                "context_document": torch.zeros(SAMPLED_CONTEXTS, dtype=torch.int64),
                "context_start": torch.zeros(SAMPLED_CONTEXTS, dtype=torch.int64),
                "context_peaks": torch.zeros(SAMPLED_CONTEXTS, n_units),
            }
        )

    def draw(
        self,
        documents: Sequence[int],
        lengths: Sequence[int],
        hashes: UInt64[ndarray, " batch"],
    ) -> list[Drawn]:
        """Which documents of a batch enter the sample; one random context of each."""
        drawn: dict[int, Drawn] = {}
        priorities = (hashes >> np.uint64(1)).astype(np.int64).tolist()
        for row, (document, length, priority) in enumerate(
            zip(documents, lengths, priorities, strict=True)
        ):
            slot = int(self._priority.argmax())
            if priority >= int(self._priority[slot]):
                continue
            which = priority % -(-length // CONTEXT_TOKENS)
            start = which * CONTEXT_TOKENS
            self._priority[slot], self._document[slot] = priority, document
            self._start[slot] = start
            drawn[slot] = Drawn(row, start, min(start + CONTEXT_TOKENS, length), slot)
        return list(drawn.values())

    def see(
        self,
        drawn: Sequence[Drawn],
        skip: int,
        units: slice,
        activations: Float[Tensor, "batch pos units"],
    ) -> None:
        """Keep how active these units became in what was drawn of this batch."""
        for each in drawn:
            context = activations[each.row, skip + each.start : skip + each.end]
            # numpy: as little as this is not worth waking torch's threads.
            self._peaks[each.slot, units] = torch.from_numpy(context.numpy().max(axis=0))

    def merge(self, other: Self, *, shift: int) -> None:
        """Take in another run's sample, `shift` added to its documents' numbers."""
        priority = torch.cat([self._priority, other._priority])
        kept = priority.argsort(stable=True)[: len(self._priority)]
        self._document = torch.cat([self._document, other._document + shift])[kept]
        self._start = torch.cat([self._start, other._start])[kept]
        self._peaks = torch.cat([self._peaks, other._peaks])[kept]
        self._priority = priority[kept]

    def tensors(self) -> dict[str, Tensor]:
        """The sample in an order that does not depend on how it came about."""
        order = self._priority.argsort(stable=True)
        order = order[self._priority[order] != _NO_PRIORITY]
        values = (self._priority, self._document, self._start, self._peaks)
        return {name: value[order] for name, value in zip(self.NAMES, values, strict=True)}

    def silent(
        self, unit: int, threshold: float, n: int, generator: np.random.Generator
    ) -> list[tuple[int, int]]:
        """At most `n` contexts, as (document, first token), that never exceed the threshold."""
        quiet = (self._peaks[:, unit] <= threshold).nonzero()[:, 0].numpy()
        chosen = generator.permutation(quiet)[:n]
        return [(int(self._document[row]), int(self._start[row])) for row in chosen]
