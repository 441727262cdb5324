"""The command that repeats one experiment, as it stands in `Report.replay`.

    dragoman tool run NAME --subject S --seed N --args '{…}'  # experiment 3f2a…

One line that a POSIX shell takes as it is; the comment ties it to the evidence.
"""

import json
import re
import shlex
from typing import NamedTuple

from dragoman.core.records import Experiment

_COMMENT = re.compile(r"  # experiment (?P<id>\S+)$")
_RUN = ["dragoman", "tool", "run"]


class Replay(NamedTuple):
    """What a replay command runs, and which experiment it repeats."""

    experiment_id: str
    tool: str
    options: tuple[str, ...]


def replay_command(experiment: Experiment, subject: str) -> str:
    """The command for `experiment` on the subject of that name or path."""
    # ASCII JSON: no newline, control or bidi character of an argument reaches the shell.
    arguments = json.dumps(experiment.arguments, sort_keys=True, ensure_ascii=True)
    options = ["--subject", subject, "--seed", str(experiment.seed), "--args", arguments]
    if experiment.chat:
        options += ["--chat", "auto"]
    return f"{shlex.join([*_RUN, experiment.tool, *options])}  # experiment {experiment.id}"


def parse_replay(command: str) -> Replay:
    """The parts of a replay command; `ValueError` says what is wrong with it.

    The command must be quoted as `shlex.join` quotes: then each word reaches the program as it is,
    and nothing in it is a substitution, a redirection or a second command.
    """
    comment = _COMMENT.search(command)
    if comment is None or "\n" in command:
        raise ValueError("is not one line that ends with `  # experiment ID`")
    body = command[: comment.start()]
    words = shlex.split(body)
    if shlex.join(words) != body:
        raise ValueError("is not quoted word by word")
    if words[:3] != _RUN or len(words) < 4:
        raise ValueError("does not begin with `dragoman tool run NAME`")
    return Replay(comment["id"], words[3], tuple(words[4:]))
