"""Relations of entities that come alone: candidates asked of each, kept where answers hold.

Without objects nothing says whether an answer is true. What can be told is whether the subject
means it: asked after two sets of examples that share nothing, it gives the same answer, and not the
same to everyone. *consistent* is the share of entities whose two answers begin with the same token;
its control is the share that agrees when the second answer is another entity's. Half of the
entities rank the candidates, the other half is reported.

A candidate that belongs to a relation brings true pairs as examples. One that is a bare template
has none: its examples are the subject's own answers to other entities, asked without any.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Measurement
from dragoman.tools.circuits.faithfulness import decode
from dragoman.tools.circuits.finding import GENERAL
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import relation_prompt, round_robin
from dragoman.tools.relations import Sample, list_relations, load_relation
from dragoman.tools.statistics import proportion
from dragoman.tools.subjects.language import LanguageSubject

EXAMPLES = 4
FEWEST_ENTITIES = 2 * EXAMPLES + 8
"""Two sets of examples, four entities that choose and four that are reported."""
REPORTED = 5
"""Candidates that the other half of the entities is asked through."""
_OBJECT_TOKENS = 6


class Candidate(NamedTuple):
    """A template to try, with true pairs where there are some."""

    template: str
    source: str
    """The relation that it belongs to, or who else it is from."""
    samples: tuple[Sample, ...] = ()


class Proposed(NamedTuple):
    """A relation that the subject answers consistently of these entities."""

    template: str
    source: str
    consistent: Measurement
    pairs: list[Sample]
    """Entities whose answers agree, with what the subject says of them: its word, not the truth."""


def candidates(further: Sequence[str] = (), suggested: Sequence[str] = ()) -> list[Candidate]:
    """The caller's, a chat model's, those of our relations, general ones; each template once."""
    found = [Candidate(template, "yours") for template in further]
    found += [Candidate(template, "chat model") for template in suggested]
    for name in list_relations():
        relation = load_relation(name)
        found += [Candidate(each, name, relation.samples) for each in relation.prompt_templates]
    found += [Candidate(template, "general") for template in GENERAL]
    return list({each.template: each for each in reversed(found)}.values())[::-1]


def propose(
    subject: LanguageSubject,
    entities: Sequence[str],
    tried: Sequence[Candidate],
    seed: int,
    step: Callable[[int, int, str], None],
) -> list[Proposed]:
    """Those of `tried` whose answers agree by an interval above chance, the most consistent first.

    One through which most entities are only said again is left out.

    Raises:
        ToolError: fewer than `FEWEST_ENTITIES` different entities, or a template without one `{}`.
    """
    different = list(dict.fromkeys(entities))
    if len(different) < FEWEST_ENTITIES:
        raise ToolError(
            f"{len(different)} different entities; at least {FEWEST_ENTITIES} are needed to find a "
            "relation of theirs"
        )
    for each in tried:
        if each.template.count("{}") != 1:
            raise ToolError(f"template {each.template!r} must hold exactly one {{}} for the entity")
    order = np.random.default_rng(seed).permutation(len(different)).tolist()
    shuffled = [different[place] for place in order]
    helpers, asked = shuffled[: 2 * EXAMPLES], shuffled[2 * EXAMPLES :]
    half = len(asked) // 2
    choosing, reported = asked[:half], asked[half:]
    ranked: list[tuple[float, int, _Pair]] = []
    for place, candidate in enumerate(tried):
        step(place, len(tried), "asking entities through templates")
        examples = _examples(subject, candidate, helpers, different, seed)
        if examples is not None:
            answers = _Answers.to(subject, candidate.template, examples, choosing)
            ranked.append((answers.agreed - answers.by_chance, place, examples))
    ranked.sort(key=lambda each: (-each[0], each[1]))
    found = []
    for _, place, examples in islice(ranked, REPORTED):
        candidate = tried[place]
        answers = _Answers.to(subject, candidate.template, examples, reported)
        consistent = proportion(
            "consistent",
            round(answers.agreed * len(reported)),
            len(reported),
            baseline_successes=answers.by_chance * len(reported),
            baseline_n=len(reported),
            control="another entity's answer",
            scope=candidate.template,
        )
        if consistent.ci95[0] > consistent.baseline:
            everyone = _Answers.to(subject, candidate.template, examples, asked)
            pairs = _pairs(subject, candidate.template, examples.first, everyone)
            if 2 * len(pairs) >= sum(everyone.agree):
                found.append(Proposed(candidate.template, candidate.source, consistent, pairs))
    return sorted(found, key=lambda each: each.consistent.baseline - each.consistent.value)


class _Pair(NamedTuple):
    """Two sets of examples that share nothing."""

    first: list[Sample]
    second: list[Sample]


def _examples(
    subject: LanguageSubject,
    candidate: Candidate,
    helpers: Sequence[str],
    entities: Sequence[str],
    seed: int,
) -> _Pair | None:
    taken = {entity.casefold() for entity in entities}
    known = [each for each in candidate.samples if each.subject.casefold() not in taken]
    if len(known) >= 2 * EXAMPLES:
        given = round_robin(known, seed)[: 2 * EXAMPLES]
    else:
        texts = [candidate.template.replace("{}", entity) for entity in helpers]
        said = [_first_line(text) for text in subject.continue_text(texts, _OBJECT_TOKENS)]
        given = [Sample(subject=e, object=o) for e, o in zip(helpers, said, strict=True) if o]
    pair = _Pair(given[::2], given[1::2])
    return pair if len(pair.second) >= 2 else None


class _Answers(NamedTuple):
    """What is said of each entity after the first examples and after the second."""

    entities: list[str]
    first: list[str]
    second: list[str]

    @classmethod
    def to(
        cls, subject: LanguageSubject, template: str, pair: _Pair, entities: Sequence[str]
    ) -> "_Answers":
        said = [_say(subject, template, examples, entities) for examples in pair]
        return cls(list(entities), *said)

    @property
    def agree(self) -> list[bool]:
        """Whether both are the same word; an answer of signs alone is none."""
        return [
            one == other and any(letter.isalnum() for letter in one)
            for one, other in zip(self.first, self.second, strict=True)
        ]

    @property
    def agreed(self) -> float:
        return sum(self.agree) / len(self.entities)

    @property
    def by_chance(self) -> float:
        """The mean over all ways to give each entity another one's second answer."""
        count, second = len(self.entities), Counter(self.second)
        met = sum(
            second[one] - (one == other)
            for one, other in zip(self.first, self.second, strict=True)
            if any(letter.isalnum() for letter in one)
        )
        return met / (count * (count - 1))


@torch.no_grad()
def _say(
    subject: LanguageSubject, template: str, examples: Sequence[Sample], entities: Sequence[str]
) -> list[str]:
    prompts = [relation_prompt(template, examples, entity) for entity in entities]
    final = SharedPrompts(subject, prompts).read().final
    said = decode(subject, final, torch.zeros(len(prompts), dtype=torch.long)).texts
    return [text.strip().casefold() for text in said]


def _pairs(
    subject: LanguageSubject, template: str, examples: Sequence[Sample], answers: _Answers
) -> list[Sample]:
    kept = [one for one, agrees in zip(answers.entities, answers.agree, strict=True) if agrees]
    texts = [relation_prompt(template, examples, entity).text for entity in kept]
    said = [_first_line(text) for text in subject.continue_text(texts, _OBJECT_TOKENS)]
    # To say the entity again is no fact about it, however consistently it is said.
    return [
        Sample(subject=entity, object=text)
        for entity, text in zip(kept, said, strict=True)
        if text and text.casefold() != entity.casefold()
    ]


def _first_line(text: str) -> str:
    """An object: what stands on the rest of the line, without the stop that ends a sentence."""
    return text.lstrip(" ").split("\n")[0].split(". ")[0].strip().rstrip(".,;:").strip()
