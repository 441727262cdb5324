"""The tool `edit_text`: one or several edits at once, in any text that mentions the entities."""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from jaxtyping import Float
from pydantic import Field, JsonValue
from torch import Tensor
from typing_extensions import TypedDict  # the standard library's is no model for pydantic in 3.11

from dragoman.core.errors import ToolError
from dragoman.core.records import JsonObject, Measurement, ToolSuccess
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.comparison import directions_of
from dragoman.tools.editing.directions import EDITED, NO_EDIT, PREFIX
from dragoman.tools.editing.fitting import PLANS
from dragoman.tools.editing.placing import (
    Occurrence,
    Placement,
    Tokens,
    entity_tokens,
    occurrences,
    place,
)
from dragoman.tools.editing.records import EditRecord, state
from dragoman.tools.editing.study import find_fact, prepare, wanted_edit
from dragoman.tools.editing.tool import EditLayer, EditorForm, EditorKind, HowMuch
from dragoman.tools.registry import tool
from dragoman.tools.relations import Relation, RelationName, load_relation
from dragoman.tools.statistics import mean
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


class _Wanted(NamedTuple):
    """One edit, checked."""

    relation: Relation
    record: EditRecord


class _Trained(NamedTuple):
    """One edit, ready to be put into texts."""

    record: EditRecord
    layer: int
    directions: Mapping[str, Float[Tensor, " d_model"]]
    """By method: the editor's own, and the baselines'."""
    statement: str
    """The edit in words."""


class _Pair(NamedTuple):
    """Probabilities of two objects' first tokens, as the next token after a text."""

    old: float
    new: float


class _Asked(NamedTuple):
    """One text under one method."""

    text: str
    placements: list[Placement]


@tool(method="editing")
def edit_text(
    ctx: ToolContext,
    edits: Annotated[list[TextEdit], Field(min_length=1, max_length=8)],
    texts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000)]],
        Field(
            min_length=1,
            max_length=16,
            description="Texts to be continued; each mentions an entity of `edits`",
        ),
    ],
    occurrence: Annotated[
        Occurrence, Field(description="Which mention of an entity is edited")
    ] = "all",
    tokens: Annotated[
        Tokens,
        Field(
            description="Which tokens of a mention: the last, at which editors are trained, or all"
        ),
    ] = "last",
    layer: EditLayer = None,
    editor: EditorForm = "contrast",
    kind: EditorKind = "linear",
    effort: HowMuch = "full",
) -> ToolSuccess:
    """Continue texts of your own with one or several edits in place, beside what is unedited.

    All edits act at once, in the pass over the text alone: several entities, or several relations
    of one. Editors are trained (or found again) with every edited entity held out.
    `new_object_probability` is that of the new object as the next word after the text, over texts
    and the edits in them, so it says something of texts that ask for the object. Baselines: no
    edit, the facts stated before the text, identity, mean difference, random directions of equal
    norm.
    """
    subject = ctx.subject
    if layer is not None:
        subject.check_layer(layer)
    wanted = _wanted(subject, edits)
    mentioned = _mentioned(texts, [one.record.entity for one in wanted])
    # All that can be wrong with a text is told before anything is trained.
    edited_tokens = [
        [
            len(entity_tokens(subject, text, wanted[number].record.entity, occurrence, tokens))
            for number in some
        ]
        for text, some in zip(texts, mentioned, strict=True)
    ]
    trained = _train(ctx, wanted, layer, editor, kind, effort)
    inside = [[trained[number] for number in some] for some in mentioned]
    # A baseline that one of the edits lacks is no baseline of them all.
    steered = [
        name for name in trained[0].directions if all(name in one.directions for one in trained)
    ]
    asked = {
        method: [
            _ask(text, some, method, occurrence, tokens)
            for text, some in zip(texts, inside, strict=True)
        ]
        for method in (EDITED, NO_EDIT, PREFIX, *(name for name in steered if name != EDITED))
    }
    ctx.step(0, 0, "asking with and without the edits")
    found = {method: _probabilities(subject, some, inside) for method, some in asked.items()}
    measured = [
        mean(
            "new_object_probability",
            _by_text(some),
            unit="probability",
            baseline_samples=_by_text(found[NO_EDIT]),
            control=NO_EDIT,
            seed=ctx.seed,
            scope="" if method == EDITED else method,
        )
        for method, some in found.items()
        if method != NO_EDIT
    ]
    written = {}
    for method in (EDITED, NO_EDIT, PREFIX):
        ctx.step(0, 0, f"writing: {method}")
        written[method] = _write(subject, asked[method], PLANS[effort].generated_tokens)
    shown: list[JsonValue] = [
        _shown(
            text,
            some,
            {method: each[row] for method, each in written.items()},
            {method: each[row] for method, each in found.items()},
            edited_tokens[row],
        )
        for row, (text, some) in enumerate(zip(texts, inside, strict=True))
    ]
    return ToolSuccess(
        summary=_summary(trained, texts, measured),
        measurements=(measured[0],),
        controls=tuple(measured[1:]),
        output={
            "edits": [{**one.record.model_dump(), "layer": one.layer} for one in trained],
            "occurrence": occurrence,
            "tokens": tokens,
            "texts": shown,
        },
        caveats=_caveats(texts, tokens, trained),
    )


