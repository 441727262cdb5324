"""A template for pairs whose relation has none: candidates tried, the best kept if it is known.

Candidates are the templates of the relations that ship with Dragoman, a few general ones, and
whatever the caller adds. Each asks every pair after other pairs in the same wording. Half of the
pairs rank the candidates, the other half is reported: the best of many looks better than it is.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Measurement
from dragoman.tools.circuits.faithfulness import decode, first_tokens, hits, shuffled_hits
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import relation_prompt, round_robin
from dragoman.tools.relations import Sample, list_relations, load_relation
from dragoman.tools.statistics import proportion
from dragoman.tools.subjects.language import LanguageSubject

GENERAL = ("{}:", "{} ->", "{} is", "{} is a", "{} has", "The answer for {} is", "{} goes with")
EXAMPLES = 5
FEWEST_PAIRS = 12
"""Five examples, and at least three pairs that choose and four that are reported."""


class Tried(NamedTuple):
    """How many of the choosing pairs are named through one template."""

    template: str
    share: float


class Found(NamedTuple):
    """Candidates, best first, and what the best does on pairs that did not choose it."""

    tried: list[Tried]
    known: Measurement


def candidate_templates(further: Sequence[str] = ()) -> list[str]:
    """The caller's first, then ours, then the general ones; each once."""
    ours = [
        template for name in list_relations() for template in load_relation(name).prompt_templates
    ]
    return list(dict.fromkeys([*further, *ours, *GENERAL]))


def find_template(
    subject: LanguageSubject,
    pairs: Sequence[Sample],
    templates: Sequence[str],
    seed: int,
    step: Callable[[int, int, str], None],
) -> Found:
    """Rank `templates` by how many pairs the subject knows through each.

    Raises:
        ToolError: fewer than `FEWEST_PAIRS` pairs, or a template without exactly one `{}`.
    """
    if len(pairs) < FEWEST_PAIRS:
        raise ToolError(
            f"{len(pairs)} pairs; at least {FEWEST_PAIRS} are needed to find a template"
        )
    for template in templates:
        if template.count("{}") != 1:
            raise ToolError(f"template {template!r} must hold exactly one {{}} for the subject")
    ordered = round_robin(pairs, seed)
    examples, rest = ordered[:EXAMPLES], ordered[EXAMPLES:]
    order = np.random.default_rng(seed).permutation(len(rest)).tolist()
    half = len(rest) // 2
    choosing, reported = ([rest[place] for place in some] for some in (order[:half], order[half:]))
    tried = []
    for place, template in enumerate(templates):
        step(place, len(templates), "trying templates")
        said = _say(subject, template, examples, choosing)
        tried.append(Tried(template, sum(hits(said, choosing)) / len(choosing)))
    tried.sort(key=lambda each: -each.share)
    said = _say(subject, tried[0].template, examples, reported)
    known = proportion(
        "known",
        sum(hits(said, reported)),
        len(reported),
        baseline_successes=shuffled_hits(said, [pair.object for pair in reported]),
        baseline_n=len(reported),
        control="shuffled relation",
        scope=tried[0].template,
    )
    return Found(tried, known)


@torch.no_grad()
def _say(
    subject: LanguageSubject, template: str, examples: Sequence[Sample], pairs: Sequence[Sample]
) -> list[str]:
    prompts = [relation_prompt(template, examples, pair.subject) for pair in pairs]
    final = SharedPrompts(subject, prompts).read().final
    return decode(subject, final, first_tokens(subject, pairs)).texts
