"""The atlas of a subject: which captions its units were given, kept to be searched by meaning.

One folder a subject digest, one file a source (a batch run, a call of `caption_neurons`), written
whole or not at all and never changed by another source: nothing has to be locked. The captions'
embeddings lie beside them and are made anew whenever they are missing or unreadable.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dragoman.core.escaping import well_formed
from dragoman.core.files import write_atomic
from dragoman.core.records import Record
from dragoman.tools.captioning.rows import RowKind, UnitCaption

Embed: TypeAlias = Callable[[list[str]], list[list[float]]]
Watch: TypeAlias = Callable[[int, int], None]
"""`watch(done, total)` between two batches of texts; may raise to stop."""

_VECTORS = "vectors.safetensors"
_BATCH = 64


class AtlasEntry(Record):
    """One unit as one source saw it; `caption` is None where none beat its floor."""

    name: str
    kind: RowKind
    layer: int
    unit: int
    dictionary: str = ""
    """As in the unit's row: of which autoencoder a latent is."""
    caption: str | None = None
    senses: tuple[str, ...] = ()
    score: float | None = None
    floor: float | None = None
    n: int = 0
    """Contexts or images behind the score."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What the unit can be found by: its caption and its senses."""
        return tuple(dict.fromkeys((self.caption, *self.senses))) if self.caption else ()


class Holdings(NamedTuple):
    """What an atlas has: one entry a unit, and the files that could not be read."""

    entries: tuple[AtlasEntry, ...]
    n_sources: int
    damaged: tuple[str, ...]

    @property
    def captioned(self) -> list[AtlasEntry]:
        """Units that have a caption."""
        return [entry for entry in self.entries if entry.caption is not None]


class Atlas:
    """The captions of one subject under a data folder."""

    def __init__(self, home: Path, subject_digest: str) -> None:
        """Nothing is read or made before it is needed."""
        self.folder = home / "atlas" / subject_digest[:16]

    def store(self, source: str, rows: Iterable[UnitCaption]) -> int:
        """Keep what `source` says of its units, in place of what it said before; how many."""
        lines = [_entry(row).model_dump_json(exclude_defaults=True) for row in rows]
        name = hashlib.sha256(source.encode()).hexdigest()[:24]
        write_atomic(
            self.folder / f"{name}.jsonl", "".join(f"{well_formed(line)}\n" for line in lines)
        )
        return len(lines)

    def holdings(self) -> Holdings:
        """Every unit once: as the source that watched it on most contexts saw it."""
        best: dict[tuple[str, str], AtlasEntry] = {}
        damaged: list[str] = []
        paths = sorted(self.folder.glob("*.jsonl"))
        for path in paths:
            try:
                entries = list(_read(path))
            except (OSError, ValidationError):
                damaged.append(path.name)
                continue
            for entry in entries:
                key = (entry.name, entry.dictionary)
                if key not in best or entry.n > best[key].n:
                    best[key] = entry
        ordered = sorted(best.values(), key=lambda entry: (entry.kind, entry.layer, entry.unit))
        return Holdings(tuple(ordered), len(paths) - len(damaged), tuple(damaged))

    def digest(self) -> str:
        """sha256 (hex) of all that sources said."""
        found = hashlib.sha256()
        for path in sorted(self.folder.glob("*.jsonl")):
            found.update(path.name.encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()

    def vectors(
        self, texts: Sequence[str], embed: Embed, watch: Watch = lambda done, total: None
    ) -> Float[ndarray, "texts d"]:
        """Embeddings of `texts`, those known from the file and the others made and kept."""
        known = self._known()
        lacking = [text for text in dict.fromkeys(texts) if text not in known]
        for start in range(0, len(lacking), _BATCH):
            watch(start, len(lacking))
            batch = lacking[start : start + _BATCH]
            for text, vector in zip(batch, embed(batch), strict=True):
                known[text] = np.asarray(vector, np.float16)
        if lacking:
            self._keep(known)
        return np.stack([known[text] for text in texts]).astype(np.float32)

    def _known(self) -> dict[str, Float[ndarray, " d"]]:
        # An index that cannot be read costs a minute and nothing else.
        try:
            with safe_open(self.folder / _VECTORS, framework="numpy") as opened:
                texts = json.loads((opened.metadata() or {}).get("texts", "[]"))
                vectors = opened.get_tensor("vectors")
        except (OSError, SafetensorError, ValueError):
            return {}
        return dict(zip(texts, vectors, strict=False))

    def _keep(self, vectors: dict[str, Float[ndarray, " d"]]) -> None:
        data = save(
            {"vectors": np.stack(list(vectors.values()))}, {"texts": json.dumps(list(vectors))}
        )
        write_atomic(self.folder / _VECTORS, data)


def _read(path: Path) -> Iterator[AtlasEntry]:
    with path.open("rb") as opened:
        for line in opened:
            yield AtlasEntry.model_validate_json(line)


def _searchable(row: UnitCaption) -> tuple[str, ...]:
    """Senses by which a unit may be found: not those that do no better on it than on others."""
    if row.caption is None:
        return ()
    return tuple(sense.caption for sense in row.senses if sense.holds is not False)


def _entry(row: UnitCaption) -> AtlasEntry:
    score = row.score
    return AtlasEntry(
        name=row.name,
        kind=row.kind,
        layer=row.layer,
        unit=row.unit,
        dictionary=row.dictionary,
        caption=row.caption,
        senses=_searchable(row),
        score=None if score is None else round(score.value, 4),
        floor=None if score is None else round(score.baseline, 4),
        n=0 if score is None else score.n,
    )
