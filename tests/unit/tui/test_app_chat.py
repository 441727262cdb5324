"""The chat screen: events become cards, text and an answer; keys do what the footer says."""

import asyncio
import threading
from typing import Any

import pytest
from textual.widgets import OptionList

from dragoman.core.errors import ChatError
from dragoman.core.events import (
    AuditStarted,
    ChatFinished,
    ChatText,
    RunEvent,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from dragoman.core.report import Report
from dragoman.tui.app import DragomanApp
from dragoman.tui.widgets.answer import Answer, ClaimLink, SentenceText
from dragoman.tui.widgets.chat_stream import ChatStream
from dragoman.tui.widgets.conversation import Conversation
from dragoman.tui.widgets.evidence import EvidencePane
from dragoman.tui.widgets.question_input import QuestionInput
from dragoman.tui.widgets.tool_card import ToolCard
from dragoman.tui.widgets.welcome import EXAMPLES, Welcome

WIDE = (140, 50)


def _app(runner: Any, shelf: Any) -> DragomanApp:
    return DragomanApp(runner, shelf, "smollm2", "none")


def _first(events: list[RunEvent], kind: type) -> int:
    return next(place for place, event in enumerate(events) if isinstance(event, kind))


async def test_a_question_becomes_an_answer(app: DragomanApp, Terminal: Any) -> None:
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        assert "Ask how smollm2 works" in terminal.text()
        await terminal.ask("why?")
        text = terminal.text()
        assert "Answer  ● done" in text
        verdict = str(app.chat.query(SentenceText).first().render())
        assert "0.64 [0.43, 0.80], n = 22 (2 failed), against 0.05 [0.01, 0.22]" in verdict
        assert "◑ supported by intervention" in text
        assert len(app.chat.query(ClaimLink)) == 5
        assert not app.chat.query_one(Welcome).display


async def test_card_lives_from_start_to_result(
    events: list[RunEvent], report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    started = next(
        place
        for place, event in enumerate(events)
        if isinstance(event, ToolStarted) and event.arguments.get("relation") == "country_capital"
    )
    progress = _first(events[started:], ToolProgress) + started
    finished = _first(events[started:], ToolFinished) + started
    steps = threading.Semaphore(0)
    player = Player(events, report, steps)

    async def play(pilot: Any, upto: int) -> None:
        await pilot.app.workers.wait_for_complete()
        steps.release(upto)
        while steps._value:  # the thread takes them one by one
            await asyncio.sleep(0)
        for _ in range(3):
            await pilot.pause()

    app = _app(player, Shelf())
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?", finish=False)
        await play(pilot, progress + 1)
        card = app.chat.query(ToolCard).last()
        assert card.has_class("-running")
        text = terminal.text()
        assert "approximate_relation  running" in text
        assert "relation  country_capital" in text
        event = events[progress]
        assert isinstance(event, ToolProgress)
        assert f"{event.done} of {event.total}  {event.text}" in text
        await play(pilot, finished - progress)
        assert card.has_class("-done")
        text = terminal.text()
        assert "✓ done  1 min 06 s · 2 measurements" in text
        assert "against" not in text or "shuffled relation" in text
        assert "[0.43, 0.80]" in text
        assert f"{event.done} of {event.total}" not in text
        steps.release(len(events))
        await terminal.finish()
        titles = [card.title.plain for card in app.chat.query(ToolCard)]
        assert "approximate_relation  ✕ failed" in titles[0]
        assert any("replayed from the ledger" in title for title in titles)
        assert not any(card.opened for card in app.chat.query(ToolCard))


async def test_streamed_text_is_seen_while_it_grows_and_folds_away(
    events: list[RunEvent], report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    last = _first(events, ChatFinished)
    whole = "".join(event.text for event in events[:last] if isinstance(event, ChatText))
    steps = threading.Semaphore(last)
    app = _app(Player(events, report, steps), Shelf())
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?", finish=False)
        while steps._value:
            await asyncio.sleep(0)
        for _ in range(3):
            await pilot.pause()
        assert "chat model is writing" in terminal.text()
        assert whole.rstrip().splitlines()[-1].strip() in terminal.text()
        steps.release(len(events))
        await terminal.finish()
        stream = app.chat.query(ChatStream).first()
        assert stream.title.plain == "chat model  plan · 1,184 + 96 tokens"
        assert not stream.opened
        stream.query_one("FoldHeader").focus()
        await pilot.press("enter")
        assert stream.opened


async def test_escape_stops_and_says_what_is_kept(
    events: list[RunEvent], report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    finished = _first(events, ToolFinished)
    steps = threading.Semaphore(finished + 2)
    app = _app(Player(events, report, steps), Shelf())
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?", finish=False)
        while steps._value:
            await asyncio.sleep(0)
        await pilot.pause()
        running = app.chat.running
        assert running is not None
        await pilot.press("escape")
        assert running.cancelled
        await terminal.finish()
        text = terminal.text()
        started = events[0]
        assert isinstance(started, AuditStarted)
        assert "◔ Stopped" in text
        assert "kept: 1 experiment, no claims" in text
        assert f"dragoman audit --resume {started.audit_id}" in text
        assert app.chat.query(ToolCard).last().has_class("-stopped")
        assert not app.chat.query(Answer)


async def test_stopping_is_announced_while_the_step_goes_on(
    events: list[RunEvent], report: Report, Shelf: Any, Terminal: Any
) -> None:
    go_on = threading.Event()

    def stubborn(question: str, *, on_event: Any, cancelled: Any) -> Report:
        go_on.wait(20)
        assert cancelled()
        return report.model_copy(update={"outcome": "interrupted", "outcome_reason": "stopped"})

    app = _app(stubborn, Shelf())
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?", finish=False)
        await pilot.press("escape")
        await pilot.pause()
        assert "stopping…" in terminal.text()
        go_on.set()
        await terminal.finish()
        assert app.chat.query_one(Answer).outer_size.height > 0
        assert app.chat.query(ClaimLink)


async def test_one_question_at_a_time(
    events: list[RunEvent], report: Report, Player: Any, Shelf: Any, Terminal: Any
) -> None:
    steps = threading.Semaphore(0)
    player = Player(events, report, steps)
    app = _app(player, Shelf())
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("one", finish=False)
        await terminal.ask("two", finish=False)
        assert player.asked == ["one"]
        assert app.chat.query_one(QuestionInput).value == "two"
        steps.release(len(events))
        await terminal.finish()
        await pilot.press("enter")
        steps.release(len(events))
        await terminal.finish()
        assert player.asked == ["one", "two"]
        assert len(app.chat.query(Answer)) == 2


async def test_up_recalls_earlier_questions(app: DragomanApp, Terminal: Any) -> None:
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("one")
        await terminal.ask("two")
        field = app.chat.query_one(QuestionInput)
        await pilot.press("n", "e", "w", "up")
        assert field.value == "two"
        await pilot.press("up", "up", "up")
        assert field.value == "one"
        await pilot.press("down", "down")
        assert field.value == "new"


async def test_examples_by_keyboard_and_mouse(app: DragomanApp, Terminal: Any) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.settle()
        field = app.chat.query_one(QuestionInput)
        app.chat.query_one("#examples").focus()
        await pilot.press("down", "enter")
        await terminal.settle()
        assert field.value == EXAMPLES[1]
        assert field.has_focus
        examples = app.chat.query_one("#examples", OptionList)
        for _ in range(5):  # on a busy machine the page may still move by a line under the mouse
            assert await pilot.click(examples, offset=(6, examples.size.height - 1))
            await terminal.settle()
            if field.value == EXAMPLES[2]:
                break
        assert field.value == EXAMPLES[2]


@pytest.mark.parametrize("size", [(80, 24), WIDE])
async def test_claims_open_their_evidence(
    app: DragomanApp, report: Report, Terminal: Any, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?")
        app.chat.query(ClaimLink).first().focus()
        await pilot.press("enter")
        await terminal.settle()
        pane = app.chat.query_one(EvidencePane)
        assert pane.display
        assert pane.claim is not None
        assert pane.claim.claim.id == "c1"
        text = "\n".join(
            str(line.render()) for line in pane.query("Static") if not line.has_class("fold")
        )
        for expected in (
            "relation country_capital, layer 11",
            "random-weight twin",
            "predicts  causality above 0.2",
            "relation  country_capital",
            "dragoman tool run approximate_relation --subject smollm2",
            "layer_sweep.svg",
            "may flatter faithfulness",
            "the layer was chosen on other samples",
        ):
            assert expected in text, expected
        await pilot.press("escape")
        assert not pane.display
        assert app.chat.query_one(QuestionInput).has_focus


async def test_marks_in_a_sentence_open_claims_by_mouse(app: DragomanApp, Terminal: Any) -> None:
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?")
        sentence = app.chat.query(SentenceText)[1]
        line = terminal.text().splitlines()[sentence.region.y]
        assert await pilot.click(offset=(line.index("[C5]") + 1, sentence.region.y))
        await terminal.settle()
        pane = app.chat.query_one(EvidencePane)
        assert pane.display
        assert pane.claim is not None
        assert pane.claim.label == "C5"


async def test_a_deliberate_error_is_one_line(
    events: list[RunEvent], Player: Any, Shelf: Any, Terminal: Any
) -> None:
    error = ChatError("127.0.0.1:9 refused the connection: start the server or use --chat none")
    app = _app(Player(events[:3], error), Shelf())
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?")
        assert "✕ No answer  127.0.0.1:9 refused the connection" in terminal.text()
        assert "Traceback" not in terminal.text()
        await terminal.ask("again")
        assert terminal.text().count("No answer") == 2


async def test_a_bug_keeps_its_traceback_but_no_values(
    Player: Any, Shelf: Any, Terminal: Any
) -> None:
    def broken(question: str, *, on_event: Any, cancelled: Any) -> Report:
        secret = "sk-canary" + "-in-a-local"
        raise KeyError(len(secret))

    app = _app(broken, Shelf())
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?")
        text = terminal.text()
        assert "This is a bug in Dragoman  KeyError: 20" in text
        assert "raise KeyError(len(secret))" in text
        assert "sk-canary-in-a-local" not in text


async def test_follows_the_end_and_shows_a_long_answer_from_its_top(
    app: DragomanApp, Terminal: Any
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?")
        await pilot.pause()
        conversation = app.chat.query_one(Conversation)
        assert 0 < conversation.scroll_y < conversation.max_scroll_y
        assert "Answer  ● done" in terminal.text()
        before = conversation.scroll_y
        await pilot.press("pageup")
        await pilot.wait_for_animation()
        assert conversation.scroll_y < before


async def test_resizing_changes_the_columns_and_loses_nothing(
    app: DragomanApp, Terminal: Any
) -> None:
    async with app.run_test(size=WIDE) as pilot:
        terminal = Terminal(app, pilot)
        await terminal.ask("why?")
        app.chat.query(ClaimLink).first().focus()
        await pilot.press("enter")
        left, pane = app.chat.query_one("#left"), app.chat.query_one(EvidencePane)
        await terminal.settle()
        assert left.region.width > 0
        assert pane.region.x > 0
        for size in ((80, 24), (30, 10), (1, 1), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        assert pane.region.width > 70
        assert not left.display or left.region.width == 0
        await pilot.press("escape")
        await pilot.pause()
        assert left.region.width == 80
        assert "Ask about the subject" in terminal.text()


async def test_pasted_text_is_one_visible_line(app: DragomanApp) -> None:
    from textual import events as textual_events

    async with app.run_test() as pilot:
        field = app.chat.query_one(QuestionInput)
        field.post_message(textual_events.Paste("a\nb\x1b]52;c;eA==\x07\u202ec"))
        await pilot.pause()
        assert field.value == "a b\\x1b]52;c;eA==\\x07\\u202ec"


async def test_theme_turns(app: DragomanApp) -> None:
    async with app.run_test() as pilot:
        dark = app.theme
        await pilot.press("ctrl+t")
        assert not app.current_theme.dark
        await pilot.press("ctrl+t")
        assert app.theme == dark
