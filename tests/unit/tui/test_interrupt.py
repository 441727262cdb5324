"""Two signals in a row, in a process of its own."""

import signal
import subprocess
import sys

SCRIPT = """
import sys, time
from dragoman.tui.commands.interrupt import stoppable

def say(text):
    print(text, flush=True)

with stoppable(lambda: say("first"), lambda: say("second")) as cancelled:
    say(f"cancelled {cancelled()}")
    while True:
        time.sleep(0.01)
"""


def test_the_second_signal_ends_the_process_with_130() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "cancelled False\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "first\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "second\n"
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
