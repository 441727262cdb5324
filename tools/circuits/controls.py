"""What a map must beat before its faithfulness means anything.

Each control reads the same facts by the same rule, with less than the relation's own W:

- *shuffled relation*: the map's own answers against permuted objects, in expectation. Permuting
  objects while the map is estimated would not do: a Jacobian is the subject's own derivative, in
  which no object takes part, and the mean of b does not change when the z_i change places.
- *bias alone*: b without W h, a constant answer that has seen the same facts.
- *logit lens*: h decoded as it is.
- *translation*: h moved by the mean of z_i - h_i, so W is the identity.
- *majority object*: the object most frequent among the facts that are not tested.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.circuits.approximation import RelationMap
from dragoman.tools.circuits.faithfulness import decode, hits, shuffled_hits
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

SHUFFLED = "shuffled relation"


class Control(NamedTuple):
    """How many of the tested facts a control names."""

    name: str
    successes: float
    texts: list[str]
    """Its answers; empty for the shuffled relation, which answers as the map does."""


def reading_controls(
    subject: LanguageSubject,
    relation_map: RelationMap,
    translation: RelationMap,
    entity: Float[Tensor, "batch d_model"],
    map_texts: Sequence[str],
    samples: Sequence[Sample],
    others: Sequence[Sample],
) -> list[Control]:
    """Every control on the facts `samples` with their h; `others` are facts not tested."""
    count = len(samples)
    asked = torch.zeros(count, dtype=torch.long)  # no control needs the probability of an object
    answers = {
        "bias alone": decode(subject, relation_map.bias.expand(count, -1), asked).texts,
        "logit lens": decode(subject, entity, asked).texts,
        "translation": decode(subject, translation(entity), asked).texts,
    }
    if others:
        majority = Counter(sample.object for sample in others).most_common(1)[0][0]
        answers["majority object"] = [subject.token_text(subject.first_token(majority))] * count
    shuffled = shuffled_hits(map_texts, [sample.object for sample in samples])
    return [
        Control(SHUFFLED, shuffled, []),
        *(Control(name, sum(hits(texts, samples)), texts) for name, texts in answers.items()),
    ]


def strongest(controls: Sequence[Control]) -> Control:
    """The control that names most; the first of equals."""
    return max(controls, key=lambda control: control.successes)
