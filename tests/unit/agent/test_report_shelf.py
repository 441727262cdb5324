"""Reports are kept whole, found by a prefix, and refused when damaged."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dragoman.agent.rendering import images
from dragoman.agent.rendering.html import render_html
from dragoman.agent.rendering.markdown import render_markdown
from dragoman.agent.reporting import ReportShelf, parse_report, report_json, report_schema
from dragoman.core.errors import IntegrityError, UserError
from dragoman.core.records import Artifact
from dragoman.core.report import SCHEMA_VERSION, Report

SNAPSHOTS = Path(__file__).parents[2] / "snapshots"


@pytest.fixture
def shelf(tmp_path: Path) -> ReportShelf:
    return ReportShelf(tmp_path / "reports")


def named(report: Report, report_id: str, **changes: Any) -> Report:
    return report.model_copy(update={"id": report_id, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_save_writes_three_files_and_the_same_bytes_again(
    shelf: ReportShelf, tmp_path: Path, audit_report: Report, report_home: Path
) -> None:
    folder = shelf.save(audit_report, report_home)
    assert folder == shelf.folder / audit_report.id
    first = contents(folder)
    assert set(first) == {"report.json", "report.md", "report.html"}
    assert contents(shelf.save(audit_report, report_home)) == first
    other = ReportShelf(tmp_path / "elsewhere").save(audit_report, report_home)
    assert contents(other) == first
    assert [path.name for path in shelf.folder.iterdir()] == [audit_report.id]


def test_round_trip(shelf: ReportShelf, audit_report: Report, report_home: Path) -> None:
    odd = audit_report.model_copy(update={"outcome_reason": "lone \ud800, \x1b[2J, \u202e, é"})
    shelf.save(odd, report_home)
    assert shelf.load(odd.id) == odd
    stored = shelf.export(odd.id, "json")
    assert stored.isascii()
    assert parse_report(stored, "x") == odd


def test_unsound_report_leaves_nothing(
    shelf: ReportShelf, audit_report: Report, report_home: Path
) -> None:
    with pytest.raises(IntegrityError, match="has no replay command"):
        shelf.save(audit_report.model_copy(update={"replay": ()}), report_home)
    assert not shelf.folder.exists()


def test_full_disk_leaves_no_half_report(
    shelf: ReportShelf, audit_report: Report, report_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(target: Path, content: str | bytes) -> None:
        if target.name == "report.html":
            raise OSError(28, "No space left on device")
        target.write_text(str(content))

    monkeypatch.setattr("dragoman.agent.reporting.write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        shelf.save(audit_report, report_home)
    assert list(shelf.folder.iterdir()) == []
    assert shelf.rows() == []


def test_leftovers_of_a_kill_are_no_reports_and_go(
    shelf: ReportShelf, audit_report: Report, report_home: Path
) -> None:
    left = shelf.folder / f".{audit_report.id}.abc"
    left.mkdir(parents=True)
    assert shelf.rows() == []
    shelf.save(audit_report, report_home)
    assert not left.exists()


def test_rows_are_latest_first(shelf: ReportShelf, audit_report: Report, report_home: Path) -> None:
    assert shelf.rows() == []
    shelf.save(named(audit_report, "a1", finished="2026-03-01T10:00:00+00:00"), report_home)
    shelf.save(named(audit_report, "a2", finished="2026-03-02T10:00:00+00:00"), report_home)
    rows = shelf.rows()
    assert [row.id for row in rows] == ["a2", "a1"]
    assert rows[0].subject == "smollm2"
    assert rows[0].n_claims == 5
    assert rows[0].question == "; ".join(audit_report.questions)


def test_prefix_lookup(shelf: ReportShelf, audit_report: Report, report_home: Path) -> None:
    with pytest.raises(UserError, match="there are none yet"):
        shelf.load("a")
    for report_id in ("abc1", "abc2", "abc", "xyz"):
        shelf.save(named(audit_report, report_id), report_home)
    assert shelf.load("x").id == "xyz"
    assert shelf.load("abc").id == "abc"
    assert shelf.load("abc1").id == "abc1"
    with pytest.raises(UserError, match="could be 'abc', 'abc1', 'abc2'"):
        shelf.load("ab")
    with pytest.raises(UserError, match="known are 'abc', 'abc1', 'abc2', 'xyz'; see"):
        shelf.load("nope")
    for outside in ("", "..", "../reports/abc", "/etc", ".", "abc/..", "*"):
        with pytest.raises(UserError, match="no report"):
            shelf.load(outside)


def test_export(shelf: ReportShelf, audit_report: Report, report_home: Path) -> None:
    folder = shelf.save(audit_report, report_home)
    assert shelf.export("2026", "md") == render_markdown(audit_report)
    assert shelf.export("2026", "html") == render_html(audit_report, report_home)
    assert shelf.export("2026", "json") == report_json(audit_report)
    (folder / "report.html").unlink()
    with pytest.raises(IntegrityError, match=r"report\.html: cannot be read"):
        shelf.export("2026", "html")


DAMAGE: dict[str, Callable[[str], str]] = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "zeroed": lambda text: "\0" * len(text),
    "not an object": lambda text: "[]",
    "a bare number": lambda text: "1",
    "NaN": lambda text: text.replace('"seed": 0', '"seed": NaN', 1),
    "infinite": lambda text: text.replace('"seconds": 412.7', '"seconds": 1e999', 1),
    "unknown field": lambda text: text.replace('"title"', '"x": 1, "title"', 1),
    "missing field": lambda text: text.replace('"title"', '"titel"', 1),
    "value outside its interval": lambda text: text.replace('"value": 0.6363636', '"value": 9', 1),
    "nested without end": lambda text: '{"schema_version": ' + "[" * 100_000,
    "endless digits": lambda text: '{"schema_version": ' + "9" * 5000 + "}",
    "no version": lambda text: text.replace('"schema_version": "1.0",', "", 1),
    "later version": lambda text: text.replace('"1.0"', '"2.0"', 1),
    "another report's file": lambda text: text.replace("20260301-101502-a41f9c", "other", 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_refused_and_listed(
    damage: str, shelf: ReportShelf, audit_report: Report, report_home: Path
) -> None:
    shelf.save(named(audit_report, "whole"), report_home)
    path = shelf.save(audit_report, report_home) / "report.json"
    text = path.read_text()
    spoilt = DAMAGE[damage](text)
    assert spoilt != text
    path.write_text(spoilt)
    with pytest.raises(IntegrityError) as caught:
        shelf.load(audit_report.id)
    assert "report.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [row.id for row in shelf.rows()] == ["whole"]
    assert [each.id for each in shelf.damaged()] == [audit_report.id]


def test_file_that_is_no_utf8(shelf: ReportShelf, audit_report: Report, report_home: Path) -> None:
    path = shelf.save(audit_report, report_home) / "report.json"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(IntegrityError, match="is damaged"):
        shelf.load(audit_report.id)
    path.unlink()
    with pytest.raises(IntegrityError, match="No such file"):
        shelf.load(audit_report.id)


def test_published_schema_is_the_one_that_was_published() -> None:
    """A changed schema wants a new version and, with it, a new snapshot."""
    snapshot = json.loads((SNAPSHOTS / f"report_schema_{SCHEMA_VERSION}.json").read_text())
    assert report_schema() == snapshot


def test_schema_admits_reports_and_refuses_others(audit_report: Report) -> None:
    validator = jsonschema.Draft202012Validator(report_schema())
    jsonschema.Draft202012Validator.check_schema(report_schema())
    raw = json.loads(report_json(audit_report))
    validator.validate(raw)
    for spoilt in (
        {**raw, "schema_version": "2.0"},
        {**raw, "outcome": "fine"},
        {**raw, "extra": 1},
        {name: value for name, value in raw.items() if name != "claims"},
    ):
        assert not validator.is_valid(spoilt)


def test_plots_are_shown_only_as_their_digest_names_them(
    audit_report: Report, report_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = audit_report.evidence[0].artifacts[0]
    shown = images.image(artifact, report_home)
    assert shown is not None
    encoded = shown.uri.removeprefix("data:image/svg+xml;base64,")
    assert base64.b64decode(encoded) == (report_home / artifact.path).read_bytes()

    def problem(**changes: str) -> str:
        found = images.image(artifact.model_copy(update=changes), report_home)
        assert found is not None
        assert found.uri == ""
        return found.problem

    assert problem(sha256="0" * 64) == "the file is not the one that its digest names"
    assert problem(path="artifacts/none.svg") == "the file cannot be read"
    assert problem(path="a\0b") == "the file cannot be read"
    assert problem(path="../report.json") == "its path leaves the data folder"
    (tmp_path / "link.svg").symlink_to(report_home / artifact.path)
    found = images.image(artifact.model_copy(update={"path": "link.svg"}), tmp_path)
    assert found is not None
    assert found.problem == "its path leaves the data folder"
    monkeypatch.setattr(images, "MOST_BYTES", 1024)
    assert problem().startswith("it is larger than")
    weights = Artifact(name="w", path="w", media_type="application/octet-stream", sha256="")
    assert images.image(weights, report_home) is None


def test_missing_plot_is_told(audit_report: Report, tmp_path: Path) -> None:
    html = render_html(audit_report, tmp_path)
    assert "<img" not in html
    assert html.count("Plot not shown: the file cannot be read.") == 2


def test_notice_without_chat_model(audit_report: Report, report_home: Path) -> None:
    badge = "no chat model took part: fixed protocol"
    chat = audit_report.chat.model_copy(update={"kind": "none", "model": "", "endpoint": ""})
    alone = audit_report.model_copy(update={"chat": chat})
    for render in (lambda report: render_html(report, report_home), render_markdown):
        assert badge in render(alone)
        assert badge not in render(audit_report)


@pytest.mark.parametrize(
    ("outcome", "notice"),
    [
        ("limit reached", "This is a partial report: limit reached."),
        ("interrupted", "This is a partial report: interrupted."),
        ("gate failed", "A gate failed."),
    ],
)
def test_notice_of_an_unfinished_report(
    outcome: str, notice: str, audit_report: Report, report_home: Path
) -> None:
    changes = {"outcome": outcome, "outcome_reason": "the budget of 8 minutes is spent"}
    partial = audit_report.model_copy(update=changes)
    for render in (lambda report: render_html(report, report_home), render_markdown):
        assert notice in render(partial)
        assert "the budget of 8 minutes is spent" in render(partial)
        assert notice not in render(audit_report)


def test_report_without_anything_renders(audit_report: Report, report_home: Path) -> None:
    lists = {
        name: ()
        for name, field in Report.model_fields.items()
        if str(field.annotation).startswith("tuple[") and name != "questions"
    }
    empty = audit_report.model_copy(
        update={**lists, "outcome": "interrupted", "outcome_reason": "Ctrl-C"}
    )
    assert "No claim was made." in render_markdown(empty)
    assert "No verdict was reached." in render_html(empty, report_home)
