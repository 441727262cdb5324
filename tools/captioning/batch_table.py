"""A run's rows as one Parquet table: a row a unit, each score with its floor and interval."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dragoman.core.files import atomic_path
from dragoman.core.records import canonical_json
from dragoman.tools.captioning.batch import read_rows
from dragoman.tools.captioning.rows import UnitCaption

TABLE_FILE = "captions.parquet"
_ROWS_A_GROUP = 1000
_SENSE = pa.struct(
    [
        ("caption", pa.string()),
        ("share", pa.float64()),
        ("score", pa.float64()),
        ("floor", pa.float64()),
        ("holds", pa.bool_()),
    ]
)
_EXEMPLAR = pa.struct(
    [
        ("tokens", pa.list_(pa.string())),
        ("strengths", pa.list_(pa.float64())),
        ("peak", pa.int64()),
        ("activation", pa.float64()),
    ]
)
_PICTURE = pa.struct(
    [
        ("picture", pa.string()),
        ("activations", pa.list_(pa.float64())),
        ("labels", pa.list_(pa.string())),
    ]
)
_PLAIN = (
    pa.field("name", pa.string(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("layer", pa.int64(), nullable=False),
    pa.field("unit", pa.int64(), nullable=False),
    pa.field("dictionary", pa.string(), nullable=False),
    pa.field("caption", pa.string()),
    pa.field("best_rejected", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("proposer", pa.string()),
    pa.field("predicate", pa.string(), metadata={"content": "JSON"}),
    pa.field("density", pa.float64()),
    pa.field("threshold", pa.float64()),
    pa.field("senses", pa.list_(_SENSE)),
    pa.field("exemplars", pa.list_(_EXEMPLAR)),
    pa.field("images", _PICTURE),
)
_OF_A_SCORE = ("", "_floor", "_low", "_high", "_n", "_n_failed")


def write_table(folder: Path) -> Path:
    """Make `captions.parquet` from the rows in `folder`.

    Each metric has the columns `metric`, `metric_floor`, `metric_low`, `metric_high` (the 95%
    interval), `metric_n` and `metric_n_failed`, null where a unit was not scored by it.
    """
    metrics: dict[str, None] = {}
    for row in read_rows(folder):
        metrics |= dict.fromkeys(each.metric for each in (*row.measurements, *row.controls))
    scores = [
        pa.field(f"{metric}{part}", pa.int64() if part.startswith("_n") else pa.float64())
        for metric in metrics
        for part in _OF_A_SCORE
    ]
    schema = pa.schema([*_PLAIN, *scores])
    target = folder / TABLE_FILE
    with (
        atomic_path(target) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        rows = read_rows(folder)
        while group := list(islice(rows, _ROWS_A_GROUP)):
            writer.write_table(pa.Table.from_pylist([_plain(row) for row in group], schema=schema))
    return target


def _plain(row: UnitCaption) -> Mapping[str, Any]:
    values = row.model_dump(include={field.name for field in _PLAIN})
    values["predicate"] = None if row.predicate is None else canonical_json(row.predicate)
    return values | dict(_scores(row))


def _scores(row: UnitCaption) -> Iterator[tuple[str, float | int]]:
    for each in (*row.measurements, *row.controls):
        yield from zip(
            (f"{each.metric}{part}" for part in _OF_A_SCORE),
            (each.value, each.baseline, *each.ci95, each.n, each.n_failed),
            strict=True,
        )
