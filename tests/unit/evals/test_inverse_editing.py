"""The eval of edits through the inverse: rows that survive a stop, and the page."""

from pathlib import Path

import pytest

from dragoman.core.records import Experiment, JsonObject, Measurement, ToolResult
from dragoman.evals import inverse_editing
from dragoman.evals.inverse_editing_table import METRICS, balance, render
from dragoman.evals.rows import append, read_rows
from dragoman.evals.tool_rows import ToolRow
from dragoman.tools.circuits.edit_tool import REMEDI, SWAPPED, edit_through_relation
from dragoman.tools.registry import Effort, Tool
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.language import LanguageSubject


def _measured(metric: str, value: float, scope: str = "") -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        unit="fraction",
        baseline=0.0,
        control="no edit",
        ci95=(value, value),
        n=10,
        scope=scope,
    )


def _row(relation: str, inverse: float, remedi: float) -> ToolRow:
    experiment = Experiment(
        tool="edit_through_relation",
        arguments={"relation": relation},
        subject_digest="d",
        seed=0,
        code="e",
    )
    return ToolRow(
        relation=relation,
        content="c",
        subject_digest="d",
        effort="quick",
        seed=0,
        seconds=60.0,
        result=ToolResult(
            experiment_id=experiment.id,
            experiment=experiment,
            status="ok",
            summary="edited",
            measurements=tuple(_measured(metric, inverse) for metric in METRICS),
            controls=tuple(_measured(metric, remedi, REMEDI) for metric in METRICS),
            output={"layer": 9, "rank": 64},
        ),
    )


LINEAR = _row("linear", 1.0, 0.5)
OTHER = _row("other", 0.5, 0.8)


def _page(rows):
    return render(
        [(name, row.result) for name, row in rows.items()],
        subject="planted",
        command="python -m dragoman.evals.inverse_editing",
        seconds=60.0,
        n_codes=1,
    )


def test_both_editors_stand_on_the_page_with_their_means():
    assert balance(LINEAR.result, "") == 1.0
    assert balance(LINEAR.result, REMEDI) == pytest.approx(0.5)
    assert balance(LINEAR.result, SWAPPED) is None
    page = _page({"linear": LINEAR, "other": OTHER})
    assert "| `linear` | 10 | 9, 64 | 1.00 [1.00, 1.00] | 0.50 [0.50, 0.50] |" in page
    assert "| inverse of the map | 0.75 | 0.75 | 0.75 | 0.75 |" in page
    assert "| REMEDI | 0.65 | 0.65 | 0.65 | 0.65 |" in page
    assert (
        "ahead of REMEDI in balance on 1 of 2 relations, equal on 0; "
        "balance less REMEDI's: +0.10 [-0.30, +0.50]." in page
    )


def test_balance_is_nothing_where_one_of_the_three_is_nothing():
    spared = LINEAR.result.model_copy(
        update={"measurements": (*LINEAR.result.measurements[:2], _measured(METRICS[2], 0.0))}
    )
    assert balance(spared, "") == 0.0


def test_a_relation_that_cannot_be_edited_says_why():
    linear = LINEAR
    refused = linear.result.model_copy(
        update={"status": "error", "error": "too few known facts", "measurements": ()}
    )
    page = _page({"linear": linear.model_copy(update={"result": refused})})
    assert "No figure:" in page
    assert "- `linear`: too few known facts" in page
    assert "Means over relations" not in page


def test_rows_survive_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    line = LINEAR.model_dump_json()
    append(path, LINEAR)
    with path.open("a", encoding="utf-8") as opened:
        opened.write(line[: len(line) // 2])
    assert read_rows(path, ToolRow) == [LINEAR]
    other = LINEAR.model_copy(update={"seed": 1})
    append(path, other)
    assert read_rows(path, ToolRow) == [LINEAR, other]
    path.write_text(f"nothing\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1 is no row"):
        read_rows(path, ToolRow)
    assert ToolRow.model_validate_json(line).key == LINEAR.key


def test_each_relation_that_is_missing_is_run_once_with_remedi_beside_it(
    tiny_subject: LanguageSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run_tool(
        tool: Tool,
        subject: LanguageSubject,
        name: str,
        effort: Effort,
        seed: int,
        arguments: JsonObject,
    ) -> ToolRow:
        assert tool is edit_through_relation
        assert arguments == {"with_remedi": True}
        ran.append(f"{name} {seed}")
        known = {
            "content": load_relation(name).content_id(),
            "subject_digest": subject.identity.digest,
            "effort": effort,
            "seed": seed,
        }
        return _row(name, 1.0, 0.5).model_copy(update=known)

    monkeypatch.setattr(inverse_editing, "load_subject", lambda name, settings: tiny_subject)
    monkeypatch.setattr(inverse_editing, "run_tool", run_tool)
    rows, out = tmp_path / "rows.jsonl", tmp_path / "page.md"
    arguments = ["noun_plural", "adj_antonym", "--rows", str(rows), "--out", str(out)]
    assert inverse_editing.main([*arguments, "--table-only"]) == 1
    assert not out.exists()
    assert inverse_editing.main(["adj_antonym", *arguments[2:]]) == 0
    assert ran == ["adj_antonym 0"]
    assert inverse_editing.main(arguments) == 0
    assert ran[1:] == ["noun_plural 0"]
    page = out.read_text()
    assert page.index("`noun_plural`") < page.index("`adj_antonym`")
    assert "inverse_editing noun_plural adj_antonym --seed 0 --effort quick" in page
    # Nothing is run twice, and another seed is other work.
    assert inverse_editing.main(arguments) == 0
    assert len(ran) == 2
    assert inverse_editing.main(["adj_antonym", *arguments[2:], "--seed", "1"]) == 0
    assert ran[2:] == ["adj_antonym 1"]
    assert [row.key[-1] for row in read_rows(rows, ToolRow)] == [0, 0, 1]
