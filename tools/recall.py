"""What earlier audits found, brought back with its standing."""

from typing import Annotated

from pydantic import Field

from dragoman.core.errors import ToolError
from dragoman.core.records import ToolSuccess
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tool


@tool(method="memory")
def recall_findings(
    ctx: ToolContext,
    query: Annotated[str, Field(min_length=1, max_length=500, description="What to look for")],
    k: Annotated[int, Field(ge=1, le=20, description="How many findings")] = 5,
) -> ToolSuccess:
    """Findings of earlier audits that are near the query in meaning.

    Each comes with its standing: 'prior, unverified' for this very subject, 'of another model' for
    any other. A finding is a lead, never evidence.
    """
    if ctx.findings is None:
        raise ToolError("no memory of findings is open here")
    recalled = ctx.findings.search(query, subject_digest=ctx.subject.identity.digest, k=k)
    same = sum(each.standing == "prior, unverified" for each in recalled)
    return ToolSuccess(
        summary=(
            f"{len(recalled)} earlier findings, {same} of them about this subject"
            if recalled
            else "memory holds nothing near this"
        ),
        output={"findings": [each.model_dump(mode="json") for each in recalled]},
    )
