"""Fluency, consistency and essence of the texts that were written, each beside its control.

fluency: n-gram entropy of the text after the relation's prompt (`metrics.ngram_entropy`).
consistency: its TF-IDF cosine with what the unedited subject writes after the same prompt about an
entity that has the new object. essence: TF-IDF cosine of the text about the entity, after
`writing.ABOUT`, with and without the change.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dragoman.core.records import Measurement, Unit
from dragoman.tools.editing.directions import EDITED, NO_EDIT, REPLACED
from dragoman.tools.editing.metrics import ngram_entropy
from dragoman.tools.editing.similarity import TfIdf
from dragoman.tools.editing.writing import Written
from dragoman.tools.statistics import mean

OTHER_ENTITY = "unedited texts about two different entities"


class TextScores(NamedTuple):
    """One value for each opening, by method."""

    fluency: Mapping[str, list[float]]
    """In bits."""
    consistency: Mapping[str, list[float]]
    """Empty where no entity has the new object."""
    essence: Mapping[str, list[float]]
    apart: list[float]
    """Cosines of unedited texts about different entities: what no essence at all comes to."""


def score_texts(
    answers: Sequence[Written], references: Sequence[Written], about: Sequence[Written]
) -> TextScores:
    """Score texts after the relation's prompts, and texts about the entities.

    Args:
        answers: by every method.
        references: the same openings by the replaced entity, drawn by other random numbers.
        about: by every method.
    """
    methods = list(answers[0].texts)
    said = TfIdf([one.texts[NO_EDIT] for one in (*answers, *about)])
    told = [one.texts.get(REPLACED) for one in references]
    consistency = {
        method: [
            said.cosine(one.texts[method], reference)
            for one, reference in zip(answers, told, strict=True)
            if reference is not None
        ]
        for method in methods
    }
    before = [one.texts[NO_EDIT] for one in about]
    return TextScores(
        fluency=fluency_of(answers),
        consistency={method: values for method, values in consistency.items() if values},
        essence={
            method: [
                said.cosine(text, one.texts[method])
                for text, one in zip(before, about, strict=True)
            ]
            for method in methods
        },
        apart=[
            said.cosine(text, other)
            for text, other in zip(before, before[1:] + before[:1], strict=True)
        ],
    )


def fluency_of(written: Sequence[Written]) -> dict[str, list[float]]:
    """Method to the n-gram entropy of each of its texts, in bits."""
    return {
        method: [ngram_entropy(one.texts[method]) for one in written] for method in written[0].texts
    }


def measure_fluency(
    fluency: Mapping[str, list[float]], n_tokens: int, seed: int
) -> list[Measurement]:
    """`fluency` of the editor and then of each baseline, beside unedited text."""
    plain = _unedited(n_tokens)
    return [
        _mean("fluency", "bit", method, values, fluency[NO_EDIT], plain, seed)
        for method, values in fluency.items()
        if method != NO_EDIT
    ]


def measure_texts(scores: TextScores, n_tokens: int, seed: int) -> list[Measurement]:
    """Each score of the editor, then of every baseline (scope: the method)."""
    found = measure_fluency(scores.fluency, n_tokens, seed)
    plain = _unedited(n_tokens)
    for method, values in scores.consistency.items():
        if method != NO_EDIT:
            unedited = scores.consistency[NO_EDIT]
            found.append(_mean("consistency", "cosine", method, values, unedited, plain, seed))
    for method, values in scores.essence.items():
        apart = scores.apart if len(scores.apart) > 1 else values
        control = OTHER_ENTITY if len(scores.apart) > 1 else method
        found.append(_mean("essence", "cosine", method, values, apart, control, seed))
    return found


def _unedited(n_tokens: int) -> str:
    return f"{NO_EDIT}, texts of {n_tokens} tokens"


def _mean(
    metric: str,
    unit: Unit,
    method: str,
    values: Sequence[float],
    baseline: Sequence[float],
    control: str,
    seed: int,
) -> Measurement:
    return mean(
        metric,
        values,
        unit=unit,
        baseline_samples=baseline,
        control=control,
        seed=seed,
        scope="" if method == EDITED else method,
    )
