"""The tool `edit_text`: one or several edits at once, in any text that mentions the entities."""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field, JsonValue

from dragoman.core.records import JsonObject, Measurement, ToolSuccess
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.caveats import edit_caveats
from dragoman.tools.editing.directions import EDITED, NO_EDIT, PREFIX
from dragoman.tools.editing.fitting import PLANS
from dragoman.tools.editing.placing import Occurrence, Placement, Tokens, entity_tokens, place
from dragoman.tools.editing.text_edits import (
    TextEdit,
    TrainedEdit,
    check_edits,
    find_mentions,
    train_edits,
)
from dragoman.tools.editing.tool import (
    EditLayer,
    EditorForm,
    EditorKind,
    HowMuch,
    account,
)
from dragoman.tools.registry import tool
from dragoman.tools.relations import relation_caveats
from dragoman.tools.statistics import mean
from dragoman.tools.subjects.language import LanguageSubject

_FEW_TEXTS = 5
_WRITTEN = (EDITED, NO_EDIT, PREFIX)


class _Asked(NamedTuple):
    """One text under one method."""

    text: str
    placements: list[Placement]


class _Probabilities(NamedTuple):
    """Of an edit's two objects' first tokens, as the next token after a text."""

    old: float
    new: float


@tool(method="editing")
def edit_text(
    ctx: ToolContext,
    edits: Annotated[
        list[TextEdit],
        Field(
            min_length=1,
            max_length=8,
            description="What is changed, all at once: entities, or several relations of one",
        ),
    ],
    texts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000, pattern=r"\S")]],
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

    All edits act at once, in the pass over the text alone. Editors are trained (or found again)
    with every edited entity held out. `new_object_probability`, for each edit: that of the new
    object as the next word, over the texts that mention its entity; it says something of texts that
    ask for the object. Baselines: no edit, the facts stated before the text, identity, mean
    difference, random directions of equal norm. Space at the end of a text is left out.
    """
    subject, plan = ctx.subject, PLANS[effort]
    if layer is not None:
        subject.check_layer(layer)
    texts = [text.rstrip() for text in texts]
    wanted = check_edits(subject, edits)
    mentioned = find_mentions(texts, wanted)
    n_edited = [
        {
            place: len(
                entity_tokens(subject, text, wanted[place].record.entity, occurrence, tokens)
            )
            for place in some
        }
        for text, some in zip(texts, mentioned, strict=True)
    ]
    trained = train_edits(ctx, wanted, plan, layer, editor, kind)
    # A baseline that one of the edits lacks is no baseline of them all.
    steered = [
        name for name in trained[0].directions if all(name in one.directions for one in trained)
    ]
    methods = dict.fromkeys((*_WRITTEN, *steered))
    asked = {
        method: [
            _ask(text, [trained[place] for place in some], method, occurrence, tokens)
            for text, some in zip(texts, mentioned, strict=True)
        ]
        for method in methods
    }
    ctx.step(0, 0, "asking with and without the edits")
    found = {method: _read(subject, some, trained) for method, some in asked.items()}
    measured, controls = _measure(found, mentioned, trained, ctx.seed)
    written: dict[str, list[str]] = {}
    for method in _WRITTEN:
        ctx.step(0, 0, f"writing: {method}")
        written[method] = _write(subject, asked[method], plan.generated_tokens)
    shown: list[JsonValue] = [
        {
            "text": text,
            "before": written[NO_EDIT][row],
            "after": written[EDITED][row],
            "stated": written[PREFIX][row],
            "edits": [
                {
                    **_named(trained[place]),
                    "n_tokens_edited": n_edited[row][place],
                    "probabilities": _moved(found[NO_EDIT][row][place], found[EDITED][row][place]),
                }
                for place in mentioned[row]
            ],
        }
        for row, text in enumerate(texts)
    ]
    return ToolSuccess(
        summary=_summary(trained, measured),
        measurements=tuple(measured),
        controls=tuple(controls),
        output={
            "edits": [{**account(one.study), **_named(one)} for one in trained],
            "occurrence": occurrence,
            "tokens": tokens,
            "texts": shown,
        },
        caveats=_caveats(texts, tokens, trained, len(steered)),
    )


def _ask(
    text: str,
    some: Sequence[TrainedEdit],
    method: str,
    occurrence: Occurrence,
    tokens: Tokens,
) -> _Asked:
    if method == PREFIX:
        return _Asked(" ".join([*(one.statement for one in some), text]), [])
    if method == NO_EDIT:
        return _Asked(text, [])
    return _Asked(
        text,
        [
            Placement(
                one.wanted.record.entity, one.layer, one.directions[method], occurrence, tokens
            )
            for one in some
        ],
    )


def _read(
    subject: LanguageSubject, asked: Sequence[_Asked], trained: Sequence[TrainedEdit]
) -> list[list[_Probabilities]]:
    """After each text, what every edit's objects are the next word with."""
    edits = place(subject, [one.text for one in asked], [one.placements for one in asked])
    rows = subject.log_probs([one.text for one in asked], edits).exp()
    records = [one.wanted.record for one in trained]
    old = [subject.first_token(record.old_object) for record in records]
    new = [subject.first_token(record.new_object) for record in records]
    return [
        [_Probabilities(*pair) for pair in zip(row[old].tolist(), row[new].tolist(), strict=True)]
        for row in rows
    ]


