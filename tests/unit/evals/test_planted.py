"""The eval's rule and table, and the eval itself at its quick effort."""

from pathlib import Path

import pytest

from dragoman.core.records import Measurement
from dragoman.evals.planted import evaluate, main
from dragoman.evals.planted_table import Row, Table, found, render
from dragoman.tools.subjects.huggingface import load_folder


def measured(value: float, margin: float, baseline: float) -> Measurement:
    return Measurement(
        metric="efficacy",
        value=value,
        unit="fraction",
        baseline=baseline,
        control="no edit",
        ci95=(value - margin, value + margin),
        n=20,
        baseline_ci95=(baseline - margin, baseline + margin),
    )


HIGH, LOW = measured(0.9, 0.05, 0.1), measured(0.12, 0.05, 0.1)


def row(there: bool, subject: Measurement | None, twin: Measurement | None) -> Row:
    return Row("edit_representation", "a fact", "efficacy", there, subject, twin)


def test_found_needs_the_whole_interval_above_the_control() -> None:
    assert found(HIGH)
    assert not found(LOW)
    assert not found(None)
    assert not found(measured(0.22, 0.05, 0.14)), "0.17 does not reach beyond 0.19"
    assert found(measured(0.22, 0.05, 0.14).model_copy(update={"baseline_ci95": None}))


@pytest.mark.parametrize(
    ("there", "subject", "twin", "verdict"),
    [
        (True, HIGH, LOW, "recovered"),
        (True, HIGH, None, "recovered"),
        (True, LOW, LOW, "MISSED"),
        (True, None, None, "MISSED"),
        (True, HIGH, HIGH, "FOUND IN THE TWIN"),
        (False, LOW, None, "nothing found"),
        (False, None, None, "nothing found"),
        (False, HIGH, None, "FOUND WHAT IS NOT THERE"),
    ],
)
def test_verdict(
    there: bool, subject: Measurement | None, twin: Measurement | None, verdict: str
) -> None:
    made = row(there, subject, twin)
    table = Table(0, (made,))
    assert table.verdict(made) == verdict
    assert table.faults == (() if verdict in {"recovered", "nothing found"} else (made,))


def test_many_looks_at_nothing_are_judged_together() -> None:
    """An interval just above its control is a finding when looked for once, not out of twenty."""
    close = measured(0.21, 0.05, 0.1).model_copy(update={"baseline_ci95": None})
    alone = row(False, close, None)
    assert Table(0, (alone,)).faults == (alone,)
    close = measured(0.16, 0.05, 0.1).model_copy(update={"baseline_ci95": None})
    one, many = Table(0, (row(False, close, None),)), Table(0, (row(False, close, None),) * 20)
    assert one.faults
    assert not many.faults
    assert Table(0, (*many.rows, row(True, close, None))).faults == (), "what is there needs 95%"


def test_table_counts_what_passed_and_escapes_cells() -> None:
    fine, bad = row(True, HIGH, LOW), row(True, LOW, None)._replace(remark="a|b\u202e\n")
    text = render([Table(0, (fine, bad)), Table(4, (fine,))], "make it", 90.0)
    assert "0.90 [0.85, 0.95] | 0.10 | 0.12 [0.07, 0.17] | 20 | recovered" in text
    assert "a\\|b\\\\u202e\\\\n |" in text
    assert (
        "seed 0: 1 of 2 rows as they have to be. edit_representation, a fact, efficacy: MISSED."
        in text
    )
    assert "seed 4: 1 of 1 rows as they have to be.\n" in text
    assert "Made by `make it` in 1.5 minutes." in text


def test_saved_subject_can_be_examined_by_path(tmp_path: Path) -> None:
    assert main(["--seeds", "3", "--save", str(tmp_path)]) == 0
    assert load_folder(tmp_path / "subject").n_layers == 6
    assert {path.name for path in tmp_path.iterdir()} == {
        *("subject", "twin", "relations", "truth.json")
    }


def test_every_method_recovers_the_truth_and_nothing_else(tmp_path: Path) -> None:
    table = evaluate(0, "quick", tmp_path, lambda line: None)
    assert {made.method for made in table.rows} == {
        *("approximate_relation", "edit_representation", "caption_neurons")
    }
    assert [(made.planted, table.verdict(made)) for made in table.faults] == []
    assert sum(made.there for made in table.rows) >= 10
    assert sum(not made.there for made in table.rows) >= 4
