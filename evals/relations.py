"""Every relation on one subject, on several splits, beside the figures published for GPT-J.

`python -m dragoman.evals.relations` runs our relations; `--folder` runs those of any folder of
files in the published format instead. Each finished (relation, seed) is one line of a jsonl file:
stopped at any moment, the same command goes on after the last line. The table is made from that
file. Rows of ours are kept in `docs/evals/relations.jsonl` of a checkout, which the command reads
and extends, so that no one has to count them again; rows of a folder, whose texts are someone
else's, in the data folder.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TextIO

from dragoman.core.errors import ToolError
from dragoman.core.protocols import silent
from dragoman.core.settings import Settings
from dragoman.evals.relations_table import render
from dragoman.evals.rows import EvalRow, complete, kept_rows, read_rows
from dragoman.evals.telling import publish, say
from dragoman.tools.circuits.study import PLANS
from dragoman.tools.circuits.trial import run_trial
from dragoman.tools.circuits.trial_record import TrialRecord, record
from dragoman.tools.circuits.twin import make_twin
from dragoman.tools.registry import Effort, tools_digest
from dragoman.tools.relations import Relation, RelationKind, list_relations, load_relation
from dragoman.tools.subjects.huggingface import DEFAULT_SUBJECT, load_subject
from dragoman.tools.subjects.language import LanguageSubject


class Row(EvalRow):
    """One relation on one split."""

    relation: str
    """Name of ours, or file name in the folder given."""
    kind: RelationKind
    content: str
    """Content id of the relation: a changed file is not the same relation."""
    subject_digest: str
    effort: Effort
    code: str
    """Digest of the tools that counted; a table says so when rows differ in it."""
    seconds: float
    trial: TrialRecord

    @property
    def told(self) -> str:
        """The relation, the split and what it took."""
        return f"{self.relation}, seed {self.trial.seed}: {self.seconds:.0f} s"

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What makes two rows the same piece of work."""
        return (
            self.relation,
            self.content,
            self.subject_digest,
            self.effort,
            self.trial.seed,
        )


def run_row(
    subject: LanguageSubject,
    name: str,
    relation: Relation,
    effort: Effort,
    seed: int,
    twin_of_subject: Callable[[], LanguageSubject | None],
) -> Row:
    """One relation on one split, beside the same on a twin with random weights."""
    twin = twin_of_subject()
    started = time.monotonic()
    found = run_trial(subject, relation, PLANS[effort], seed, silent, twin=twin)
    return Row(
        relation=name,
        kind=relation.kind,
        content=relation.content_id(),
        subject_digest=subject.identity.digest,
        effort=effort,
        code=tools_digest(),
        seconds=round(time.monotonic() - started, 1),
        trial=record(found),
    )


def find_relations(
    names: Sequence[str], folder: Path | None, stream: TextIO
) -> Iterator[tuple[str, Relation]]:
    """Ours (or those named) and all files in `folder`; a bad file is told of and left out."""
    if names or folder is None:
        for name in names or list_relations():
            yield name, load_relation(name)
    if folder is None:
        return
    for path in sorted(folder.rglob("*.json")):
        try:
            yield str(path.relative_to(folder)), load_relation(str(path))
        except ToolError as error:
            say(stream, f"left out: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the table; 0 unless nothing could be judged."""
    parser = argparse.ArgumentParser(prog="python -m dragoman.evals.relations", description=__doc__)
    parser.add_argument("relations", nargs="*", help="relations of ours, or files (default: all)")
    parser.add_argument("--folder", type=Path, help="a folder of files in the published format")
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--effort", choices=("quick", "full"), default="full")
    parser.add_argument("--rows", type=Path, help="the jsonl file (default: see above)")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    settings = Settings()
    path = options.rows or _default_rows(settings, options.folder)
    relations = dict(find_relations(options.relations, options.folder, sys.stderr))
    subject = load_subject(options.subject, settings)
    digest, effort = subject.identity.digest, options.effort
    # A fresh network is made only if something is to be run, and once.
    twin = cache(partial(make_twin, subject, 0))
    wanted: dict[Hashable, Callable[[], Row]] = {
        (name, relation.content_id(), digest, effort, seed): partial(
            run_row, subject, name, relation, effort, seed, twin
        )
        for seed in options.seeds  # seed by seed: a run that is stopped has seen every relation
        for name, relation in relations.items()
    }
    chosen = complete(wanted, read_rows(path, Row), path, table_only=options.table_only)
    if not chosen:
        say(sys.stderr, "no row to make a table of")
        return 1
    command = " ".join(["python -m dragoman.evals.relations", *_shown(options)])
    text = render(
        [(row.relation, row.kind, row.trial) for row in chosen],
        subject=subject.identity.name,
        command=command,
        seconds=sum(row.seconds for row in chosen),
        n_codes=len({row.code for row in chosen}),
        missing=[name for name in relations if name not in {row.relation for row in chosen}],
    )
    publish(text, options.out)
    return 0


def _default_rows(settings: Settings, folder: Path | None) -> Path:
    if folder is not None:
        return settings.home / "evals" / "relations.jsonl"
    return kept_rows("relations", settings)


def _shown(options: argparse.Namespace) -> list[str]:
    shown = [json.dumps(each) if " " in each else each for each in options.relations]
    if options.folder is not None:
        shown.append("--folder FOLDER")
    if options.subject != DEFAULT_SUBJECT:
        shown.append(f"--subject {Path(options.subject).name}")
    seeds = " ".join(map(str, options.seeds))
    return [*shown, f"--seeds {seeds}", f"--effort {options.effort}"]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # stopped: every finished row is kept
        sys.exit(main())
    sys.exit(130)
