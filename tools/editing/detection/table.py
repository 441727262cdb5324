"""Risks as a table on disk: JSON lines or Parquet, a column for each field."""

import io
import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from dragoman.core.records import JsonObject

_NUMBERS = ("risk", "confidence_risk")
_FLAGS = ("error_foreseen", "error", "editor_saw_entity")


def risk_table(rows: Sequence[JsonObject], suffix: str) -> bytes:
    """The file's bytes for a `suffix` of .jsonl or .parquet, in the order of `rows`."""
    if suffix == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    names = list(rows[0]) if rows else []
    # Said and not guessed: a column without a single value has its type all the same.
    schema = pa.schema([(name, _type(name)) for name in names])
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([*rows], schema=schema), written)
    return written.getvalue()


def _type(name: str) -> pa.DataType:
    if name in _NUMBERS:
        return pa.float64()
    return pa.bool_() if name in _FLAGS else pa.string()
