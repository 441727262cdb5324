"""Edits through the inverse of a relation's map against REMEDI's trained editor, on the same facts.

`python -m dragoman.evals.inverse_editing` runs `edit_through_relation` with REMEDI beside it on
relations of ours: the same held-out entities, new objects and probes for both, layer and rank of
the map and layer and strength of the editor each chosen on the same validation entities. Each
finished (relation, seed) is one line of a jsonl file: stopped at any moment, the same command goes
on after the last line. A relation that cannot be edited is a row as well: it says why.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path

from dragoman.core.settings import Settings
from dragoman.evals.inverse_editing_table import render
from dragoman.evals.rows import complete, kept_rows, read_rows
from dragoman.evals.telling import publish
from dragoman.evals.tool_rows import ToolRow, run_tool
from dragoman.tools.circuits.edit_tool import edit_through_relation
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.huggingface import DEFAULT_SUBJECT, load_subject

RELATIONS = (
    "adj_antonym",
    "adj_comparative",
    "animal_class",
    "city_in_country",
    "country_capital",
    "country_demonym",
    "name_country",
    "verb_past_tense",
)
"""Of every kind, and well known to the subject: chosen by what is known, not by results."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the table; 1 if there is nothing to make it of."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.inverse_editing", description=__doc__
    )
    parser.add_argument("relations", nargs="*", default=list(RELATIONS))
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--effort", choices=("quick", "full"), default="quick")
    parser.add_argument("--rows", type=Path, help="the jsonl file of rows")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    settings = Settings()
    path = options.rows or kept_rows("inverse_editing", settings)
    subject = load_subject(options.subject, settings)
    digest = subject.identity.digest
    effort, seed = options.effort, options.seed
    wanted: dict[Hashable, Callable[[], ToolRow]] = {
        (name, load_relation(name).content_id(), digest, effort, seed): partial(
            run_tool, edit_through_relation, subject, name, effort, seed, {"with_remedi": True}
        )
        for name in options.relations
    }
    chosen = complete(wanted, read_rows(path, ToolRow), path, table_only=options.table_only)
    if not chosen:
        sys.stderr.write("no row to make a table of\n")
        return 1
    text = render(
        [(row.relation, row.result) for row in chosen],
        subject=subject.identity.name,
        command=" ".join(["python -m dragoman.evals.inverse_editing", *_shown(options)]),
        seconds=sum(row.seconds for row in chosen),
        n_codes=len({row.counted_by for row in chosen}),
    )
    publish(text, options.out)
    return 0


def _shown(options: argparse.Namespace) -> list[str]:
    shown = [] if options.relations == list(RELATIONS) else [*options.relations]
    if options.subject != DEFAULT_SUBJECT:
        shown.append(f"--subject {Path(options.subject).name}")
    return [*shown, f"--seed {options.seed}", f"--effort {options.effort}"]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # stopped: every finished row is kept
        sys.exit(main())
    sys.exit(130)
