"""Memory: findings by meaning, in a Chroma index that is rebuilt from the ledger whenever in doubt.

Chroma neither notices a damaged file (it answers wrongly, or ends the process) nor bears two
writers. So each use holds a lock, opens the index, closes it, and writes down the sha256 of every
file; an index that is not what it was when it was last closed is put aside unread.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from filelock import FileLock, Timeout

from dragoman.core.claims import Finding, RecalledFinding
from dragoman.core.errors import DragomanError, UserError
from dragoman.core.escaping import visible, well_formed
from dragoman.core.files import file_sha256, write_atomic
from dragoman.core.records import canonical_json

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

Embed: TypeAlias = Callable[[list[str]], list[list[float]]]
"""Texts to vectors, all of one length."""

_COLLECTION = "findings"
_BATCH = 256
_LOCK_SECONDS = 60.0


class Memory:
    """A `FindingStore` in one folder; opening is lazy, and any number of processes may use it."""

    def __init__(
        self, folder: Path, embed: Embed, source: Callable[[], list[Finding]] | None = None
    ) -> None:
        """`source`: all findings of the ledger; the index is kept equal to it."""
        self._folder = folder
        self._store = folder / "index"
        self._manifest = folder / "manifest.json"
        self._embed = embed
        self._source = source
        self._compared = False

    def add(self, findings: Sequence[Finding]) -> None:
        """Store findings; one that is there already (same id) is left as it is."""
        with self._opened() as collection:
            self._insert(collection, findings)

    def search(
        self, text: str, *, subject_digest: str | None = None, k: int = 5
    ) -> list[RecalledFinding]:
        """The `k` nearest findings, best first, refuted ones included; similarity is a cosine.

        Those about another network than `subject_digest` say so; None accepts all as priors.
        """
        with self._opened() as collection:
            wanted = min(k, collection.count())
            if wanted < 1:
                return []
            found = collection.query(
                query_embeddings=self._vectors([well_formed(text)]),
                n_results=wanted,
                include=["metadatas", "distances"],
            )
        recalled = []
        for entry, distance in zip(
            (found["metadatas"] or [[]])[0], (found["distances"] or [[]])[0], strict=True
        ):
            finding = Finding.model_validate_json(str(entry["finding"]))
            same = subject_digest in (None, finding.subject_digest)
            recalled.append(
                RecalledFinding(
                    finding=finding,
                    similarity=max(-1.0, min(1.0, 1.0 - distance)),
                    standing="prior, unverified" if same else "of another model",
                )
            )
        return sorted(recalled, key=lambda one: (-one.similarity, one.finding.id))

    def rebuild(self, findings: Sequence[Finding]) -> None:
        """Start the index afresh from `findings`; the old one is put aside."""
        with self._locked():
            self._put_aside()
            with self._collection() as collection:
                self._insert(collection, findings)

    @contextmanager
    def _opened(self) -> "Iterator[Collection]":
        """The collection, whole and equal to the source, while no other process uses it."""
        with self._locked():
            if not self._is_as_we_left_it():
                self._put_aside()
            if not self._compared and self._source is not None:
                self._catch_up(self._source())
            with self._collection() as collection:
                yield collection
            self._compared = True

    def _catch_up(self, findings: Sequence[Finding]) -> None:
        """Add what the ledger has and the index lacks; what only the index has was planted."""
        with self._collection() as collection:
            present = set(collection.get(include=[])["ids"])
        if present - {_row_id(finding) for finding in findings}:
            self._put_aside()
        with self._collection() as collection:
            self._insert(collection, findings)

    def _insert(self, collection: "Collection", findings: Sequence[Finding]) -> None:
        # Chroma keeps the first record of an id and says nothing.
        by_id: dict[str, Finding] = {}
        for finding in findings:
            by_id.setdefault(_row_id(finding), finding)
        for start in range(0, len(by_id), _BATCH):
            names = list(by_id)[start : start + _BATCH]
            known = set(collection.get(ids=names, include=[])["ids"])
            new = [name for name in names if name not in known]
            if not new:
                continue
            texts = [well_formed(by_id[name].text) for name in new]
            collection.add(
                ids=new,
                embeddings=self._vectors(texts),
                metadatas=[{"finding": _spelled(by_id[name])} for name in new],
            )

    def _vectors(self, texts: list[str]) -> list[Sequence[float] | Sequence[int]]:
        vectors = self._embed(texts)
        if len(vectors) != len(texts) or not all(map(_is_usable, vectors)):
            raise ValueError("an embedding must be one vector a text, finite and not zero")
        return [*vectors]

    @contextmanager
    def _collection(self) -> "Iterator[Collection]":
        import chromadb
        from chromadb.config import Settings

        self._store.mkdir(parents=True, exist_ok=True)
        try:
            client: Any = chromadb.PersistentClient(
                self._store, settings=Settings(anonymized_telemetry=False)
            )
        except (OSError, chromadb.errors.ChromaError) as error:
            raise self._unusable(error) from error
        try:
            yield client.get_or_create_collection(
                _COLLECTION,
                # Vectors come from us alone: the default function would download a model.
                embedding_function=None,
                configuration={"hnsw": {"space": "cosine"}},
            )
        except (OSError, chromadb.errors.ChromaError) as error:
            raise self._unusable(error) from error
        finally:
            client.close()
        self._write_manifest()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._folder / "lock", thread_local=False, poll_interval=0.01)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            raise UserError(
                f"{self._folder} has been in use by another process for {_LOCK_SECONDS:.0f} s; "
                "wait for it or stop it"
            ) from None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            yield
        finally:
            lock.release()

    def _unusable(self, error: Exception) -> DragomanError:
        return UserError(
            f"{self._folder} cannot be used ({visible(str(error), one_line=True)[:200]}); free "
            "some space or correct its rights: it is rebuilt from the ledger by itself"
        )

    def _files(self) -> dict[str, str]:
        return {
            str(path.relative_to(self._store)): file_sha256(path)
            for path in sorted(self._store.rglob("*"))
            if path.is_file()
        }

    def _write_manifest(self) -> None:
        write_atomic(self._manifest, json.dumps({"version": _version(), "files": self._files()}))

    def _is_as_we_left_it(self) -> bool:
        try:
            manifest = json.loads(self._manifest.read_text("utf-8"))
        except FileNotFoundError:
            return not self._store.exists()
        except ValueError:
            return False
        return bool(manifest == {"version": _version(), "files": self._files()})

    def _put_aside(self) -> None:
        """Move the index away, in place of the last one that was; the next opening fills it."""
        aside = self._folder / "damaged"
        self._manifest.unlink(missing_ok=True)
        if self._store.exists():
            shutil.rmtree(aside, ignore_errors=True)
            self._store.rename(aside)
        self._compared = False

    # Last, since from here on `list` means this.
    def list(self) -> list[Finding]:
        """Every finding, oldest first."""
        with self._opened() as collection:
            entries = collection.get(include=["metadatas"])["metadatas"] or []
        findings = [Finding.model_validate_json(str(entry["finding"])) for entry in entries]
        return sorted(findings, key=lambda finding: (finding.created, finding.id))


def _row_id(finding: Finding) -> str:
    return hashlib.sha256(well_formed(finding.id).encode()).hexdigest()


def _spelled(finding: Finding) -> str:
    return well_formed(canonical_json(finding.model_dump(mode="json")))


def _is_usable(vector: list[float]) -> bool:
    return all(map(math.isfinite, vector)) and any(vector)


def _version() -> str:
    from importlib.metadata import version

    return version("chromadb")
