"""Edits to read: prompt, entity, what was written before and after, and under each baseline.

An editing tool leaves them as `examples.json`. The texts are a subject's and stay data: whatever is
not of this shape, or not the file that its digest names, is not shown.
"""

from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from dragoman.agent.rendering.images import UnreadableArtifact, verified
from dragoman.core.records import Artifact, Record

NAME = "examples.json"
MOST = 4
"""So many stand on the page; the file has all of them."""


class Example(Record):
    """One edit."""

    prompt: str
    entity: str
    old_object: str
    new_object: str
    before: str
    after: str
    baselines: dict[str, str] = Field(default_factory=dict)
    probabilities: dict[str, float] = Field(default_factory=dict)


_EXAMPLES = TypeAdapter(list[Example])


def examples(artifact: Artifact, home: Path) -> list[Example]:
    """The first few examples of an artifact; none if it is no file of examples."""
    if artifact.name != NAME or artifact.media_type != "application/json":
        return []
    try:
        return _EXAMPLES.validate_json(verified(artifact, home))[:MOST]
    except (UnreadableArtifact, ValidationError):
        return []
