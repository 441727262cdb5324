"""Activations that were read before: one file a unit and shard of texts.

For work that comes back to the same texts: a control network that many groups of units share, an
eval that is interrupted. Only new units and new texts cost a forward pass, and a larger corpus uses
what was read for a smaller one. The files hold nothing irreplaceable; what is absent or damaged is
read anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.files import atomic_path
from dragoman.core.records import content_id
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.neighbours import LayerScan
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.captioning.units import UnitLayer, read_layers
from dragoman.tools.context import ToolContext

SHARD_DOCUMENTS = 100

Wanted: TypeAlias = Mapping[UnitLayer, Sequence[int]]
Read: TypeAlias = dict[UnitLayer, Float[ndarray, "tokens units"]]


def read_shards(
    reading: Callable[[], ToolContext],
    documents: Sequence[str],
    table: TokenTable,
    wanted: Wanted,
    folder: Path,
    *,
    dictionary: SparseDictionary | None = None,
) -> Read:
    """`read_layers`, shard by shard of documents, each kept in `folder`, which names the subject.

    `reading` gives the context with the subject, and is asked only where something is lacking.
    `ToolError` as there; what was read before an interruption is kept.
    """

    def read(texts: list[str], rows: TokenTable, missing: Wanted) -> Read:
        return read_layers(reading(), texts, rows, missing, dictionary=dictionary)

    parts = []
    for first in range(0, len(documents), SHARD_DOCUMENTS):
        texts = list(documents[first : first + SHARD_DOCUMENTS])
        rows = table.stretch(first, first + len(texts))
        rows = replace(rows, document=rows.document - first, columns={}, stretches={})
        kept = folder / content_id(texts)
        parts.append(cached_columns(kept, rows.n, wanted, partial(read, texts, rows)))
    return {where: np.concatenate([part[where] for part in parts]) for where in wanted}


def kept_scans(
    folder: Path, wanted: Wanted, scan: Callable[[Wanted], dict[UnitLayer, LayerScan]]
) -> dict[UnitLayer, LayerScan]:
    """Scans of layers for the units `wanted`, from `folder` where they are there, else by `scan`.

    `folder` must be named after subject and texts.
    """
    paths = {
        where: folder / str(where) / f"scan-{content_id(list(units))[:16]}.npz"
        for where, units in wanted.items()
    }
    known = {where: _scan(path) for where, path in paths.items()}
    made = scan({where: wanted[where] for where, each in known.items() if each is None})
    for where, each in made.items():
        with atomic_path(paths[where]) as temporary, temporary.open("wb") as opened:
            np.savez(opened, **each._asdict())
    return {where: each if each is not None else made[where] for where, each in known.items()}


def _scan(path: Path) -> LayerScan | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return LayerScan(*(arrays[name] for name in LayerScan._fields))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return None


def cached_columns(
    folder: Path, n_tokens: int, wanted: Wanted, read: Callable[[Wanted], Read]
) -> Read:
    """Activations of the units `wanted`, from `folder` where they are there, else by one `read`.

    `folder` must be named after all that activations depend on: subject and texts.
    """
    known = {
        where: {unit: _column(_path(folder, where, unit), n_tokens) for unit in units}
        for where, units in wanted.items()
    }
    missing = {
        where: [unit for unit, column in columns.items() if column is None]
        for where, columns in known.items()
    }
    missing = {where: units for where, units in missing.items() if units}
    if missing:
        for where, activations in read(missing).items():
            for place, unit in enumerate(missing[where]):
                column = np.ascontiguousarray(activations[:, place])
                known[where][unit] = column
                _keep(_path(folder, where, unit), column)
    return {
        where: np.stack([column for column in columns.values() if column is not None], axis=1)
        for where, columns in known.items()
    }


def _path(folder: Path, where: UnitLayer, unit: int) -> Path:
    return folder / str(where) / f"{unit}.npy"


def _column(path: Path, n_tokens: int) -> Float[ndarray, " tokens"] | None:
    try:
        column: ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return column if column.shape == (n_tokens,) else None


def _keep(path: Path, column: Float[ndarray, " tokens"]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as opened:
        np.save(opened, column, allow_pickle=False)
