"""Planning: does the planner choose the tool and the arguments that a question calls for?

Forty questions that nothing was tuned on, put to a chat model through the real planner, or to the
fixed protocol that runs without one. No subject is loaded and no experiment is run.

    python -m dragoman.evals.planning --chat none
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from dragoman.agent.choose_chat import choose_chat
from dragoman.core.errors import DragomanError, ExitCode, UserError
from dragoman.core.escaping import visible
from dragoman.core.files import write_atomic
from dragoman.core.records import Measurement, canonical_json
from dragoman.core.settings import load_settings
from dragoman.evals.cells import cell
from dragoman.evals.planning_scores import PROTOCOL, Outcome, Planned, evaluate
from dragoman.evals.questions import Question, read_questions

_FOLDER = Path("docs/evals")


def render(outcomes: Sequence[Outcome], questions: Sequence[Question]) -> str:
    """The Markdown page: one row for each planner, and every question with what was chosen."""
    rows = []
    for outcome in outcomes:
        cells = [f"{each.value:.2f} ({_interval(each)})" for each in outcome.measurements]
        n_failed = outcome.measurements[0].n_failed
        rows.append(
            f"| {cell(outcome.planner)} | {' | '.join(cells)} | {n_failed} | `{outcome.command}` |"
        )
    by_lot = outcomes[0].chance
    lot = (
        f"| a template drawn by lot | {by_lot.tool:.2f} | {by_lot.arguments:.3f} "
        f"| {by_lot.either:.2f} | | |"
    )
    header = " | ".join(cell(outcome.planner) for outcome in outcomes)
    lines = [
        _INTRODUCTION.format(n=len(questions), by_tool=by_lot.tool_among_tools).strip(),
        "",
        "| planner | tool | arguments | either of two | no usable reply | command |",
        "|---|---|---|---|---|---|",
        *rows,
        lot,
        "",
        "## What was chosen first",
        "",
        "✓ tool and arguments, ◐ the tool alone, ✗ neither.",
        "",
        f"| question | {header} |",
        "|---|" + "---|" * len(outcomes),
    ]
    for index, question in enumerate(questions):
        chosen = " | ".join(_verdict(outcome.questions[index]) for outcome in outcomes)
        lines.append(f"| {cell(question.question)} | {chosen} |")
    return "\n".join(lines) + "\n"


def record(outcome: Outcome, questions: Sequence[Question], folder: Path) -> Path:
    """Keep the outcome in `planning.json` beside other planners', and write `planning.md`.

    An outcome on other questions than today's is dropped: rows of a table must be comparable.
    """
    kept = [each for each in _kept(folder / "planning.json") if each.planner != outcome.planner]
    ids = [question.id for question in questions]
    kept = [each for each in kept if [one.id for one in each.questions] == ids]
    outcomes = sorted([*kept, outcome], key=lambda each: (each.planner != PROTOCOL, each.planner))
    body = ",\n".join(canonical_json(each.model_dump(mode="json")) for each in outcomes)
    write_atomic(folder / "planning.json", f"[\n{body}\n]\n")
    page = folder / "planning.md"
    write_atomic(page, render(outcomes, questions))
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns an exit code as documented for `dragoman`."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.planning", description="How well experiments are chosen."
    )
    parser.add_argument("--chat", choices=("none", "local", "endpoint", "auto"), default="auto")
    parser.add_argument("--split", choices=("test", "development"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=_FOLDER, help="folder of the table")
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")
    given = parser.parse_args(arguments)
    try:
        questions = read_questions(given.split)
        chat = choose_chat(given.chat, load_settings(), _tell)
        command = f"python -m dragoman.evals.planning --chat {given.chat} --seed {given.seed}"
        try:
            outcome = evaluate(
                chat, questions, split=given.split, seed=given.seed, command=command, told=_tell_of
            )
        finally:
            if chat is not None:
                chat.close()
        # The development split is for work on the planner: its figures are not for the page.
        if given.split == "test":
            _tell(f"the table is in {record(outcome, questions, given.out)}")
    except DragomanError as error:
        _tell(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _tell("interrupted; nothing was written")
        return ExitCode.INTERRUPTED
    if given.json:
        sys.stdout.write(outcome.model_dump_json(indent=2, ensure_ascii=True) + "\n")
    else:
        for each in outcome.measurements:
            sys.stdout.write(
                f"{each.metric}: {each.value:.2f} ({_interval(each)}), by lot {each.baseline:.3f}, "
                f"n = {each.n}, no usable reply {each.n_failed}\n"
            )
    return ExitCode.DONE


def _kept(path: Path) -> list[Outcome]:
    if not path.is_file():
        return []
    try:
        return [Outcome.model_validate(each) for each in json.loads(path.read_bytes())]
    except (ValueError, ValidationError):
        raise UserError(f"{path} is not a record of this eval; move it away") from None


def _tell_of(planned: Planned) -> None:
    first = planned.choices[0] if planned.choices else None
    _tell(f"{_mark(planned)} {planned.id}: {first.tool if first else planned.failed or 'nothing'}")


def _mark(planned: Planned) -> str:
    return "✓" if planned.arguments else "◐" if planned.tool else "✗"


def _verdict(planned: Planned) -> str:
    if not planned.choices:
        return f"{_mark(planned)} {'no usable reply' if planned.failed else 'nothing'}"
    call = planned.choices[0]
    told = ", ".join(
        f"{name}={value}"
        for name, value in call.arguments.items()
        if name in {"relation", "layer", "neurons", "entity", "new_object", "prompt", "answer"}
    )
    return f"{_mark(planned)} {call.tool}: {cell(told)}"


def _interval(measurement: Measurement) -> str:
    low, high = measurement.ci95
    return f"{low:.2f} to {high:.2f}"


def _tell(text: str) -> None:
    sys.stderr.write(visible(text) + "\n")


_INTRODUCTION = """
# Planning: are the right experiments chosen?

{n} questions as a person would put them were given to the planner as it stands. No experiment \
is run; the scene is an audit of `smollm2` with all relations. The questions were written before \
the planner's words were read, and the planner was improved on a development split apart from \
them. The author of the first forty also widened the fixed protocol's word lists: for those, take \
its figures for an upper estimate. Thirty more, about `trace_fact`, `attribute_lens`, \
`compare_relations`, `ablate_neurons` and `search_neurons`, were written by somebody who knew \
these tools' purposes and nothing of the planner: what other people's wording gives is seen there. \
The six about `detect_errors` are their template's author's again; the last six, about \
`edit_through_relation`, are by somebody who knew what that tool does and nothing of the planner.

- **tool**: the first test chosen uses an acceptable tool.
- **arguments**: that, and every argument that the question settles (relation, layer, neurons, \
prompt, entity …) is right.
- **either of two**: one of the first two tests uses an acceptable tool.
- **no usable reply**: the chat model never gave what was asked for; counted as wrong. In an \
audit the fixed protocol takes over.

The chat model is shown what the fixed protocol would choose and may choose otherwise, so the \
difference between the two rows is what it adds or spoils.

In brackets stand Wilson's 95% intervals. *By lot* is computed: a template drawn uniformly (a \
tool drawn uniformly would be right in {by_tool:.2f}), its relation drawn uniformly, text and \
numbers never hit, and for *either* two different templates.
"""


if __name__ == "__main__":
    sys.exit(main())
