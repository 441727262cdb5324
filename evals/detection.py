"""Foreseeing errors on every relation: the probe against the subject's own confidence.

`python -m dragoman.evals.detection` runs `detect_errors` on our relations. Each finished (relation,
question, seed) is one line of a jsonl file: stopped at any moment, the same command goes on after
the last line. A relation that the subject knows too well or too little is a row as well: it says
so. The table is made from that file.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path

from dragoman.core.settings import Settings
from dragoman.evals.detection_table import render
from dragoman.evals.rows import complete, kept_rows, read_rows
from dragoman.evals.telling import publish
from dragoman.evals.tool_rows import ToolRow, run_tool
from dragoman.tools.editing.detection.questions import Question
from dragoman.tools.editing.detection.tool import detect_errors
from dragoman.tools.registry import Effort
from dragoman.tools.relations import list_relations, load_relation
from dragoman.tools.subjects.huggingface import DEFAULT_SUBJECT, load_subject
from dragoman.tools.subjects.language import LanguageSubject


class Row(ToolRow):
    """One relation and question on one seed, or why there is no figure."""

    question: Question

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What makes two rows the same piece of work."""
        return (self.question, *super().key)


def run_row(
    subject: LanguageSubject, relation: str, question: Question, effort: Effort, seed: int
) -> Row:
    """`detect_errors` on one relation."""
    found = run_tool(detect_errors, subject, relation, effort, seed, {"question": question})
    return Row(question=question, **dict(found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the table; 1 if there is nothing to make it of."""
    parser = argparse.ArgumentParser(prog="python -m dragoman.evals.detection", description=__doc__)
    parser.add_argument("relations", nargs="*", help="relations of ours, or files (default: all)")
    parser.add_argument("--question", choices=("prior", "contextual"), default="prior")
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--effort", choices=("quick", "full"), default="full")
    parser.add_argument("--rows", type=Path, help="the jsonl file of rows")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    settings = Settings()
    path = options.rows or kept_rows("detection", settings)
    names = options.relations or list_relations()
    subject = load_subject(options.subject, settings)
    digest = subject.identity.digest
    question, effort, seed = options.question, options.effort, options.seed
    wanted: dict[Hashable, Callable[[], Row]] = {
        (question, name, load_relation(name).content_id(), digest, effort, seed): partial(
            run_row, subject, name, question, effort, seed
        )
        for name in names
    }
    chosen = complete(wanted, read_rows(path, Row), path, table_only=options.table_only)
    if not chosen:
        sys.stderr.write("no row to make a table of\n")
        return 1
    text = render(
        [(row.relation, row.result) for row in chosen],
        subject=subject.identity.name,
        question=options.question,
        command=" ".join(["python -m dragoman.evals.detection", *_shown(options)]),
        seconds=sum(row.seconds for row in chosen),
        n_codes=len({row.counted_by for row in chosen}),
    )
    publish(text, options.out)
    return 0


def _shown(options: argparse.Namespace) -> list[str]:
    shown = [*options.relations]
    if options.question != "prior":
        shown.append(f"--question {options.question}")
    if options.subject != DEFAULT_SUBJECT:
        shown.append(f"--subject {Path(options.subject).name}")
    return [*shown, f"--seed {options.seed}", f"--effort {options.effort}"]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # stopped: every finished row is kept
        sys.exit(main())
    sys.exit(130)
