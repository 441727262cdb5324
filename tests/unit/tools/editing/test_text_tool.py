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
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.editing.study import prepare, survey
from dragoman.tools.editing.text_edits import WantedEdit, find_mentions
from dragoman.tools.editing.text_tool import edit_text
from dragoman.tools.relations import Relation, Sample, load_relation, read_relation
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted import Planted

MakeContext = Callable[[LanguageSubject], ToolContext]


def _call(ctx: ToolContext, **arguments: object) -> ToolSuccess:
    given: JsonObject = json.loads(json.dumps({"effort": "quick", "layer": 2, **arguments}))
    return edit_text.function(ctx, **edit_text.parse(given))


def _edit(path: Path, fact: Sample, relation: Relation, which: int = 0) -> dict[str, str]:
    # None of the first facts has it: what is said of one is not what is true of another.
    taken = {each.object for each in relation.samples[:3]}
    new = [name for name in relation.objects if name not in {*taken, fact.object}][which]
    return {"relation": str(path), "entity": fact.subject, "new_object": new}


def test_two_entities_are_edited_in_one_text_and_each_gets_its_own_object(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    ctx = context(planted.subject)
    one, two = linear.samples[0], linear.samples[1]
    edits = [_edit(files["linear"], fact, linear, which) for which, fact in enumerate((one, two))]
    # The cue reads the nearest name; both are edited in both texts.
    texts = [
        f"{two.subject} and {one.subject} lives in ",
        f"{one.subject} and {two.subject} lives in",
    ]
    result = _call(ctx, edits=edits, texts=texts)
    named = [
        f"{fact.subject} → {edit['new_object']}"
        for fact, edit in zip((one, two), edits, strict=True)
    ]
    assert [each.scope for each in result.measurements] == named
    for place, measured in enumerate(result.measurements):
        assert (measured.metric, measured.n) == ("new_object_probability", 2)
        assert measured.baseline < 0.1
        shown = result.output["texts"]
        assert isinstance(shown, list)
        each = shown[place]
        assert isinstance(each, dict)
        assert str(each["after"]).strip().startswith(edits[place]["new_object"])
        assert str(each["before"]).strip().startswith((one, two)[place].object)
        asked = each["edits"]
        assert isinstance(asked, list)
        assert [isinstance(edit, dict) and edit["n_tokens_edited"] for edit in asked] == [1, 1]
        for edit, wanted in zip(asked, (place == 0, place == 1), strict=True):
            assert isinstance(edit, dict)
            moved = edit["probabilities"]
            assert isinstance(moved, dict)
            assert (float(str(moved["new_after"])) > 0.9) == wanted
    beside = {each.scope: each.value for each in result.controls}
    for name in named:
        assert {f"{name}, {method}" for method in (PREFIX, RANDOM, IDENTITY)} <= set(beside)
        assert beside[f"{name}, {RANDOM}"] < 0.1
    # Both are kept out of training, whichever fold they fall in.
    (folder,) = (ctx.cache / "editors").iterdir()
    split = json.loads((folder / "editor.json").read_text())["inputs"]["split"]
    assert {one.subject, two.subject} <= {*split["test"], *split["test_unknown"]}
    assert not {one.subject, two.subject} & {*split["train"], *split["validation"]}


def test_two_relations_of_one_entity_are_edited_at_once(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    ctx = context(planted.subject)
    looked_up = read_relation(files["looked_up"])
    fact = linear.samples[0]
    other = next(each for each in looked_up.samples if each.subject == fact.subject)
    edits = [_edit(files["linear"], fact, linear), _edit(files["looked_up"], other, looked_up)]
    texts = [f"{fact.subject} lives in", f"{fact.subject} likes to eat"]
    result = _call(ctx, edits=edits, texts=texts)
    first, second = (
        [part for part in each["edits"] if isinstance(part, dict)]
        for each in result.output["texts"]  # type: ignore[union-attr]
        if isinstance(each, dict) and isinstance(each["edits"], list)
    )
    # What is stored at the entity is edited; what is looked up at the end is not.
    assert first[0]["probabilities"]["new_after"] > 0.9  # type: ignore[call-overload,index,operator]
    assert second[1]["probabilities"]["new_after"] < 0.1  # type: ignore[call-overload,index,operator]
    assert len(list((ctx.cache / "editors").iterdir())) == 2


def test_mentions_and_tokens_are_edited_as_asked(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    ctx, fact = context(planted.subject), linear.samples[0]
    edit = _edit(files["linear"], fact, linear)
    text = f"{fact.subject} and {fact.subject} lives in"  # the cue reads the nearest name
    values = {}
    for occurrence in ("first", "last", "all"):
        result = _call(ctx, edits=[edit], texts=[text], occurrence=occurrence)
        values[occurrence] = result.measurements[0].value
    assert values["first"] < 0.1
    assert values["last"] > 0.9
    assert values["all"] > 0.9
    result = _call(ctx, edits=[edit], texts=[text], tokens="all")
    assert any("all of them" in caveat for caveat in result.caveats)
    assert any("of other wordings" in caveat for caveat in result.caveats)
    assert result.measurements[0].value > 0.9


def test_what_cannot_be_edited_is_told_before_anything_is_trained(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    ctx = context(planted.subject)
    one, two = linear.samples[0], linear.samples[1]
    edit, other = (_edit(files["linear"], fact, linear) for fact in (one, two))
    asked = f"{one.subject} lives in"
    copied = files["linear"].with_name("copied.json")
    copied.write_bytes(files["linear"].read_bytes())
    for edits, texts, told in (
        ([edit], ["Nobody lives in"], "text 1 mentions none of"),
        ([edit, other], [asked], f"{two.subject!r} occurs in none of the texts"),
        ([edit, {**edit, "new_object": linear.objects[-1]}], [asked], "named twice"),
        ([edit, {**edit, "relation": str(copied)}], [asked], "named twice"),
        ([{**edit, "new_object": " "}], [asked], "is empty"),
        ([{**edit, "new_object": one.object}], [asked], "has already"),
        ([{**edit, "entity": "nobody"}], [asked], "does not occur in relation"),
    ):
        with pytest.raises(ToolError, match=told):
            _call(ctx, edits=edits, texts=texts)
    assert not (ctx.cache / "editors").exists()


def test_a_name_inside_a_longer_name_is_not_edited_with_it() -> None:
    known = load_relation("country_capital")
    longer = Sample(subject="Papua New Guinea", object="Port Moresby")
    relation = known.model_copy(update={"samples": (*known.samples, longer)})
    record = EditRecord(entity="Guinea", old_object="Conakry", new_object="Rome")
    wanted = [WantedEdit(relation, record)]
    assert find_mentions(["In Guinea", "Guinea-like Guinea"], wanted) == [[0], [0]]
    with pytest.raises(ToolError, match="'Guinea' stands inside 'Papua New Guinea'"):
        find_mentions(["Guinea is", "Papua New Guinea is"], wanted)


def test_entities_of_all_folds_can_be_held_out_together(
    planted: Planted, linear: Relation, context: MakeContext
) -> None:
    ctx = context(planted.subject)
    alone = survey(ctx, linear, PLANS["quick"]).split
    wanted = [alone.train[0].subject, alone.validation[0].subject, alone.test[0].subject]
    split = survey(ctx, linear, PLANS["quick"], held_out=wanted).split
    tested = {fact.subject for fact in (*split.test, *split.test_unknown)}
    assert set(wanted) <= tested
    everyone = [*split.train, *split.validation, *split.test, *split.test_unknown]
    assert len({fact.subject for fact in everyone}) == len(everyone)
    assert {fact.subject for fact in everyone} == {fact.subject for part in alone for fact in part}


def test_too_many_held_out_leave_nothing_to_train_on(
    planted: Planted, linear: Relation, context: MakeContext
) -> None:
    everyone = [fact.subject for fact in linear.samples]
    with pytest.raises(ToolError, match="edit fewer entities at once"):
        prepare(context(planted.subject), linear, PLANS["quick"], 2, held_out=everyone)