def _write(subject: LanguageSubject, asked: Sequence[_Asked], n_tokens: int) -> list[str]:
    texts = [one.text for one in asked]
    edits = place(subject, texts, [one.placements for one in asked])
    return subject.generate(texts, n_tokens, edits=edits)


def _measure(
    found: Mapping[str, Sequence[Sequence[_Probabilities]]],
    mentioned: Sequence[Sequence[int]],
    trained: Sequence[TrainedEdit],
    seed: int,
) -> tuple[list[Measurement], list[Measurement]]:
    """Each edit by itself, and the same of every baseline."""
    measured: list[Measurement] = []
    controls: list[Measurement] = []
    for number, one in enumerate(trained):
        rows = [row for row, some in enumerate(mentioned) if number in some]
        before = [found[NO_EDIT][row][number].new for row in rows]
        for method, by_text in found.items():
            if method == NO_EDIT:
                continue
            name = one.wanted.name
            (measured if method == EDITED else controls).append(
                mean(
                    "new_object_probability",
                    [by_text[row][number].new for row in rows],
                    unit="probability",
                    baseline_samples=before,
                    control=NO_EDIT,
                    seed=seed,
                    scope=name if method == EDITED else f"{name}, {method}",
                )
            )
    return measured, controls


def _named(one: TrainedEdit) -> JsonObject:
    return {"relation": one.wanted.relation.name, **one.wanted.record.model_dump()}


def _moved(before: _Probabilities, after: _Probabilities) -> JsonObject:
    return {
        "old_before": before.old,
        "old_after": after.old,
        "new_before": before.new,
        "new_after": after.new,
    }


def _caveats(
    texts: Sequence[str], tokens: Tokens, trained: Sequence[TrainedEdit], n_steered: int
) -> tuple[str, ...]:
    caveats = []
    for one in trained:
        caveats += [
            *relation_caveats(one.wanted.relation),
            *edit_caveats(one.study, one.wanted.record),
        ]
    if len(texts) < _FEW_TEXTS:
        caveats.append(
            f"{len(texts)} of at least {_FEW_TEXTS} texts: intervals say little of other wordings"
        )
    if tokens == "all":
        caveats.append("editors are trained at the last token of a name; this edits all of them")
    if len({one.layer for one in trained}) > 1:
        caveats.append("the relations' editors act at different layers")
    if any(n_steered < len(one.directions) for one in trained):
        caveats.append("a baseline that one of the edits lacks is left out for all")
    return tuple(dict.fromkeys(caveats))


def _summary(trained: Sequence[TrainedEdit], measured: Sequence[Measurement]) -> str:
    return "; ".join(
        f"{one.wanted.record.entity}: {one.wanted.record.old_object} → "
        f"{one.wanted.record.new_object} at layer {one.layer}: probability {each.baseline:.2f} "
        f"before, {each.value:.2f} after (texts: {each.n})"
        for one, each in zip(trained, measured, strict=True)
    )
