"""What the subject says and what it holds, apart: recall of its output and of the lens.

On test facts that the subject knows, asked after a false statement. The published figures for
GPT-J over 47 relations: output .02 against lens .54 after a false statement told twice, .03
against .63 after the demand to repeat it (Hernandez et al. 2024, section 5).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue

from dragoman.core.records import Measurement
from dragoman.tools.circuits.fitted import Reader
from dragoman.tools.circuits.lens import (
    DISTRACTIONS,
    TOP,
    Distraction,
    distract,
    false_objects,
    recalled,
    shuffled_recall,
    top_texts,
    watch,
)
from dragoman.tools.circuits.passes import Readout
from dragoman.tools.circuits.prompts import RelationPrompt, relation_prompt
from dragoman.tools.circuits.selection import BETAS
from dragoman.tools.relations import Sample
from dragoman.tools.statistics import bootstrap, proportion
from dragoman.tools.subjects.language import LanguageSubject

SHUFFLED = "shuffled relation"
LOGIT_LENS = "logit lens"
BIAS = "bias alone"
PLAIN = "no distraction"


class Reading(NamedTuple):
    """Where the lens reads: chosen on validation facts, without any distraction."""

    layer: int
    beta: float


class Recall(NamedTuple):
    """What each reader of the test facts says under one kind of prompt: its best tokens."""

    condition: str
    prompts: list[RelationPrompt]
    samples: list[Sample]
    false_objects: list[str]
    answers: dict[str, list[list[str]]]
    """By reader: 'lens', 'output', and the lens's controls."""

    def hits(self, reader: str, k: int) -> list[bool]:
        """For each fact whether the reader names its object within its first `k` tokens."""
        return recalled(self.answers[reader], self.samples, k)

    def chance(self, reader: str, k: int) -> list[float]:
        """The same for objects of other facts, in expectation."""
        return shuffled_recall(self.answers[reader], [sample.object for sample in self.samples], k)


def choose_reading(
    subject: LanguageSubject, template: str, samples: Sequence[Sample], reader: Reader
) -> Reading:
    """Layer and beta that recall most of the validation facts `samples` from a bare question.

    The maps were estimated after in-context examples, but a lens is for texts without: h differs.
    Of equal ones those that did best after examples, then the lower layer.
    """
    entity = watch(subject, _bare(template, samples)).readout.entity
    best, reading = (-1.0, -1.0), Reading(reader.chosen.layer, reader.chosen.value)
    for setting in reader.sweep:
        for beta in BETAS:
            finals = reader.maps[setting.layer](entity[setting.layer], beta)
            texts = top_texts(subject, finals)
            share = float(np.mean(recalled(texts, samples, 1)))
            if (share, setting.share) > best:
                best, reading = (share, setting.share), Reading(setting.layer, beta)
    return reading


def recall_all(
    subject: LanguageSubject,
    template: str,
    samples: Sequence[Sample],
    objects: Sequence[str],
    reader: Reader,
    reading: Reading,
    seed: int,
) -> list[Recall]:
    """Every reader under no distraction and under each kind of it."""
    lies = false_objects(subject, samples, objects, seed)
    found = []
    for condition in (PLAIN, *DISTRACTIONS):
        prompts = _prompts(condition, template, samples, lies)
        readout = watch(subject, prompts).readout
        answers = _answers(subject, readout, reader, reading)
        found.append(Recall(condition, prompts, list(samples), lies, answers))
    return found


def _bare(template: str, samples: Sequence[Sample]) -> list[RelationPrompt]:
    return [relation_prompt(template, [], sample.subject) for sample in samples]


def _prompts(
    condition: str | Distraction, template: str, samples: Sequence[Sample], lies: Sequence[str]
) -> list[RelationPrompt]:
    for kind in DISTRACTIONS:
        if condition == kind:
            return [
                distract(kind, template, sample.subject, lie)
                for sample, lie in zip(samples, lies, strict=True)
            ]
    return _bare(template, samples)


