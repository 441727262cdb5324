"""`detect_errors` where the truth is known."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dragoman.core.records import ToolResult
from dragoman.tools.editing.detection.methods import ANOTHER_ENTITY, STATED_OBJECT
from dragoman.tools.subjects.planted import Planted

Detect = Callable[..., ToolResult]


def test_errors_that_stand_at_the_entity_are_foreseen_scored_and_corrected(
    planted: Planted, half: Path, detect: Detect, tmp_path: Path
) -> None:
    samples = json.loads(half.read_text())["samples"]
    given = [{"entity": each["subject"], "object": each["object"]} for each in samples]
    given.insert(3, {"entity": samples[0]["subject"], "object": "Atlantis"})
    facts = tmp_path / "facts.jsonl"
    facts.write_text("".join(json.dumps(row) + "\n" for row in given))
    result = detect(planted.subject, half, facts=str(facts))
    assert result.error is None

    found = result.measurement("phi")
    assert found is not None
    assert found.value > 0.7
    assert found.n == 36
    lead = result.measurement("phi_above_confidence")
    assert lead is not None
    assert lead.value == pytest.approx(found.value - found.baseline)
    by_scope = {each.scope: each for each in result.controls if each.metric == "phi"}
    for control in (STATED_OBJECT, ANOTHER_ENTITY):
        assert by_scope[control].value < 0.5
    assert by_scope[""].baseline < 0.3  # the control task

    after = result.measurement("corrected_accuracy")
    assert after is not None
    assert after.value > after.baseline + 0.2
    beside = {each.scope: each.value for each in result.controls if each.metric == after.metric}
    assert beside["random direction where an error is foreseen"] < after.value

    files = {each.name: tmp_path / "home" / each.path for each in result.artifacts}
    rows = json.loads(files["risks.json"].read_text())
    assert len(rows) == 36
    assert [each["risk"] for each in rows] == sorted((e["risk"] for e in rows), reverse=True)
    # The probe names what the subject will say, before it is asked.
    assert sum(each["expected"] == each["answered"] for each in rows) > 18

    scored = json.loads(files["facts.json"].read_text())
    assert [each["entity"] for each in scored] == [row["entity"] for row in given]
    assert scored[3]["risk"] is None
    assert "'Atlantis' is not among" in scored[3]["reason"]
    judged = [each for each in scored if each["risk"] is not None]
    assert len(judged) == 60
    assert sum(each["error_foreseen"] == each["error"] for each in judged) > 48


def test_a_relation_that_is_known_in_full_is_refused(
    planted: Planted, files: dict[str, Path], detect: Detect
) -> None:
    result = detect(planted.subject, files["linear"])
    assert result.error is not None
    assert "at least 6 right and 6 wrong" in result.error


def test_a_layer_out_of_range_is_named(planted: Planted, half: Path, detect: Detect) -> None:
    result = detect(planted.subject, half, layer=40)
    assert result.error is not None
    assert "layer 40 is outside 0..5" in result.error
