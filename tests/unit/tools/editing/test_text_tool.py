"""`edit_text`: several edits at once in a person's own texts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dragoman.core.errors import ToolError
from dragoman.core.records import JsonObject, ToolSuccess
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.directions import IDENTITY, PREFIX, RANDOM
from dragoman.tools.editing.fitting import PLANS
from dragoman.tools.editing.study import prepare
from dragoman.tools.editing.text_tool import edit_text
from dragoman.tools.relations import Relation, Sample
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted import Planted

MakeContext = Callable[[LanguageSubject], ToolContext]


def _call(ctx: ToolContext, **arguments: object) -> ToolSuccess:
    given: JsonObject = json.loads(json.dumps({"effort": "quick", "layer": 2, **arguments}))
    return edit_text.function(ctx, **edit_text.parse(given))


def _edit(path: Path, fact: Sample, relation: Relation) -> dict[str, str]:
    objects = relation.objects
    new = objects[(objects.index(fact.object) + 1) % len(objects)]
    return {"relation": str(path), "entity": fact.subject, "new_object": new}


def test_two_entities_are_edited_at_once_and_each_gets_its_own_object(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    ctx = context(planted.subject)
    one, two = linear.samples[0], linear.samples[1]
    edits = [_edit(files["linear"], fact, linear) for fact in (one, two)]
    texts = [f"{one.subject} lives in", f"{two.subject} lives in"]
    result = _call(ctx, edits=edits, texts=texts)
    measured = result.measurements[0]
    assert measured.metric == "new_object_probability"
    assert measured.n == 2
    assert measured.value > 0.9
    assert measured.baseline < 0.1
    beside = {each.scope: each.value for each in result.controls}
    assert {PREFIX, RANDOM, IDENTITY} <= set(beside)
    assert beside[RANDOM] < 0.1
    shown = result.output["texts"]
    assert isinstance(shown, list)
    for each, edit, fact in zip(shown, edits, (one, two), strict=True):
        assert isinstance(each, dict)
        assert str(each["after"]).strip().startswith(edit["new_object"])
        assert str(each["before"]).strip().startswith(fact.object)
    # Both are kept out of training, whichever fold they fall in.
    (folder,) = (ctx.cache / "editors").iterdir()
    split = json.loads((folder / "editor.json").read_text())["inputs"]["split"]
    assert {one.subject, two.subject} <= {*split["test"], *split["test_unknown"]}
    assert not {one.subject, two.subject} & {*split["train"], *split["validation"]}


def test_an_edit_of_one_mention_leaves_the_other(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    fact = linear.samples[0]
    edit = _edit(files["linear"], fact, linear)
    text = f"{fact.subject} and {fact.subject} lives in"  # the cue reads the nearest name
    values = {
        occurrence: _call(
            context(planted.subject), edits=[edit], texts=[text], occurrence=occurrence
        )
        .measurements[0]
        .value
        for occurrence in ("first", "last", "all")
    }
    assert values["first"] < 0.1
    assert values["last"] > 0.9
    assert values["all"] > 0.9


def test_all_tokens_of_a_name_say_so(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    fact = linear.samples[0]
    result = _call(
        context(planted.subject),
        edits=[_edit(files["linear"], fact, linear)],
        texts=[f"{fact.subject} lives in"],
        tokens="all",
    )
    assert any("all of them" in caveat for caveat in result.caveats)
    assert result.measurements[0].value > 0.9


def test_what_cannot_be_edited_is_told_before_anything_is_trained(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    ctx = context(planted.subject)
    one, two = linear.samples[0], linear.samples[1]
    edit, other = (_edit(files["linear"], fact, linear) for fact in (one, two))
    asked = f"{one.subject} lives in"
    for edits, texts, told in (
        ([edit], ["Nobody lives in"], "text 1 mentions none of"),
        ([edit, other], [asked], f"{two.subject!r} occurs in none of the texts"),
        ([edit, {**edit, "new_object": linear.objects[-1]}], [asked], "gets two objects"),
        ([{**edit, "new_object": one.object}], [asked], "has already"),
        ([{**edit, "entity": "nobody"}], [asked], "does not occur in relation"),
    ):
        with pytest.raises(ToolError, match=told):
            _call(ctx, edits=edits, texts=texts)
    assert not (ctx.cache / "editors").exists()


def test_too_many_held_out_leave_nothing_to_train_on(
    planted: Planted, linear: Relation, context: MakeContext
) -> None:
    everyone = [fact.subject for fact in linear.samples]
    with pytest.raises(ToolError, match="edit fewer entities at once"):
        prepare(context(planted.subject), linear, PLANS["quick"], 2, held_out=everyone)
