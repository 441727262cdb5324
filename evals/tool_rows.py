"""Rows of the evals that run one tool on one relation."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, Record, ToolResult
from dragoman.evals.rows import append_line
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, Tool, tools_digest
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.language import LanguageSubject


class ToolRow(Record):
    """What a tool found on one relation and seed, or why there is no figure."""

    relation: str
    content: str
    """Content id of the relation: a changed file is not the same relation."""
    subject_digest: str
    effort: Effort
    seed: int
    seconds: float
    """Of CPU time."""
    result: ToolResult
    code: str = ""
    """Digest of the tools that counted (an experiment's own also names files that it read)."""

    @property
    def counted_by(self) -> str:
        """The version of the tools; rows differ in it where the tools changed between them."""
        return self.code or self.result.experiment.code

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two rows the same piece of work."""
        return (self.relation, self.content, self.subject_digest, self.effort, str(self.seed))


RowT = TypeVar("RowT", bound=ToolRow)


def complete(
    wanted: Mapping[tuple[str, ...], Callable[[], RowT]],
    rows: Iterable[RowT],
    path: Path,
    *,
    table_only: bool = False,
) -> list[RowT]:
    """Make the wanted rows that are missing, each kept in `path` once it is made.

    Args:
        wanted: key of a row to what makes it.
        rows: those of earlier runs.
        path: the jsonl file; a stop loses the row in the making and no other.
        table_only: make none.

    Returns:
        The wanted rows that there are, in the order asked for.
    """
    found = {row.key: row for row in rows}
    missing = [] if table_only else [key for key in wanted if key not in found]
    for place, key in enumerate(missing, start=1):
        row = wanted[key]()
        append_line(path, row.model_dump_json())
        found[row.key] = row
        said = visible(row.result.error or row.result.summary, one_line=True)
        sys.stderr.write(f"{place} of {len(missing)}: {row.seconds:.0f} s: {said}\n")
        sys.stderr.flush()
    return [found[key] for key in wanted if key in found]


def run_tool(
    tool: Tool,
    subject: LanguageSubject,
    relation: str,
    effort: Effort,
    seed: int,
    arguments: JsonObject,
) -> ToolRow:
    """Call `tool` with these arguments and `relation` and `effort`; nobody keeps its artifacts."""
    started = time.process_time()
    parsed = tool.parse({"relation": relation, "effort": effort, **arguments})
    experiment = tool.experiment(parsed, subject_digest=subject.identity.digest, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        context = ToolContext(
            network=subject, seed=seed, home=home, artifacts=home / "run", cache=home / "cache"
        )
        result = tool.run(context, experiment)
    return ToolRow(
        relation=relation,
        content=load_relation(relation).content_id(),
        subject_digest=subject.identity.digest,
        effort=effort,
        seed=seed,
        seconds=round(time.process_time() - started, 1),
        result=result,
        code=tools_digest(),
    )
