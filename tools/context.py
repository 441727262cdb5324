"""What a tool is given besides its arguments."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.core.errors import ToolError
from dragoman.core.files import atomic_path, file_sha256, write_atomic
from dragoman.core.protocols import (
    Cancelled,
    ChatModel,
    FindingStore,
    Progress,
    never,
    silent,
    stop_if,
)
from dragoman.core.records import Artifact

if TYPE_CHECKING:
    from dragoman.tools.subjects.language import LanguageSubject
    from dragoman.tools.subjects.vision import VisionSubject


@dataclass(frozen=True)
class ToolContext:
    """The subject, the seed, and the few ways in which a tool may touch the world."""

    network: "LanguageSubject | VisionSubject"
    """The network under examination; tools read it through `subject` or `vision`."""
    seed: int
    home: Path
    """The data folder; artifact paths are relative to it."""
    artifacts: Path
    """This experiment's own folder inside `home`; made when the first artifact is written."""
    cache: Path
    """What can be recomputed and is shared between experiments: corpora, trained editors."""
    chat: ChatModel | None = None
    findings: FindingStore | None = None
    progress: Progress = silent
    cancelled: Cancelled = never
    weights: Path | None = None
    """Where downloaded weights lie, if not in `home`."""

    @property
    def weights_folder(self) -> Path:
        """Downloaded weights: the embedder's, the labeller's."""
        return self.weights or self.home / "weights"

    @property
    def subject(self) -> "LanguageSubject":
        """The network as a language subject; `ToolError` if it is of another kind."""
        if self.network.kind != "language":
            raise ToolError(_wrong_kind("language", self.network))
        return self.network

    @property
    def vision(self) -> "VisionSubject":
        """The network as a vision subject; `ToolError` if it is of another kind."""
        if self.network.kind != "vision":
            raise ToolError(_wrong_kind("vision", self.network))
        return self.network

    def step(self, done: int, total: int, text: str) -> None:
        """Report progress; raise `Interrupted` if the person asked to stop."""
        stop_if(self.cancelled)
        self.progress(done, total, text)

    def save(self, name: str, content: str | bytes, media_type: str) -> Artifact:
        """Write one artifact file, whole or not at all."""
        target = self.artifacts / name
        write_atomic(target, content)
        return self._describe(target, media_type)

    def adopt(self, written: Path, name: str, media_type: str) -> Artifact:
        """Take over a file that a library wrote elsewhere (safetensors, PNG)."""
        target = self.artifacts / name
        with atomic_path(target) as temporary:
            temporary.write_bytes(written.read_bytes())
        return self._describe(target, media_type)

    def _describe(self, target: Path, media_type: str) -> Artifact:
        return Artifact(
            name=target.name,
            path=str(target.relative_to(self.home)),
            media_type=media_type,
            sha256=file_sha256(target),
        )


def _wrong_kind(wanted: str, network: "LanguageSubject | VisionSubject") -> str:
    return f"this needs a {wanted} subject; {network.identity.name!r} is a {network.kind} subject"