def _answers(
    subject: LanguageSubject, readout: Readout, reader: Reader, reading: Reading
) -> dict[str, list[list[str]]]:
    entity = readout.entity[reading.layer]
    relation_map = reader.maps[reading.layer]
    return {
        "lens": top_texts(subject, relation_map(entity, reading.beta)),
        "output": top_texts(subject, readout.final),
        LOGIT_LENS: top_texts(subject, entity),
        BIAS: top_texts(subject, relation_map.bias.expand(entity.shape[0], -1)),
    }


def measure_recall(
    found: Sequence[Recall], n_failed: int, seed: int
) -> tuple[list[Measurement], list[Measurement]]:
    """Headlines and controls: lens and output recall at 1 to 3, and how far the lens is ahead."""
    headlines, controls = [], []
    for recall in found:
        scope = recall.condition
        for k in range(1, TOP + 1):
            headlines.append(_lens(recall, k, n_failed))
            headlines.append(_share(f"output_recall_at_{k}", recall, "output", k, n_failed, scope))
            controls += [
                _share(f"lens_recall_at_{k}", recall, rival, k, n_failed, f"{rival}, {scope}")
                for rival in (LOGIT_LENS, BIAS)
            ]
        headlines.append(_lead(recall, n_failed, seed))
    return headlines, controls


def _lens(recall: Recall, k: int, n_failed: int) -> Measurement:
    """The lens beside the strongest of its controls."""
    count = len(recall.samples)
    rivals = {
        SHUFFLED: sum(recall.chance("lens", k)),
        LOGIT_LENS: float(sum(recall.hits(LOGIT_LENS, k))),
        BIAS: float(sum(recall.hits(BIAS, k))),
    }
    strongest = max(rivals, key=lambda name: rivals[name])
    return proportion(
        f"lens_recall_at_{k}",
        sum(recall.hits("lens", k)),
        count,
        baseline_successes=rivals[strongest],
        baseline_n=count,
        control=strongest,
        n_failed=n_failed,
        scope=recall.condition,
    )


def _share(
    metric: str, recall: Recall, reader: str, k: int, n_failed: int, scope: str
) -> Measurement:
    count = len(recall.samples)
    return proportion(
        metric,
        sum(recall.hits(reader, k)),
        count,
        baseline_successes=sum(recall.chance(reader, k)),
        baseline_n=count,
        control=SHUFFLED,
        n_failed=n_failed,
        scope=scope,
    )


def _lead(recall: Recall, n_failed: int, seed: int) -> Measurement:
    """`lens_lead_at_1`: recall of the lens minus that of the output, paired by fact."""
    lead = np.subtract(recall.hits("lens", 1), recall.hits("output", 1), dtype=float)
    chance = np.subtract(recall.chance("lens", 1), recall.chance("output", 1))
    value = float(lead.mean())
    low, high = bootstrap(lead, seed)
    return Measurement(
        metric="lens_lead_at_1",
        value=value,
        unit="fraction",
        baseline=float(chance.mean()),
        control=SHUFFLED,
        ci95=(min(low, value), max(high, value)),
        n=len(lead),
        n_failed=n_failed,
        scope=recall.condition,
    )


def examples_of(found: Sequence[Recall], count: int) -> list[JsonValue]:
    """Some prompts with what is true, what was claimed, what is said and what is read."""
    rows: list[JsonValue] = []
    for recall in found:
        if recall.condition == PLAIN:
            continue
        for place in range(min(count, len(recall.samples))):
            rows.append(
                {
                    "distraction": recall.condition,
                    "prompt": recall.prompts[place].text,
                    "object": recall.samples[place].object,
                    "false_object": recall.false_objects[place],
                    "output": list(recall.answers["output"][place]),
                    "lens": list(recall.answers["lens"][place]),
                }
            )
    return rows
