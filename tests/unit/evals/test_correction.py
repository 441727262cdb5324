"""The correction eval: the page from rows, and rows that survive a stop."""

from pathlib import Path

import pytest

from dragoman.core.records import Measurement
from dragoman.evals import correction
from dragoman.evals.correction import Row, main, render
from dragoman.evals.rows import read_rows
from dragoman.tools.subjects.language import LanguageSubject


def _measured(metric: str, value: float, scope: str = "") -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        unit="fraction",
        baseline=0.25,
        control="no edit",
        ci95=(value - 0.125, value + 0.125),
        n=72,
        n_failed=0,
        scope=scope,
    )


def test_a_line_for_each_measurement() -> None:
    row = Row(
        part="occupations",
        seed=3,
        subject="d",
        layer=13,
        seconds=61.5,
        code="c",
        measurements=(
            _measured("corrected_accuracy", 0.5, "with the biography"),
            _measured("phi", 0.25, "with the biography"),
        ),
    )
    page = render([row, row], "a|b\x1b", "make it")
    assert (
        "| occupations | 3 | corrected_accuracy | with the biography | 0.50 [0.38, 0.62] | "
        "0.25 no edit | 72 |"
    ) in page
    assert page.count("| phi |") == 2
    assert "Made by `make it`: 123 s of CPU time." in page
    assert "\x1b" not in page


def test_a_run_that_was_stopped_goes_on_where_it_was(
    tiny_subject: LanguageSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, int]] = []

    def occupations(subject: LanguageSubject, layer: int, seed: int) -> list[Measurement]:
        ran.append(("occupations", seed))
        return [_measured("corrected_accuracy", 0.5)]

    def entailment(subject: LanguageSubject, layer: int, seed: int) -> list[Measurement]:
        ran.append(("entailment", seed))
        return [_measured("entailment", 0.25)]

    monkeypatch.setattr(correction, "load_subject", lambda name, settings: tiny_subject)
    monkeypatch.setattr(correction, "run_occupations", occupations)
    monkeypatch.setattr(correction, "run_entailment", entailment)
    rows, out = tmp_path / "rows.jsonl", tmp_path / "page.md"
    arguments = ["--rows", str(rows), "--out", str(out)]
    assert main([*arguments, "--seeds", "0", "--parts", "occupations"]) == 0
    assert main(arguments) == 0
    assert ran == [("occupations", 0), ("entailment", 0)]
    rows.write_text(rows.read_text()[:-20])
    assert main([*arguments, "--seeds", "0", "1"]) == 0
    assert ran[2:] == [("entailment", 0), ("occupations", 1), ("entailment", 1)]
    kept = read_rows(rows, Row)
    assert [(row.part, row.seed) for row in kept] == [ran[0], *ran[2:]]
    assert "| entailment | 1 |" in out.read_text()
    assert main(arguments) == 0
    assert len(ran) == 5
    assert "| entailment | 1 |" not in out.read_text()
