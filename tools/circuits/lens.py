"""The attribute lens: a relation read at every layer and token (Hernandez et al. 2024, section 5).

Each h is put through the relation's map of its own layer and decoded: what the subject would say
of this token if it were asked for the relation's object here. The logit lens (nostalgebraist 2020)
decodes the same h as it is. Under distraction (a false statement twice, or the demand to repeat
it) the subject's output says one thing while the lens reads another from the entity's h.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.core.records import JsonObject, Record, Site
from dragoman.tools.circuits.approximation import AffineMap
from dragoman.tools.circuits.passes import Readout, SharedPrompts
from dragoman.tools.circuits.precision import read_out
from dragoman.tools.circuits.prompts import RelationPrompt
from dragoman.tools.relations import Sample, is_prefix
from dragoman.tools.subjects.language import LanguageSubject

Distraction: TypeAlias = Literal["repetition", "instruction"]
DISTRACTIONS: tuple[Distraction, ...] = ("repetition", "instruction")

ROWS = 256
"""Residual vectors decoded at once: bounds the memory of their logits."""
TOP = 3
"""Recall is counted up to this rank, as published."""


class Ranked(NamedTuple):
    """The most probable tokens that residual vectors decode to."""

    tokens: Int[Tensor, "rows top"]
    probabilities: Float[Tensor, "rows top"]
    wanted: Float[Tensor, " rows"]
    """Probability of the token asked for; NaN where none was."""


class LensMap(Record):
    """A text read at every layer and token; lists are [layer][token]."""

    relation: str
    text: str
    entity: str | None
    """The entity of the relation that the text names, if any, and its object."""
    object: str | None
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    read: tuple[tuple[tuple[str, ...], ...], ...]
    """The most probable tokens, best first."""
    probability: tuple[tuple[float, ...], ...]
    """Of the first of them."""
    object_probability: tuple[tuple[float, ...], ...] | None
    """Of the first token of `object`."""
    output: tuple[str, ...]
    """What the subject itself says next, after each token."""

    def heat(self) -> JsonObject:
        """The heat map in few characters, for a terminal: a digit for each token, by layer.

        A digit is the tenth of the probability, cut off: 9 is .9 and more.
        """
        cells = self.object_probability or self.probability
        what = f"probability of {self.object!r}" if self.object else "probability of the best token"
        return {
            "what": what,
            "tokens": list(self.tokens),
            "layers": list(self.layers),
            "tenths": ["".join(str(min(9, int(10 * cell))) for cell in row) for row in cells],
        }

    def row(self, layer: int) -> JsonObject:
        """One layer in short."""
        place = self.layers.index(layer)
        cells = self.object_probability
        return {
            "text": self.text,
            "entity": self.entity,
            "object": self.object,
            "tokens": list(self.tokens),
            "layer": layer,
            "read": [cell[0] for cell in self.read[place]],
            "object_probability": None if cells is None else list(cells[place]),
            "output": list(self.output),
        }


@torch.no_grad()
def rank(
    subject: LanguageSubject,
    finals: Float[Tensor, "rows d_model"],
    wanted: Int[Tensor, " rows"] | None = None,
    top: int = TOP,
) -> Ranked:
    """Decode residual vectors, some at a time."""
    tokens, probabilities, asked = [], [], []
    for start in range(0, finals.shape[0], ROWS):
        some = slice(start, start + ROWS)
        said = read_out(subject, finals[some]).softmax(-1)
        best = said.topk(top)
        tokens.append(best.indices.cpu())
        probabilities.append(best.values.cpu())
        if wanted is None:
            asked.append(torch.full((said.shape[0],), torch.nan))
        else:
            asked.append(said.gather(1, wanted[some, None].to(said.device))[:, 0].cpu())
    return Ranked(torch.cat(tokens), torch.cat(probabilities), torch.cat(asked))


@torch.no_grad()
def read_text(
    subject: LanguageSubject,
    maps: Mapping[int, AffineMap],
    betas: Mapping[int, float],
    text: str,
    *,
    relation: str = "",
    fact: Sample | None = None,
) -> LensMap:
    """Every h of `text` through the map of its layer; the object of `fact` is looked for."""
    batch = subject.batch([text])
    layers = list(maps)
    sites = [Site(layer=layer) for layer in layers]
    last = Site(layer=subject.n_layers - 1)
    taken = subject.activations(batch, list(dict.fromkeys([*sites, last])))
    finals = torch.cat(
        [maps[site.layer](taken[site][0].float(), betas[site.layer]) for site in sites]
    )
    n_pos = batch.ids.shape[1]
    asked = None
    if fact is not None:
        asked = torch.full((finals.shape[0],), subject.first_token(fact.object))
    ranked = rank(subject, finals, asked)
    words = [tuple(subject.token_text(int(token)) for token in row) for row in ranked.tokens]
    output = rank(subject, taken[last][0].float(), top=1)
    starts = range(0, len(words), n_pos)

    def rows(values: Float[Tensor, " cells"]) -> tuple[tuple[float, ...], ...]:
        rounded = [round(float(value), 5) for value in values]
        return tuple(tuple(rounded[start : start + n_pos]) for start in starts)

    return LensMap(
        relation=relation,
        text=text,
        entity=None if fact is None else fact.subject,
        object=None if fact is None else fact.object,
        tokens=tuple(subject.token_text(int(token)) for token in batch.ids[0]),
        layers=tuple(layers),
        read=tuple(tuple(words[start : start + n_pos]) for start in starts),
        probability=rows(ranked.probabilities[:, 0]),
        object_probability=None if fact is None else rows(ranked.wanted),
        output=tuple(subject.token_text(int(token)) for token in output.tokens[:, 0]),
    )


def distract(kind: Distraction, template: str, entity: str, false_object: str) -> RelationPrompt:
    """A false statement about the entity, twice or with the demand to repeat it; then the question.

    The entity that is asked about is its last occurrence.
    """
    before, _, after = template.partition("{}")
    statement = f"{before}{entity}{after} {false_object}."
    lead = {
        "repetition": f"{statement} {statement} ",
        "instruction": f"Repeat exactly: {statement} ",
    }[kind]
    head = f"{lead}{before}{entity}"
    return RelationPrompt(head + after, len(head))


def false_objects(
    subject: LanguageSubject, samples: Sequence[Sample], objects: Sequence[str], seed: int
) -> list[str]:
    """For each fact another object of the range, told from its own by the first token."""
    generator = np.random.default_rng(seed)
    first = {name: subject.first_token(name) for name in objects}
    chosen = []
    for sample in samples:
        own = subject.first_token(sample.object)
        others = [name for name in objects if first[name] != own]
        chosen.append(str(generator.choice(others)))
    return chosen


class Watched(NamedTuple):
    """Prompts about some facts, and what the subject holds at their ends."""

    prompts: list[RelationPrompt]
    readout: Readout


def watch(subject: LanguageSubject, prompts: Sequence[RelationPrompt]) -> Watched:
    """One pass over each prompt."""
    return Watched(list(prompts), SharedPrompts(subject, prompts).read())


def top_texts(subject: LanguageSubject, finals: Float[Tensor, "rows d_model"]) -> list[list[str]]:
    """The `TOP` most probable tokens of each residual vector, as text, best first."""
    return [
        [subject.token_text(int(token)) for token in row] for row in rank(subject, finals).tokens
    ]


def recalled(texts: Sequence[Sequence[str]], samples: Sequence[Sample], k: int) -> list[bool]:
    """For each fact whether one of its first `k` texts names the object (the published rule)."""
    return [
        any(is_prefix(text, sample.object) for text in some[:k])
        for some, sample in zip(texts, samples, strict=True)
    ]


def shuffled_recall(texts: Sequence[Sequence[str]], objects: Sequence[str], k: int) -> list[float]:
    """For each fact the chance that its first `k` texts name another fact's object.

    The mean over all ways to give it one: the shuffled relation, in expectation.
    """
    count = len(objects)
    return [
        sum(
            any(is_prefix(text, objects[other]) for text in some[:k])
            for other in range(count)
            if other != place
        )
        / max(1, count - 1)
        for place, some in enumerate(texts)
    ]
