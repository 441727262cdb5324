"""Edits that a person names for texts of their own: checked first, then trained.

All that can be wrong with an edit or a text is told before anything is trained.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict  # the standard library's is no model for pydantic in 3.11

from dragoman.core.errors import ToolError
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.comparison import directions_of
from dragoman.tools.editing.editor import Form
from dragoman.tools.editing.editors.catalogue import Kind
from dragoman.tools.editing.fitting import Plan
from dragoman.tools.editing.placing import occurrences
from dragoman.tools.editing.records import EditRecord, state
from dragoman.tools.editing.study import Study, find_fact, prepare, wanted_edit
from dragoman.tools.relations import Relation, RelationName, load_relation
from dragoman.tools.subjects.language import LanguageSubject


class TextEdit(TypedDict):
    """One entity that is to have another object."""

    relation: RelationName
    entity: Annotated[
        str, Field(min_length=1, max_length=400, description="An entity of the relation")
    ]
    new_object: Annotated[
        str, Field(min_length=1, max_length=400, description="What it is to be related to instead")
    ]


class WantedEdit(NamedTuple):
    """One edit, checked."""

    relation: Relation
    record: EditRecord

    @property
    def name(self) -> str:
        """Which edit a figure is of."""
        return f"{self.record.entity} → {self.record.new_object}"


class TrainedEdit(NamedTuple):
    """One edit, ready to be put into texts."""

    wanted: WantedEdit
    study: Study
    directions: Mapping[str, Float[Tensor, " d_model"]]
    """By method: the editor's own, and the baselines'."""

    @property
    def layer(self) -> int:
        """Where the directions are added."""
        return self.study.fit.layer

    @property
    def statement(self) -> str:
        """The edit in words."""
        record = self.wanted.record
        told = state(self.study.knowledge.rewrite, record.entity, record.new_object)
        return f"{told.text}."


def check_edits(subject: LanguageSubject, edits: Sequence[TextEdit]) -> list[WantedEdit]:
    """The edits with the relations' own spelling of entities and objects.

    Raises:
        ToolError: an entity or object that cannot be edited, or a fact that is named twice.
    """
    loaded = {name: load_relation(name) for name in dict.fromkeys(one["relation"] for one in edits)}
    found: list[WantedEdit] = []
    for one in edits:
        relation = loaded[one["relation"]]
        fact = find_fact(relation, one["entity"])
        asked = one["new_object"].strip()
        spelled = {name.casefold(): name for name in relation.objects}
        record = wanted_edit(subject, fact, spelled.get(asked.casefold(), asked))
        # Copies of one file are one relation, whatever they are called.
        if any(
            each.relation.samples == relation.samples and each.record.entity == record.entity
            for each in found
        ):
            raise ToolError(
                f"edits: {record.entity!r} of {relation.name!r} is named twice; name it once"
            )
        found.append(WantedEdit(relation, record))
    return found


def find_mentions(texts: Sequence[str], wanted: Sequence[WantedEdit]) -> list[list[int]]:
    """For each text, the places in `wanted` of the edits whose entity it mentions.

    Raises:
        ToolError: a text that mentions none, an entity in no text, or a name that stands inside
            the name of another entity, which would be edited with it.
    """
    found = [
        [
            place
            for place, one in enumerate(wanted)
            if occurrences(text, one.record.entity) and _stands_alone(text, number, one)
        ]
        for number, text in enumerate(texts, start=1)
    ]
    for number, some in enumerate(found, start=1):
        if not some:
            names = ", ".join(repr(name) for name in dict.fromkeys(_entities(wanted)))
            raise ToolError(
                f"texts: text {number} mentions none of {names} as a word of its own (capital "
                "letters count)"
            )
    for place, entity in enumerate(_entities(wanted)):
        if not any(place in some for some in found):
            raise ToolError(f"edits: {entity!r} occurs in none of the texts as a word of its own")
    return found


def train_edits(
    ctx: ToolContext,
    wanted: Sequence[WantedEdit],
    plan: Plan,
    layer: int | None,
    form: Form,
    kind: Kind,
) -> list[TrainedEdit]:
    """Each edit's directions; one editor for each relation, which saw none of the entities."""
    edited = set(_entities(wanted))
    found: dict[int, TrainedEdit] = {}
    relations = {one.relation.content_id(): one.relation for one in wanted}
    for number, relation in enumerate(relations.values()):
        places = [place for place, one in enumerate(wanted) if one.relation == relation]
        held_out = [fact.subject for fact in relation.samples if fact.subject in edited]
        study = prepare(ctx, relation, plan, layer, form=form, kind=kind, held_out=held_out)
        # Two relations' edits of one entity add up: their random directions have to differ.
        directions = directions_of(
            ctx, study, [wanted[place].record for place in places], seed=ctx.seed + number
        )
        for row, place in enumerate(places):
            mine = {method: vectors[row] for method, vectors in directions.items()}
            found[place] = TrainedEdit(wanted[place], study, mine)
    return [found[place] for place in range(len(wanted))]


def _stands_alone(text: str, number: int, one: WantedEdit) -> bool:
    entity = one.record.entity
    for fact in one.relation.samples:
        longer = fact.subject
        if entity == longer or entity not in longer:
            continue
        around = occurrences(text, longer)
        if any(
            start <= begin and end <= stop
            for begin, end in occurrences(text, entity)
            for start, stop in around
        ):
            raise ToolError(
                f"texts: in text {number} {entity!r} stands inside {longer!r}, which would be "
                "edited with it; write another text"
            )
    return True


def _entities(wanted: Sequence[WantedEdit]) -> list[str]:
    return [one.record.entity for one in wanted]
