"""The program in a process and a terminal of its own: what it imports, prints, and how it ends."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_HEAD = """
import threading, sys
from dragoman.tui.app import DragomanApp, run_app
from dragoman.core.errors import UserError

class Shelf:
    def rows(self): return []
    def damaged(self): return []
    def load(self, report_id): raise UserError("none")

def deaf(question, *, on_event, cancelled):
    "A runner inside native code: it notices nothing."
    threading.Event().wait()
"""
_RUN = """
print("code", run_app({build}, Shelf(), subject_label="smollm2", chat_label="none").value)
"""


class Session:
    """A Python program on a pseudo-terminal of 80x24."""

    def __init__(self, source: str) -> None:
        self.seen = b""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(
                TERM="xterm-256color", COLUMNS="80", LINES="24", COLORTERM="truecolor"
            )
            os.execv(sys.executable, [sys.executable, "-c", source])

    def write(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def read_until(self, wanted: bytes, seconds: float = 20) -> None:
        """Collect output until it holds `wanted`."""
        end = time.monotonic() + seconds
        while wanted not in self.seen:
            assert time.monotonic() < end, (wanted, self.seen[-2000:])
            if not self._read(0.2):
                raise AssertionError((wanted, self.seen[-2000:]))

    def end(self, seconds: float = 30) -> tuple[int, float]:
        """Exit status and how long it took from here; everything printed is collected."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                took = time.monotonic() - began
                while self._read(0.05):
                    pass
                os.close(self._terminal)
                return status, took
            self._read(0.02)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running after {seconds} s")

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if not ready:
            return seconds > 0.1
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += piece
        return bool(piece)


def test_first_frame_imports_no_torch() -> None:
    source = (
        _HEAD
        + """
import asyncio
from dragoman.tui.running import LazyRunner

def build(on_event):
    raise AssertionError("built before the first question")

async def main():
    app = DragomanApp(LazyRunner(build), Shelf(), "smollm2", "none")
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("f2")
        await pilot.pause()
    heavy = {"torch", "transformers", "openai", "langgraph", "chromadb", "matplotlib"}
    print(sorted(heavy & set(sys.modules)))

asyncio.run(main())
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("how", ["ctrl+q", "ctrl+c", "SIGTERM"])
def test_quit_does_not_wait_for_a_deaf_run(how: str) -> None:
    session = Session(_HEAD + _RUN.format(build="lambda _: deaf"))
    session.read_until(b"Try one of these")
    session.write(b"why?\r")
    session.read_until(b"running")
    if how == "SIGTERM":
        os.kill(session.pid, signal.SIGTERM)
    else:
        session.write({"ctrl+q": b"\x11", "ctrl+c": b"\x03"}[how])
    status, took = session.end()
    assert os.waitstatus_to_exitcode(status) == 0
    assert took < 5  # the aim is 2 s at p95 on an idle machine; tests share theirs
    assert b"\x1b[?1049l" in session.seen  # the terminal is put back
    assert b"Traceback" not in session.seen


def test_quit_lets_a_willing_run_end_and_closes(tmp_path: Path) -> None:
    note = tmp_path / "note"
    source = (
        _HEAD
        + f"""
import time
def willing(question, *, on_event, cancelled):
    while not cancelled():
        time.sleep(0.01)
    open({str(note)!r}, "a").write("ended ")
    raise UserError("stopped")
"""
        + _RUN.format(build="lambda _: willing").replace(
            "chat_label=", f"close=lambda: open({str(note)!r}, 'a').write('closed'), chat_label="
        )
    )
    session = Session(source)
    session.read_until(b"Try one of these")
    session.write(b"why?\r")
    session.read_until(b"running")
    session.write(b"\x11")
    status, _ = session.end()
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"code 0" in session.seen
    assert note.read_text() == "ended closed"


def test_quit_in_the_middle_of_a_flood() -> None:
    source = (
        _HEAD
        + """
from dragoman.core.events import ChatText, ToolProgress, ToolStarted
def chatty(question, *, on_event, cancelled):
    on_event(ToolStarted(experiment_id="e", tool="flood", arguments={}))
    place = 0
    while not cancelled():
        place += 1
        for _ in range(50):
            on_event(ToolProgress(experiment_id="e", done=place, total=0, text="one more"))
        for _ in range(50):
            on_event(ChatText(text="word\\n"))
    raise UserError("stopped")
"""
        + _RUN.format(build="lambda _: chatty")
    )
    session = Session(source)
    session.read_until(b"Try one of these")
    session.write(b"why?\r")
    session.read_until(b"one more")
    session.write(b"\x11")
    session.end()
    assert b"code 0" in session.seen
    assert b"Traceback" not in session.seen


def test_a_crash_prints_its_traceback_without_values() -> None:
    source = (
        _HEAD
        + """
class Broken(DragomanApp):
    def action_turn_theme(self):
        key = "sk-canary" + "-local"
        raise RuntimeError("boom [/] \\x1b]52;c;AAAA\\x07" + str(len(key)))

import dragoman.tui.app
dragoman.tui.app.DragomanApp = Broken
"""
        + _RUN.format(build="lambda _: deaf")
    )
    session = Session(source)
    session.read_until(b"Try one of these")
    session.write(b"\x14")
    session.end()
    assert b"code 1" in session.seen
    assert b"Traceback" in session.seen
    assert b"boom [/]" in session.seen
    assert b"sk-canary-local" not in session.seen
    assert b"\x1b]52" not in session.seen


def test_hostile_text_reaches_no_terminal_raw() -> None:
    source = (
        _HEAD
        + """
from dragoman.core.events import ChatText, Notice, PhaseStarted, ToolStarted
EVIL = "N0NCE\\x1b]52;c;N0NCE\\x07\\x1b]0;N0NCE\\x1b\\\\\\x9b2J\\x9dN0NCE"
EVIL += "\\x1b[2JN0NCE[/][@click=app.quit]"
def evil(question, *, on_event, cancelled):
    on_event(PhaseStarted(phase=EVIL, text=EVIL))
    on_event(ChatText(text=EVIL))
    on_event(Notice(text=EVIL))
    on_event(ToolStarted(experiment_id=EVIL, tool=EVIL, arguments={EVIL: EVIL}))
    raise UserError("the end " + EVIL)
"""
        + _RUN.format(build="lambda _: evil").replace('"smollm2"', "EVIL")
    )
    session = Session(source)
    session.read_until(b"Try one of these")
    session.write(b"why?\r")
    session.read_until(b"No answer")
    session.write(b"\x11")
    status, _ = session.end()
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"N0NCE" in session.seen
    for raw in (b"\x1b]52", b"\x1b]0;N", b"\x1b[2JN", b"\xc2\x9b", b"\xc2\x9d", b"\x07N"):
        assert raw not in session.seen, raw
