"""`dragoman memory` on a ledger with two findings."""

import json
from pathlib import Path

import pytest

from dragoman.agent.ledger import Ledger
from dragoman.core.claims import Finding
from dragoman.core.settings import load_settings
from dragoman.tui.cli import run


@pytest.fixture
def findings() -> list[Finding]:
    made = [
        Finding(
            id=f"finding-{day}",
            text=text,
            status="correlated",
            subject_name="smollm2",
            subject_digest="d" * 64,
            audit_id="20260301-000000-aaaa",
            created=f"2026-03-0{day}T00:00:00+00:00",
            source="claim",
        )
        for day, text in (
            (1, "The subject knows the capitals of countries."),
            (2, "Plurals\x1b[2J."),
        )
    ]
    with Ledger(load_settings().ledger_file) as ledger:
        ledger.start_audit("20260301-000000-aaaa", {}, "2026-03-01T00:00:00+00:00")
        for finding in made:
            ledger.put("20260301-000000-aaaa", "finding", finding.id, finding)
    return made


def test_an_empty_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["memory", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(["memory", "list"]) == 0
    assert "nothing is remembered yet" in capsys.readouterr().out


def test_list_is_latest_first(findings: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["memory", "list", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [Finding.model_validate(each) for each in printed] == findings[::-1]


def test_what_a_finding_says_is_only_shown_escaped(
    findings: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["memory", "list"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "Plurals\\x1b[2J." in out


@pytest.mark.weights
def test_search_finds_by_meaning(
    findings: list[Finding],
    weights_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DRAGOMAN_WEIGHTS", str(weights_home / "weights"))
    assert run(["memory", "search", "seat of government", "-k", "1", "--json"]) == 0
    (nearest,) = json.loads(capsys.readouterr().out)
    assert nearest["finding"]["id"] == "finding-1"
    assert run(["memory", "search", "seat of government"]) == 0
    assert "capitals of countries" in capsys.readouterr().out
