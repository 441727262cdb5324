"""The shelf and one report: what is shown, where keys lead, what trouble looks like."""

from pathlib import Path
from typing import Any

from textual.widgets import DataTable, OptionList

from dragoman.agent.reporting import Damaged, ReportShelf, report_json
from dragoman.core.errors import UserError
from dragoman.core.report import Report
from dragoman.tui.app import DragomanApp
from dragoman.tui.screens.chat import ChatScreen
from dragoman.tui.screens.report import ReportScreen
from dragoman.tui.screens.reports import ReportsScreen
from dragoman.tui.widgets.evidence import EvidencePane


async def _read(pilot: Any) -> None:
    await pilot.app.workers.wait_for_complete()
    for _ in range(3):
        await pilot.pause()


def _app(Player: Any, shelf: Any) -> DragomanApp:
    return DragomanApp(Player([], UserError("not asked")), shelf, "smollm2", "none")


async def test_way_to_a_claim_and_back(app: DragomanApp, report: Report, Terminal: Any) -> None:
    async with app.run_test(size=(140, 50)) as pilot:
        await pilot.press("f2")
        await _read(pilot)
        terminal = Terminal(app, pilot)
        text = terminal.text()
        for expected in ("smollm2", "● done", "2026-03-01", report.id):
            assert expected in text
        await pilot.press("enter")
        await _read(pilot)
        assert isinstance(app.screen, ReportScreen)
        text = terminal.text()
        assert "Does smollm2 know capitals, and can that be edited?" in text
        assert "One affine map read at layer 11" in text
        pane = app.screen.query_one(EvidencePane)
        assert pane.claim is not None
        assert pane.claim.label == "C1"
        await pilot.press("down", "down")
        await _read(pilot)
        assert pane.claim.label == "C3"
        assert "correlated" in str(pane.query("Static").first().render())
        await pilot.press("enter")
        assert pane.has_focus
        await pilot.press("escape")
        assert isinstance(app.screen, ReportsScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, ChatScreen)


async def test_ctrl_r_opens_the_shelf_once(app: DragomanApp) -> None:
    async with app.run_test() as pilot:
        await pilot.press("ctrl+r")
        await _read(pilot)
        await pilot.press("f2", "ctrl+r")
        assert [type(screen) for screen in app.screen_stack] == [ChatScreen, ReportsScreen]


async def test_numbers_in_the_verdict_lead_to_their_claim(app: DragomanApp, Terminal: Any) -> None:
    async with app.run_test(size=(140, 50)) as pilot:
        await pilot.press("f2")
        await _read(pilot)
        await pilot.press("enter")
        await _read(pilot)
        lines = Terminal(app, pilot).text().splitlines()
        row = next(place for place, line in enumerate(lines) if "[C5]" in line)
        assert await pilot.click(offset=(lines[row].index("[C5]") + 1, row))
        await _read(pilot)
        assert app.screen.query_one("#claims", OptionList).highlighted == 4


async def test_empty_shelf(Player: Any, Shelf: Any, Terminal: Any) -> None:
    app = _app(Player, Shelf())
    async with app.run_test() as pilot:
        await pilot.press("f2")
        await _read(pilot)
        assert "No reports yet: ask a question in the chat" in Terminal(app, pilot).text()
        assert not app.screen.query_one(DataTable).display
        await pilot.press("enter", "escape")
        assert isinstance(app.screen, ChatScreen)


async def test_damaged_report_is_one_line(
    report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    app = _app(Player, Shelf([report], torn=("20260101-bad",)))
    async with app.run_test() as pilot:
        await pilot.press("f2")
        await _read(pilot)
        await pilot.press("down", "enter")
        await _read(pilot)
        assert isinstance(app.screen, ReportsScreen)
        assert "report 20260101-bad is damaged; remove its folder" in Terminal(app, pilot).text()
        await pilot.press("up", "enter")
        await _read(pilot)
        assert isinstance(app.screen, ReportScreen)


async def test_damaged_reports_are_named(
    report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    unread = (Damaged("a1", "line 3: not JSON; remove its folder"), Damaged("a2", "gone"))
    app = _app(Player, Shelf([report], unread=unread))
    async with app.run_test() as pilot:
        await pilot.press("f2")
        await _read(pilot)
        assert "report a1 cannot be read (and 1 more): line 3: not JSON" in (
            Terminal(app, pilot).text()
        )
        assert app.screen.query_one(DataTable).row_count == 1


async def test_the_real_shelf(report: Report, tmp_path: Path, Player: Any, Terminal: Any) -> None:
    shelf = ReportShelf(tmp_path)
    app = _app(Player, shelf)
    folder = tmp_path / report.id
    folder.mkdir()
    (folder / "report.json").write_text(report_json(report))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "report.json").write_text("{")
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("f2")
        await _read(pilot)
        assert "report torn cannot be read" in Terminal(app, pilot).text()
        await pilot.press("enter")
        await _read(pilot)
        assert isinstance(app.screen, ReportScreen)


async def test_unresolvable_report_is_one_line(
    report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    broken = report.model_copy(update={"claims": report.claims[1:]})
    app = _app(Player, Shelf([broken]))
    async with app.run_test(size=(140, 24)) as pilot:
        await pilot.press("f2")
        await _read(pilot)
        await pilot.press("enter")
        await _read(pilot)
        assert isinstance(app.screen, ReportsScreen)
        assert "hole {c1.faithfulness} is of a claim that is not cited" in (
            Terminal(app, pilot).text()
        )


async def test_unreadable_shelf_is_one_line_and_can_be_read_again(
    report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    shelf = Shelf([report], unreadable=UserError("reports: permission denied; change its owner"))
    app = _app(Player, shelf)
    async with app.run_test() as pilot:
        await pilot.press("f2")
        await _read(pilot)
        terminal = Terminal(app, pilot)
        assert "permission denied; change its owner" in terminal.text()
        shelf.unreadable = None
        await pilot.press("r")
        await _read(pilot)
        assert "permission denied" not in terminal.text()
        assert app.screen.query_one(DataTable).row_count == 1


async def test_report_without_claims(
    report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    bare = report.model_copy(
        update={"claims": (), "verdict": (), "narrative": (), "outcome": "interrupted"}
    )
    app = _app(Player, Shelf([bare]))
    async with app.run_test() as pilot:
        await pilot.press("f2")
        await _read(pilot)
        await pilot.press("enter")
        await _read(pilot)
        assert "This report makes no claims." in Terminal(app, pilot).text()
        assert "◔ interrupted" in Terminal(app, pilot).text()


async def test_a_run_goes_on_behind_the_shelf(app: DragomanApp, Terminal: Any) -> None:
    async with app.run_test(size=(140, 50)) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?", finish=False)
        await pilot.press("f2")
        await terminal.finish()
        await _read(pilot)
        await pilot.press("escape")
        await pilot.pause()
        assert "Answer  ● done" in terminal.text()
