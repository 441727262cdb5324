"""`detect_errors` where the truth is known."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dragoman.core.records import ToolResult
from dragoman.tools.editing.detection.methods import ANOTHER_ENTITY, STATED_OBJECT
from dragoman.tools.subjects.planted import Planted

Detect = Callable[..., ToolResult]


def test_errors_that_stand_at_the_entity_are_foreseen_and_no_control_foresees_them(
    planted: Planted, half: Path, detect: Detect, tmp_path: Path
) -> None:
    result = detect(planted.subject, half)
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
    task = by_scope[""]
    assert task.baseline < 0.3
    rows = json.loads((tmp_path / "home" / result.artifacts[0].path).read_text())
    assert len(rows) == 36
    assert [each["risk"] for each in rows] == sorted((e["risk"] for e in rows), reverse=True)
    # The probe names what the subject will say instead, before it is asked.
    assert sum(each["expected"] == each["answered"] for each in rows) > 18


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
