"""What a map must beat before its faithfulness means anything.

Each control reads the same facts by the same rule, with less than the relation's own W:

- *shuffled relation*: the map's own answers against permuted objects, in expectation. Permuting
  objects while the map is estimated would not do: a Jacobian is the subject's own derivative, in
  which no object takes part, and the mean of b does not change when the z_i change places.
- *bias alone*: b without W h, a constant answer that has seen the same facts.
- *logit lens*: h decoded as it is, which is the identity map.
- *translation*: h moved by the mean of z_i - h_i, so W is the identity.
- *linear regression*: from h to z, trained on the known facts of estimation and validation.
- *embedding map*: the same expansion from what enters the first block: words, not their meaning.
- *majority object*: the object most frequent among the facts that are not tested.
- *random twin*: the same expansion in a network with random weights.

Logit lens, translation and regression each have the layer (regression the ridge as well) at which
they do best on the validation facts, as the map has.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.tools.circuits.approximation import Estimate, RelationMap
from dragoman.tools.circuits.faithfulness import decode, expected_hits, hits
from dragoman.tools.circuits.regression import regress
from dragoman.tools.circuits.selection import BETAS, merit_of
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

SHUFFLED = "shuffled relation"
TWIN = "random twin"
EMBEDDED = "embedding map"


class Control(NamedTuple):
    """How a control does on the tested facts."""

    name: str
    named: list[float]
    """For each fact 1 where it is named; for the shuffled relation how likely that is."""
    texts: list[str]
    """Its answers; empty for the shuffled relation, which answers as the map does."""

    @property
    def successes(self) -> float:
        """How many facts it names."""
        return sum(self.named)


class Part(NamedTuple):
    """Some facts, with what the subject holds at them."""

    samples: list[Sample]
    entity: Float[Tensor, "layer fact d_model"]
    """h."""
    embedding: Float[Tensor, "fact d_model"]
    final: Float[Tensor, "fact d_model"]
    """z."""
    first: Int[Tensor, " fact"]
    """First token of each object."""


class _Guess(NamedTuple):
    """A rival at one setting: its z for the validation facts and for the tested ones."""

    name: str
    tried: Float[Tensor, "fact d_model"]
    tested: Float[Tensor, "fact d_model"]


def reading_controls(
    subject: LanguageSubject,
    fitted: Estimate,
    relation_map: RelationMap,
    map_texts: Sequence[str],
    tried: Part,
    tested: Part,
    others: Sequence[Sample],
    learnt: Sequence[int] = (),
    *,
    stride: int = 1,
) -> list[Control]:
    """Every control but the twin on the facts `tested`, chosen on the facts `tried`.

    `others` are facts not tested; `learnt` are the places of estimation facts that the subject
    knows, which regression learns from. Rivals are tried at every `stride`-th layer.
    """
    samples = tested.samples
    shuffled = expected_hits(map_texts, [sample.object for sample in samples])
    controls = [Control(SHUFFLED, shuffled, [])]
    constant = decode(subject, relation_map.bias[None], tested.first[:1]).texts * len(samples)
    controls.append(_control("bias alone", constant, samples))
    if others:
        majority = Counter(sample.object for sample in others).most_common(1)[0][0]
        text = subject.token_text(subject.first_token(majority))
        controls.append(_control("majority object", [text] * len(samples), samples))
    best: dict[str, tuple[tuple[float, float], Tensor]] = {}
    for guess in _guesses(fitted, tried, tested, learnt, stride):
        decoded = decode(subject, guess.tried, tried.first)
        share = sum(hits(decoded.texts, tried.samples)) / len(tried.samples)
        likely = decoded.log_probs
        merit = merit_of(share, float(likely.exp().mean()), float(likely.mean()))
        if guess.name not in best or merit > best[guess.name][0]:
            best[guess.name] = (merit, guess.tested)
    for name, (_, finals) in best.items():
        controls.append(_control(name, decode(subject, finals, tested.first).texts, samples))
    return controls


def _guesses(
    fitted: Estimate, tried: Part, tested: Part, learnt: Sequence[int], stride: int
) -> Iterator[_Guess]:
    for place, layer in enumerate(fitted.maps):
        if place % stride:
            continue
        before, after = tried.entity[layer], tested.entity[layer]
        translation = fitted.translations[layer]
        yield _Guess("logit lens", before, after)
        yield _Guess("translation", translation(before), translation(after))
        if fitted.entity is None or fitted.final is None:
            continue
        entity = torch.cat([fitted.entity[place, list(learnt)], before])
        if len(entity) < 2:
            continue
        final = torch.cat([fitted.final[list(learnt)], tried.final])
        for fit in regress(entity, final):
            yield _Guess("linear regression", fit.left_out[len(learnt) :], fit(after))
    if fitted.embedding is not None:
        for beta in BETAS:
            embedding = fitted.embedding
            yield _Guess(
                EMBEDDED, embedding(tried.embedding, beta), embedding(tested.embedding, beta)
            )


def twin_control(texts: Sequence[str], samples: Sequence[Sample]) -> Control:
    """What a random-weight twin's map answered, as a control."""
    return _control(TWIN, texts, samples)


def strongest(controls: Sequence[Control]) -> Control:
    """The control that names most; the first of equals."""
    return max(controls, key=lambda control: control.successes)


def _control(name: str, texts: Sequence[str], samples: Sequence[Sample]) -> Control:
    return Control(name, [float(each) for each in hits(texts, samples)], list(texts))
