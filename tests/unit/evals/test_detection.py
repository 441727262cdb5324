"""The detection eval: the page from rows, and rows that survive a stop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.records import Experiment, JsonObject, Measurement, ToolResult, Unit
from dragoman.evals import detection
from dragoman.evals.detection import Row, main, run_row
from dragoman.evals.detection_table import beats, render
from dragoman.evals.rows import append, read_rows
from dragoman.tools.editing.detection.methods import (
    ANOTHER_ENTITY,
    CONFIDENCE,
    CONTROL_TASK,
    STATED_OBJECT,
    TWIN,
)
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted import plant


def _measured(
    metric: str,
    value: float,
    baseline: float,
    scope: str = "",
    half: float = 0.1,
    unit: Unit = "correlation",
) -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        unit=unit,
        baseline=baseline,
        control=CONTROL_TASK,
        ci95=(value - half, value + half),
        n=24,
        n_failed=2,
        scope=scope,
    )


def _result(phi: float, confidence: float, task: float = 0.02) -> ToolResult:
    asked = Experiment(tool="detect_errors", arguments={}, subject_digest="d", seed=0, code="c")
    output: JsonObject = {
        "errors_tested": 9,
        "entity_layers": [[12], [12, 20]],
        "layers_tried": [
            {"layers": [12], "auroc_on_fitting_split": 0.75},
            {"layers": [12, 20], "auroc_on_fitting_split": 0.8},
        ],
    }
    return ToolResult(
        experiment=asked,
        experiment_id=asked.id,
        status="ok",
        summary="foreseen",
        measurements=(
            _measured("phi", phi, confidence),
            _measured("phi_above_confidence", phi - confidence, 0.0),
            _measured("auroc", 0.81, 0.7, unit="fraction"),
            _measured("corrected_accuracy", 0.75, 0.5, unit="fraction"),
        ),
        controls=(
            _measured("phi", phi, task),
            _measured("phi", confidence, task, CONFIDENCE),
            _measured("phi", 0.3, task, STATED_OBJECT),
            _measured("phi", 0.2, task, ANOTHER_ENTITY),
            _measured("phi", 0.1, task, TWIN),
        ),
        output=output,
    )


def _refused(why: str) -> ToolResult:
    asked = Experiment(tool="detect_errors", arguments={}, subject_digest="d", seed=0)
    return ToolResult.failure(asked, why)


def _page(rows: Sequence[tuple[str, ToolResult]], n_codes: int = 1) -> str:
    return render(
        rows, subject="a | b", question="prior", command="make it", seconds=90, n_codes=n_codes
    )


def test_the_page_says_where_the_probe_beats_confidence_and_where_it_does_not() -> None:
    rows = [
        ("well", _result(0.6, 0.3)),
        ("barely", _result(0.35, 0.3)),
        ("below", _result(0.2, 0.4)),
        ("by|chance", _result(0.25, 0.2, task=0.3)),
        ("known", _refused("the subject gets 40 of 40 facts right")),
    ]
    page = _page(rows)
    assert page.startswith("# Foreseeing errors of a | b, question: prior")
    line = next(line for line in page.splitlines() if line.startswith("| `well`"))
    assert [cell.strip() for cell in line.split("|")[2:8]] == [
        "24",
        "9",
        "0.60 [0.50, 0.70]",
        "0.30 [0.20, 0.40]",
        "0.30 [0.20, 0.40]",
        "0.02",
    ]
    assert "0.50 → 0.75" in page
    assert "above the control task on 2 of 4 relations (goal: 8)" in page
    assert "lies above 0 on 1: `well`" in page
    assert "Not above: `below`, `by|chance`" in page
    assert "stated object alone on 2 of 4" in page
    assert "- `well`: 12: 0.75, all: 0.80" in page
    assert "by\\|chance" in page
    assert "- the subject gets 40 of 40 facts right" in page
    assert "5 relations, 2 minutes" in page
    assert "versions of the tools" not in page
    assert "2 versions of the tools" in _page(rows, n_codes=2)
    assert [beats(result) for _, result in rows[:4]] == [True, True, False, False]


def test_only_refusals_make_a_page_too() -> None:
    page = _page([("known", _refused("too well known"))])
    assert "0 of 0 relations" in page
    assert "too well known" in page


def _row(relation: str, seed: int, result: ToolResult, subject: LanguageSubject) -> Row:
    return Row(
        relation=relation,
        question="prior",
        content=load_relation(relation).content_id(),
        subject_digest=subject.identity.digest,
        effort="full",
        seed=seed,
        seconds=30,
        result=result,
    )


def test_relations_are_pooled_since_one_alone_decides_little() -> None:
    rows = [("one", _result(0.6, 0.3)), ("two", _result(0.2, 0.4))]
    page = _page(rows)
    assert (
        "- Mean of phi over relations: 0.40; above that of its own confidence +0.05 [-0.20, +0.30]"
        in page
    )
    assert "the median one has 9 errors among its test facts" in page
    assert "is 0.20 wide" in page


def test_a_run_that_was_stopped_goes_on_where_it_was(
    tiny_subject: LanguageSubject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran: list[tuple[str, int]] = []

    def scripted(subject: LanguageSubject, relation: str, *rest: Any) -> Row:
        ran.append((relation, rest[-1]))
        return _row(relation, rest[-1], _result(0.6, 0.3), subject)

    monkeypatch.setattr(detection, "load_subject", lambda name, settings: tiny_subject)
    monkeypatch.setattr(detection, "run_row", scripted)
    rows, out = tmp_path / "rows.jsonl", tmp_path / "page.md"
    names = ["country_capital", "country_language"]
    arguments = [*names, "--rows", str(rows), "--out", str(out)]
    assert main([*arguments, "--table-only"]) == 1
    assert not ran
    assert main(arguments) == 0
    assert ran == [(name, 0) for name in names]
    whole = out.read_text()
    rows.write_text(rows.read_text()[:-40])
    assert main(arguments) == 0
    assert ran[2:] == [(names[1], 0)]
    assert out.read_text() == whole
    assert main([*arguments, "--seed", "1"]) == 0
    assert ran[3:] == [(name, 1) for name in names]
    assert "seed 1" in out.read_text()
    assert main([*arguments, "--table-only"]) == 0
    assert len(ran) == 5
    assert out.read_text() == whole
    assert "1 of 2: 30 s: foreseen" in capsys.readouterr().err


def test_a_relation_that_cannot_be_judged_is_a_row(tmp_path: Path) -> None:
    planted = plant(0)
    relation = planted.write_relations(tmp_path / "relations")["linear"]
    row = run_row(planted.subject, str(relation), "prior", "quick", 0)
    assert row.result.status == "error"
    assert "at least 6 right and 6 wrong" in str(row.result.error)
    append(tmp_path / "rows.jsonl", row)
    assert read_rows(tmp_path / "rows.jsonl", Row) == [row]
