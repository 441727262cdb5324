"""`dragoman report` on a shelf with one recorded report and a damaged one."""

import json
from pathlib import Path

import pytest

from dragoman.agent.reporting import ReportShelf
from dragoman.core.report import Report
from dragoman.core.settings import load_settings

from .conftest import Call, Said

COMMAND = ("report",)

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def report() -> Report:
    report = Report.model_validate_json((FIXTURES / "report.json").read_text("utf-8"))
    ReportShelf(load_settings().reports_folder).save(report, FIXTURES / "report_home")
    return report


def test_a_row_has_what_scripts_rely_on(call: Call, report: Report) -> None:
    (row,) = json.loads(call("list", "--json").out)
    assert row["id"] == report.id
    assert row["question"] == "; ".join(report.questions)
    assert row["subject"] == report.subject.name
    assert row["finished"] == report.finished


def test_list_is_a_table(call: Call, report: Report) -> None:
    header, row = call("list").out.splitlines()
    assert header.split()[0] == "ID"
    assert row.startswith(report.id)


def test_an_empty_list_is_empty_json(call: Call) -> None:
    assert call("list", "--json") == Said(0, "[]\n", "")


def test_a_damaged_report_is_left_out_and_told(call: Call, report: Report) -> None:
    other = load_settings().reports_folder / "other"
    other.mkdir()
    (other / "report.json").write_text("{")
    said = call("list", "--json")
    assert [row["id"] for row in json.loads(said.out)] == [report.id]
    assert said.code == 0
    assert said.err.startswith("left out: ")
    assert call("show", "other").code == 2


def test_show_is_the_report_as_text_or_json(call: Call, report: Report) -> None:
    assert report.title in call("show", report.id).out
    assert Report.model_validate_json(call("show", report.id, "--json").out) == report


@pytest.mark.parametrize("kind", ["md", "html", "json"])
def test_export_is_the_file_to_the_byte(
    call: Call, report: Report, tmp_path: Path, kind: str
) -> None:
    on_shelf = (load_settings().reports_folder / report.id / f"report.{kind}").read_text("utf-8")
    assert call("export", report.id, "--format", kind).out == on_shelf
    target = tmp_path / "deep" / f"my.{kind}"
    said = call("export", report.id, "--format", kind, "--out", str(target))
    assert said == Said(0, f"{target}\n", "")
    assert target.read_text("utf-8") == on_shelf


def test_export_to_nowhere_is_one_line(call: Call, report: Report, tmp_path: Path) -> None:
    said = call("export", report.id, "--format", "md", "--out", str(tmp_path))
    assert said == Said(2, "", f"error: --out {tmp_path}: Is a directory\n")
    assert list(tmp_path.parent.glob(f".{tmp_path.name}.*")) == []


def test_the_beginning_of_an_id_is_enough(call: Call, report: Report) -> None:
    assert call("show", report.id[:10], "--json").code == 0
    said = call("show", "nope")
    assert said.code == 2
    assert report.id in said.err
