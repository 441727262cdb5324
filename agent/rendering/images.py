"""Plots of the evidence as `data:` URIs: checked against their digest, never inlined as markup."""

import base64
import hashlib
from pathlib import Path
from typing import NamedTuple

from dragoman.core.records import Artifact

_DRAWN = frozenset({"image/svg+xml", "image/png"})
MOST_BYTES = 2 * 1024 * 1024
"""A larger plot is named and not shown: the report is to stay one file that opens on a phone."""


class Image(NamedTuple):
    """An artifact for the page: its `uri`, or, where there is none, why not."""

    artifact: Artifact
    uri: str
    problem: str


class UnreadableArtifact(Exception):
    """Why an artifact is not shown."""


def image(artifact: Artifact, home: Path) -> Image | None:
    """`artifact` ready for an `<img>`; None for a file that is no plot."""
    if artifact.media_type not in _DRAWN:
        return None
    try:
        content = verified(artifact, home)
    except UnreadableArtifact as problem:
        return Image(artifact, "", str(problem))
    encoded = base64.b64encode(content).decode("ascii")
    return Image(artifact, f"data:{artifact.media_type};base64,{encoded}", "")


def verified(artifact: Artifact, home: Path) -> bytes:
    """The content of an artifact in the data folder; `UnreadableArtifact` if it is not the one."""
    root = home.resolve()
    try:
        path = (root / artifact.path).resolve()
        if not path.is_relative_to(root):
            raise UnreadableArtifact("its path leaves the data folder")
        if path.stat().st_size > MOST_BYTES:
            raise UnreadableArtifact(f"it is larger than {MOST_BYTES // 2**20} MiB")
        content = path.read_bytes()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        raise UnreadableArtifact("the file cannot be read") from None
    if hashlib.sha256(content).hexdigest() != artifact.sha256:
        raise UnreadableArtifact("the file is not the one that its digest names")
    return content
