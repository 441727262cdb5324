"""A question in its thread: order, merging, waking, ends."""

import threading
from typing import Any

from dragoman.core.errors import UserError
from dragoman.core.events import ChatText, Notice, ToolProgress
from dragoman.core.report import Report
from dragoman.tui.running import Arrival, Ended, LazyRunner, Running


def _progress(done: int, experiment_id: str = "e") -> ToolProgress:
    return ToolProgress(experiment_id=experiment_id, done=done, total=9, text="")


def test_events_come_out_in_order_and_pieces_of_one_thing_as_one(report: Report) -> None:
    def runner(question: str, *, on_event: Any, cancelled: Any) -> Report:
        for event in (
            Notice(text=question),
            ChatText(text="a"),
            ChatText(text="b"),
            _progress(1),
            _progress(2),
            _progress(1, "f"),
            ChatText(text="c"),
        ):
            on_event(event)
        return report

    woken: list[int] = []
    running = Running(runner, "why?", lambda: woken.append(1))
    running.start()
    running.join(10)
    assert running.drain() == [
        Notice(text="why?"),
        ChatText(text="ab"),
        _progress(2),
        _progress(1, "f"),
        ChatText(text="c"),
        Ended(report),
    ]
    assert running.drain() == []
    assert woken == [1]


def test_each_drain_is_followed_by_a_waking(report: Report) -> None:
    drained: list[Arrival] = []
    woken = threading.Semaphore(0)
    more = threading.Event()

    def runner(question: str, *, on_event: Any, cancelled: Any) -> Report:
        on_event(Notice(text="1"))
        assert more.wait(10)
        on_event(Notice(text="2"))
        return report

    running = Running(runner, "", woken.release)
    running.start()
    assert woken.acquire(timeout=10)
    drained += running.drain()
    more.set()
    running.join(10)
    assert woken.acquire(timeout=10)
    drained += running.drain()
    assert [type(each) for each in drained] == [Notice, Notice, Ended]


def test_whatever_a_runner_raises_comes_out() -> None:
    for error in (UserError("no"), ValueError("bug"), SystemExit(3)):

        def runner(
            question: str, *, on_event: Any, cancelled: Any, error: BaseException = error
        ) -> Report:
            raise error

        running = Running(runner, "", lambda: None)
        running.start()
        running.join(10)
        assert running.drain() == [Ended(error)]


def test_a_closed_loop_does_not_trouble_the_thread(report: Report) -> None:
    def wake() -> None:
        raise RuntimeError("Event loop is closed")

    running = Running(lambda question, **_: report, "", wake)
    running.start()
    running.join(10)
    assert not running.alive
    assert running.drain() == [Ended(report)]


def test_the_lazy_runner_builds_once_and_tries_again_after_a_failure(report: Report) -> None:
    built: list[str] = []

    def build(on_event: Any) -> Any:
        built.append("try")
        if len(built) == 1:
            raise UserError("weights are missing: dragoman weights pull smollm2")
        return lambda question, **_: report

    lazy = LazyRunner(build)
    assert built == []
    outcomes: list[Arrival] = []
    for _ in range(3):
        running = Running(lazy, "", lambda: None)
        running.start()
        running.join(10)
        outcomes += running.drain()
    assert isinstance(outcomes[0], Ended)
    assert isinstance(outcomes[0].outcome, UserError)
    assert outcomes[1:] == [Ended(report), Ended(report)]
    assert built == ["try", "try"]
