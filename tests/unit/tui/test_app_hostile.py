"""Hostile text in every field of every event and report: shown, and nothing more than shown."""

import unicodedata
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
from pydantic import TypeAdapter

from dragoman.agent.rendering.prose import literal
from dragoman.agent.reporting import Damaged
from dragoman.core.errors import UserError
from dragoman.core.events import Notice, PhaseStarted, RunEvent
from dragoman.core.report import Report
from dragoman.tui.app import DragomanApp
from dragoman.tui.widgets.answer import ClaimLink
from dragoman.tui.widgets.fold import Fold
from dragoman.tui.widgets.safe_text import cell, shown, value

HOSTILE = (
    "\x1b[31mred\x1b[2J",
    "\x1b]52;c;cHduZWQ=\x07",
    "\x1b]0;title\x1b\\",
    "\x9b2J\x9d0;c1\x9c",
    "[/",
    "[/b][@click=app.quit]x[/]",
    "[link=http://x]y[/link] $primary",
    "\u202erightleft\u2066\u200b\u2028",
    "\U000e0041\U000e0042tags\ufeff",
    "lone \ud800 surrogate \udfff",
    "a\rb\bc\x00d\x7f",
    "\t\ttabs",
    "{not.a.hole} {{",
    "漢字" * 30,
    "é\u0301\u0301\u0301" * 20,
    "x" * 500,
)
_IDS = {"id", "claim_id", "hypothesis_id", "experiment_id", "evidence_ids", "claim_ids"}
_FIXED = _IDS | {
    "control_ids", "kind", "status", "unit", "bearing", "outcome", "severity", "rung", "role",
    "sha256", "media_type", "replay", "schema_version", "started", "metric", "scope",
}  # fmt: skip


def _spoil(node: Any, hostile: Iterator[str], key: str = "", holed: bool = False) -> Any:
    """`node` with hostile text at the end of each string that is free text."""
    if isinstance(node, dict):
        filled = ("claim_ids" in node and "kind" not in node) or "hypothesis_id" in node
        return {
            name: _spoil(each, hostile, name, filled and name == "text")
            for name, each in node.items()
        }
    if isinstance(node, list):
        return [_spoil(each, hostile, key, holed) for each in node]
    if isinstance(node, str) and key not in _FIXED:
        text = next(hostile)
        return node + (literal(text) if holed else text)
    return node


def _lines(app: DragomanApp) -> list[str]:
    return [strip.text for strip in app.screen._compositor.render_strips()]


def _assert_harmless(app: DragomanApp) -> None:
    for line in _lines(app):
        for character in line:
            category = unicodedata.category(character)
            assert category not in {"Cc", "Cf", "Cs", "Zl", "Zp"}, (hex(ord(character)), line)


@pytest.mark.parametrize(("shift", "size"), [(0, (80, 24)), (7, (140, 50))])
async def test_nothing_hostile_acts_or_crashes(
    shift: int,
    size: tuple[int, int],
    events: list[RunEvent],
    report_json: dict[str, Any],
    Player: Any,
    Shelf: Any,
    Terminal: Any,
) -> None:
    hostile = cycle(HOSTILE[shift:] + HOSTILE[:shift])
    spoiled = TypeAdapter(list[RunEvent]).validate_python(
        [_spoil(event.model_dump(mode="json"), hostile) for event in events]
    )
    for text in HOSTILE:
        spoiled[-1:-1] = [Notice(text=text), PhaseStarted(phase=text, text=text)]
    spoiled_report = Report.model_validate(_spoil(report_json, hostile)).model_copy(
        update={"id": f"id{HOSTILE[shift]}"}
    )
    shelf = Shelf(
        [spoiled_report], torn=HOSTILE, unread=(Damaged(HOSTILE[shift], "".join(HOSTILE)),)
    )
    app = DragomanApp(Player(spoiled, spoiled_report), shelf, HOSTILE[shift], HOSTILE[shift - 1])
    async with app.run_test(size=size) as pilot:
        _assert_harmless(app)
        terminal = Terminal(app, pilot)
        await terminal.ask("why?")
        _assert_harmless(app)
        for fold in app.chat.query(Fold):
            fold.opened = True
        conversation = app.chat.query_one("#conversation")
        conversation.scroll_home(animate=False)
        await pilot.pause()
        while True:
            _assert_harmless(app)
            before = conversation.scroll_y
            conversation.scroll_to(y=before + size[1] - 6, animate=False, force=True)
            await pilot.pause()
            if conversation.scroll_y == before:
                break
        links = list(app.chat.query(ClaimLink))
        assert len(links) == len(spoiled_report.claims)
        for link in links[:1]:
            link.focus()
            await pilot.press("enter")
            await pilot.pause()
            _assert_harmless(app)
            assert app.is_running
            await pilot.press("escape")
        await pilot.press("f2")
        await app.workers.wait_for_complete()
        await pilot.pause()
        _assert_harmless(app)
        await pilot.press("down", "enter")
        await app.workers.wait_for_complete()
        await pilot.pause()
        _assert_harmless(app)
        await pilot.press("up", "enter")
        await app.workers.wait_for_complete()
        for _ in range(2):
            await pilot.pause()
            _assert_harmless(app)
            await pilot.press("down")
        assert app.is_running


async def test_hostile_error_messages(Player: Any, Shelf: Any, Terminal: Any) -> None:
    for error in (UserError("".join(HOSTILE)), ValueError("".join(HOSTILE))):
        app = DragomanApp(Player([], error), Shelf(unreadable=UserError("".join(HOSTILE))), "", "")
        async with app.run_test(size=(100, 60)) as pilot:
            await Terminal(app, pilot).ask("why?")
            _assert_harmless(app)
            await pilot.press("f2")
            await app.workers.wait_for_complete()
            await pilot.pause()
            _assert_harmless(app)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_choke_point_escapes(text: str) -> None:
    for made in (shown(text).plain, value(text).plain, value([text]).plain, cell(text).plain):
        hidden = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
        assert not [one for one in made if one != "\n" and unicodedata.category(one) in hidden]
    assert not shown(text).spans
    assert "\n" not in cell(text + "\n" + text).plain


def test_long_text_says_how_much_is_missing() -> None:
    assert shown("x" * 50, limit=20).plain == "x" * 20 + " … (30 more characters)"
