"""One direction for each answer: what the editor would write into an entity to have it given."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from dragoman.core.errors import ToolError
from dragoman.tools.editing.detection.editors import DirectionEditor
from dragoman.tools.editing.detection.questions import Range
from dragoman.tools.editing.editor import read_attributes
from dragoman.tools.editing.records import EditRecord, state
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

_PER_ANSWER = 3


class AnswerDirections(NamedTuple):
    """Means over a few entities of the fitting split, one row for each answer."""

    edited: Float[np.ndarray, "answer d_model"]
    """The editor's."""
    attributes: Float[np.ndarray, "answer d_model"]
    """The attribute vectors that it read."""


@torch.no_grad()
def answer_directions(
    subject: LanguageSubject,
    facts: Sequence[Sample],
    among: Range,
    editor: DirectionEditor,
    seed: int,
) -> AnswerDirections:
    """State every answer of three of `facts`' entities and hand it to the editor.

    Raises:
        ToolError: all of `facts` share one answer.
    """
    records, of = _records(facts, among, seed)
    edited = editor.directions(subject, records).double().cpu().numpy()
    return AnswerDirections(
        _means(edited, of, len(among.ids)),
        attribute_directions(subject, editor.template, facts, among, editor.layer, seed),
    )


@torch.no_grad()
def attribute_directions(
    subject: LanguageSubject,
    template: str,
    facts: Sequence[Sample],
    among: Range,
    layer: int,
    seed: int,
) -> Float[np.ndarray, "answer d_model"]:
    """The attribute vectors alone, for a subject that has no editor."""
    records, of = _records(facts, among, seed)
    contexts = [state(template, one.entity, one.new_object) for one in records]
    read = read_attributes(subject, contexts, [layer])[layer]
    return _means(read.double().cpu().numpy(), of, len(among.ids))


def _records(
    facts: Sequence[Sample], among: Range, seed: int
) -> tuple[list[EditRecord], list[int]]:
    """For each answer, a few entities that do not have it, each given it."""
    generator = np.random.default_rng(seed)
    records: list[EditRecord] = []
    of: list[int] = []
    for answer, names in enumerate(among.objects):
        others = [fact for fact in facts if among.answer(fact.object) != answer]
        if not others:
            raise ToolError(
                "relation: all of its facts begin with the same token for this subject, so there "
                "is nothing to tell apart"
            )
        for index in generator.permutation(len(others))[:_PER_ANSWER]:
            fact = others[int(index)]
            records.append(
                EditRecord(entity=fact.subject, old_object=fact.object, new_object=names[0])
            )
            of.append(answer)
    return records, of


def _means(
    vectors: Float[np.ndarray, "record d_model"], of: Sequence[int], n_answers: int
) -> Float[np.ndarray, "answer d_model"]:
    which = np.asarray(of)
    return np.stack([vectors[which == answer].mean(0) for answer in range(n_answers)])
