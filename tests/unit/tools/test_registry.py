"""`@tool`: schema from the signature, strict arguments, errors that name what is valid."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from dragoman.core.errors import Interrupted, ToolError
from dragoman.core.records import ToolSuccess
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tool, tools_digest


@tool(method="behaviour")
def count_things(
    ctx: ToolContext,
    layer: Annotated[int, Field(ge=0, le=9, description="Which layer")],
    names: list[str] | None = None,
) -> ToolSuccess:
    """Count things in a layer."""
    if layer == 7:
        raise ToolError("layer 7 holds no things; try 0..6")
    ctx.step(1, 1, "counted")
    artifact = ctx.save("things.json", "[]", "application/json")
    return ToolSuccess(summary=f"layer {layer}", artifacts=(artifact,))


@pytest.fixture
def context(tmp_path: Path, tiny_subject: Any) -> ToolContext:
    return ToolContext(
        network=tiny_subject, seed=0, home=tmp_path, artifacts=tmp_path / "x", cache=tmp_path / "c"
    )


def _run(context: ToolContext, arguments: dict[str, Any]) -> Any:
    parsed = count_things.parse(arguments)
    return count_things.run(
        context, count_things.experiment(parsed, subject_digest="d", seed=0, chat="model")
    )


def test_the_schema_says_what_an_agent_needs() -> None:
    schema: Any = count_things.schema
    assert schema["properties"]["layer"]["maximum"] == 9
    assert schema["properties"]["layer"]["description"] == "Which layer"
    assert schema["required"] == ["layer"]
    assert schema["additionalProperties"] is False
    assert count_things.description == "Count things in a layer."


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "argument 'layer' is missing"),
        ({"layer": 41}, "argument 'layer': Input should be less than or equal to 9"),
        ({"layer": "3"}, "argument 'layer': Input should be a valid integer"),
        ({"layer": True}, "argument 'layer': Input should be a valid integer"),
        ({"layer": 3, "neuron": 1}, r"argument 'neuron' is unknown \(known: layer, names\)"),
        ({"layer": 3, "names": [1]}, r"argument 'names.*valid string"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ToolError, match=complaint):
        count_things.parse(arguments)


def test_a_tool_error_is_a_result_and_a_bug_is_not(context: ToolContext) -> None:
    assert _run(context, {"layer": 7}).error == "layer 7 holds no things; try 0..6"

    @tool(method="behaviour")
    def break_down(ctx: ToolContext) -> ToolSuccess:
        """Have a bug."""
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_down.run(context, break_down.experiment({}, subject_digest="d", seed=0))


def test_an_artifact_lies_in_the_data_folder_with_its_digest(context: ToolContext) -> None:
    (artifact,) = _run(context, {"layer": 1}).artifacts
    assert artifact.path == "x/things.json"
    assert (context.home / artifact.path).read_text() == "[]"


def test_a_cancelled_tool_stops_at_its_next_step(tmp_path: Path, tiny_subject: Any) -> None:
    cancelled = ToolContext(
        network=tiny_subject,
        seed=0,
        home=tmp_path,
        artifacts=tmp_path / "x",
        cache=tmp_path / "c",
        cancelled=lambda: True,
    )
    with pytest.raises(Interrupted):
        _run(cancelled, {"layer": 1})
    assert not (tmp_path / "x").exists()


def test_only_a_tool_that_uses_chat_depends_on_which(context: ToolContext) -> None:
    experiment = count_things.experiment({"layer": 1}, subject_digest="d", seed=0, chat="model")
    assert experiment.chat == ""
    assert experiment.code == tools_digest()


@tool(method="circuits")
def read_relations(
    ctx: ToolContext, relation: str, relations: list[str], edits: list[dict[str, str]]
) -> ToolSuccess:
    """Read some."""
    return ToolSuccess(summary="read")


def test_a_changed_file_is_another_experiment_wherever_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"

    def name_of(**arguments: Any) -> str:
        given = {"relation": "x", "relations": [], "edits": [], **arguments}
        parsed = read_relations.parse(given)
        return read_relations.experiment(parsed, subject_digest="d", seed=0).id

    calls: list[dict[str, Any]] = [
        {"relation": str(path)},
        {"relations": ["x", str(path)]},
        {"edits": [{"relation": str(path), "entity": "France"}]},
    ]
    path.write_text("{}")
    before = [name_of(**each) for each in calls]
    assert [name_of(**each) for each in calls] == before
    path.write_text("[]")
    assert not set(before) & {name_of(**each) for each in calls}


@pytest.mark.parametrize("name", ["a" * 4000, "~nobody_here/x", "country_capital", "\0"])
def test_a_name_that_is_no_file_is_only_a_name(name: str) -> None:
    parsed = read_relations.parse({"relation": name, "relations": [], "edits": []})
    experiment = read_relations.experiment(parsed, subject_digest="d", seed=0)
    assert experiment.code == tools_digest()


def test_a_folder_that_is_called_as_a_relation_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("country_capital", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "large.bin").write_bytes(b"x")
    (tmp_path / "country_language").write_text("not the relation that is meant")
    for name in ("country_capital", "mine", "country_language", "Country Language"):
        parsed = read_relations.parse({"relation": name, "relations": [], "edits": []})
        experiment = read_relations.experiment(parsed, subject_digest="d", seed=0)
        assert experiment.code == tools_digest()
