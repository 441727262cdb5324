"""Causality: whether the map's low-rank inverse turns one entity into another in the subject.

Hernandez et al. 2024 (arXiv:2308.09124, section 3.3): to make the subject say the object of a
target fact, h at the entity's last token moves by W^+_r (z_target - z): W^+_r is the inverse of W
within its r largest singular directions, z_target comes from running the target's own entity, and
beta has no part. The edit succeeds if the subject's next token then names the target's object.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.circuits.faithfulness import Decoded, decode
from dragoman.tools.circuits.passes import Readout, SharedPrompts
from dragoman.tools.relations import Sample, is_prefix
from dragoman.tools.subjects.language import LanguageSubject


class Pairs(NamedTuple):
    """Which facts are edited towards which: indices of prompts, one pair at each place."""

    sources: list[int]
    targets: list[int]


class Edited(NamedTuple):
    """What the subject says after edits, one for each pair."""

    decoded: Decoded
    succeeded: list[bool]

    @property
    def share(self) -> float:
        """Of edits that succeeded."""
        return sum(self.succeeded) / len(self.succeeded)


class Bench:
    """Facts with their prompts and what the subject holds at them: edits are tried on these."""

    def __init__(
        self,
        subject: LanguageSubject,
        prompts: SharedPrompts,
        readout: Readout,
        samples: Sequence[Sample],
        first: Tensor,
    ) -> None:
        self._subject, self._prompts = subject, prompts
        self._readout, self._samples, self._first = readout, samples, first

    def changes(self, pairs: Pairs) -> Float[Tensor, "pair d_model"]:
        """z_target - z of each pair."""
        final = self._readout.final
        return final[pairs.targets] - final[pairs.sources]

    def swaps(self, pairs: Pairs, layer: int) -> Float[Tensor, "pair d_model"]:
        """h_target - h of each pair: the shift that puts the target's whole h in place."""
        entity = self._readout.entity[layer]
        return entity[pairs.targets] - entity[pairs.sources]

    def z_swaps(self, pairs: Pairs, layer: int) -> Float[Tensor, "pair d_model"]:
        """z_target - h of each pair: the shift that puts the target's z where h was."""
        readout = self._readout
        return readout.final[pairs.targets] - readout.entity[layer][pairs.sources]

    def word_swaps(self, pairs: Pairs, layer: int) -> Float[Tensor, "pair d_model"]:
        """The shift that puts the embedding of the target's object in place, as long as h was."""
        here = self._readout.entity[layer][pairs.sources]
        weight = self._subject.model.get_input_embeddings().weight
        words = weight[self._first[pairs.targets].to(weight.device)].float()
        if words.shape[1] != here.shape[1]:  # a family that projects its embeddings
            return torch.zeros_like(here)
        length: Tensor = torch.linalg.vector_norm(here, dim=-1, keepdim=True)
        return torch.nn.functional.normalize(words, dim=-1) * length - here

    def edit(self, pairs: Pairs, layer: int, shifts: Float[Tensor, "pair d_model"]) -> Edited:
        """Run each source with its h shifted, and see whether it names the target's object."""
        final = self._prompts.read_shifted(pairs.sources, layer, shifts)
        decoded = decode(self._subject, final, self._first[pairs.targets])
        succeeded = [
            is_prefix(text, self._samples[target].object)
            for text, target in zip(decoded.texts, pairs.targets, strict=True)
        ]
        return Edited(decoded, succeeded)


def pair_up(
    samples: Sequence[Sample], known: Sequence[int], texts: Sequence[str], seed: int
) -> Pairs:
    """A random target for each fact in `known`: another entity, another object, both known.

    `texts` is what the subject says at each fact unedited. A target that this names already is
    passed over, so without an edit no pair succeeds. A fact that no target is left for has no pair.
    """
    generator = np.random.default_rng(seed)
    pairs = Pairs([], [])
    for source in known:
        here = samples[source]
        possible = [
            target
            for target in known
            if samples[target].subject != here.subject
            and samples[target].object.casefold() != here.object.casefold()
            and not is_prefix(texts[source], samples[target].object)
        ]
        if possible:
            pairs.sources.append(source)
            pairs.targets.append(int(generator.choice(possible)))
    return pairs


def random_like(shifts: Float[Tensor, "pair d_model"], seed: int) -> Float[Tensor, "pair d_model"]:
    """Random directions, each as long as the shift at its place."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(shifts.shape, generator=generator).to(shifts.device)
    length: Tensor = torch.linalg.vector_norm(shifts, dim=-1, keepdim=True)
    return torch.nn.functional.normalize(drawn, dim=-1) * length
