"""Rows of the evals that run one tool on one relation."""

import tempfile
import time
from collections.abc import Hashable
from pathlib import Path

from dragoman.core.records import JsonObject, ToolResult
from dragoman.evals.rows import EvalRow
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, Tool, tools_digest
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.language import LanguageSubject


class ToolRow(EvalRow):
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
    def told(self) -> str:
        """Its result in a sentence."""
        return f"{self.seconds:.0f} s: {self.result.error or self.result.summary}"

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What makes two rows the same piece of work."""
        return (self.relation, self.content, self.subject_digest, self.effort, self.seed)


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