def _wanted(subject: LanguageSubject, edits: Sequence[TextEdit]) -> list[_Wanted]:
    loaded = {name: load_relation(name) for name in dict.fromkeys(one["relation"] for one in edits)}
    found: list[_Wanted] = []
    for one in edits:
        relation = loaded[one["relation"]]
        fact = find_fact(relation, one["entity"])
        record = wanted_edit(subject, fact, one["new_object"])
        if any((each.relation, each.record.entity) == (relation, record.entity) for each in found):
            raise ToolError(
                f"edits: {record.entity!r} gets two objects of {relation.name!r}; name one"
            )
        found.append(_Wanted(relation, record))
    return found


def _mentioned(texts: Sequence[str], entities: Sequence[str]) -> list[list[int]]:
    """For each text, which of the edited entities occur in it."""
    found = [
        [number for number, entity in enumerate(entities) if occurrences(text, entity)]
        for text in texts
    ]
    for number, some in enumerate(found, start=1):
        if not some:
            names = ", ".join(repr(name) for name in dict.fromkeys(entities))
            raise ToolError(f"texts: text {number} mentions none of {names} as a word of its own")
    for number, entity in enumerate(entities):
        if not any(number in some for some in found):
            raise ToolError(f"edits: {entity!r} occurs in none of the texts as a word of its own")
    return found


def _train(
    ctx: ToolContext,
    wanted: Sequence[_Wanted],
    layer: int | None,
    editor: EditorForm,
    kind: EditorKind,
    effort: HowMuch,
) -> list[_Trained]:
    """Each edit's directions; one editor for each relation, which saw none of the entities."""
    found: dict[int, _Trained] = {}
    for relation in {one.relation.content_id(): one.relation for one in wanted}.values():
        places = [number for number, one in enumerate(wanted) if one.relation == relation]
        records = [wanted[number].record for number in places]
        study = prepare(
            ctx,
            relation,
            PLANS[effort],
            layer,
            form=editor,
            kind=kind,
            held_out=[record.entity for record in records],
        )
        directions = directions_of(ctx, study, records)
        for row, (number, record) in enumerate(zip(places, records, strict=True)):
            found[number] = _Trained(
                record,
                study.fit.layer,
                {method: vectors[row] for method, vectors in directions.items()},
                state(study.knowledge.rewrite, record.entity, record.new_object).text + ".",
            )
    return [found[number] for number in range(len(wanted))]


def _ask(
    text: str, some: Sequence[_Trained], method: str, occurrence: Occurrence, tokens: Tokens
) -> _Asked:
    if method == PREFIX:
        return _Asked(" ".join([*(one.statement for one in some), text]), [])
    placements = [
        Placement(one.record.entity, one.layer, one.directions[method], occurrence, tokens)
        for one in some
        if method != NO_EDIT
    ]
    return _Asked(text, placements)


def _probabilities(
    subject: LanguageSubject, asked: Sequence[_Asked], inside: Sequence[Sequence[_Trained]]
) -> list[list[_Pair]]:
    """For each text and each edit in it, what the word after the text is with."""
    edits = place(subject, [one.text for one in asked], [one.placements for one in asked])
    rows = subject.log_probs([one.text for one in asked], edits).exp()
    return [
        [
            _Pair(
                float(row[subject.first_token(one.record.old_object)]),
                float(row[subject.first_token(one.record.new_object)]),
            )
            for one in some
        ]
        for row, some in zip(rows, inside, strict=True)
    ]


def _by_text(pairs: Sequence[Sequence[_Pair]]) -> list[float]:
    """The new objects' mean in each text: edits of one text are not independent of another."""
    return [sum(pair.new for pair in some) / len(some) for some in pairs]


def _write(subject: LanguageSubject, asked: Sequence[_Asked], n_tokens: int) -> list[str]:
    texts = [one.text for one in asked]
    edits = place(subject, texts, [one.placements for one in asked])
    return subject.generate(texts, n_tokens, edits=edits)


def _shown(
    text: str,
    some: Sequence[_Trained],
    written: Mapping[str, str],
    found: Mapping[str, Sequence[_Pair]],
    edited_tokens: Sequence[int],
) -> JsonObject:
    """One text to read: before and after, and what moved for each edit."""
    moved: list[JsonValue] = [
        {
            **one.record.model_dump(),
            "n_tokens_edited": n_tokens,
            "probabilities": {
                "old_before": before.old,
                "old_after": after.old,
                "new_before": before.new,
                "new_after": after.new,
            },
        }
        for one, before, after, n_tokens in zip(
            some, found[NO_EDIT], found[EDITED], edited_tokens, strict=True
        )
    ]
    return {
        "text": text,
        "before": written[NO_EDIT],
        "after": written[EDITED],
        "stated": written[PREFIX],
        "edits": moved,
    }


def _caveats(texts: Sequence[str], tokens: Tokens, trained: Sequence[_Trained]) -> tuple[str, ...]:
    caveats = []
    if len(texts) < 2:
        caveats.append("one text says little: its interval spans no other wording")
    if tokens == "all":
        caveats.append("editors are trained at the last token of a name; this edits all of them")
    if len({one.layer for one in trained}) > 1:
        caveats.append("the relations' editors act at different layers")
    return tuple(caveats)


def _summary(
    trained: Sequence[_Trained], texts: Sequence[str], measured: Sequence[Measurement]
) -> str:
    edited, by_scope = measured[0], {one.scope: one for one in measured}
    edits = "; ".join(
        f"{one.record.entity}: {one.record.old_object} → {one.record.new_object}" for one in trained
    )
    layers = ", ".join(str(layer) for layer in sorted({one.layer for one in trained}))
    return (
        f"{edits} (layer {layers}; {len(texts)} texts): probability "
        f"of the new object {edited.baseline:.2f} before, {edited.value:.2f} after "
        f"(stated before the text: {by_scope[PREFIX].value:.2f})"
    )
