"""The rows of a batch as one flat table: JSON lines and Parquet, a column for each figure."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject, Measurement, ToolResult
from dragoman.tools.circuits.batch import RelationRow
from dragoman.tools.circuits.faithfulness import RECALLS

JSONL_FILE, PARQUET_FILE = "relations.jsonl", "relations.parquet"
METRICS = ("known", "faithfulness", "causality")
_BESIDE = ("faithfulness_whole_object", *(f"recall_at_{k}" for k in RECALLS[1:]))
"""Of these the value alone."""
_SPLIT = ("faithfulness", "causality")
"""These have a value for each split, and a column for each control."""
_TEXTS = ("file", "relation", "kind", "status", "fault", "summary", "experiment_id", "verdict")
_COUNTS = ("n_samples", "n_objects", "layer", "edit_layer", "rank")


def flat(row: RelationRow) -> JsonObject:
    """One row with every figure in a column of its own; null where there is none."""
    result = row.result
    chosen: JsonValue = result.output.get("chosen") if result is not None else None
    found: JsonObject = {
        "file": row.file,
        "relation": row.relation,
        "kind": row.kind,
        "n_samples": row.n_samples,
        "n_objects": row.n_objects,
        "status": "error" if result is None else result.status,
        "fault": row.fault,
        "summary": "" if result is None else result.summary,
        "experiment_id": "" if result is None else result.experiment_id,
    }
    verdict = None if result is None else result.output.get("verdict")
    found["verdict"] = verdict.get("label") if isinstance(verdict, dict) else None
    for name in ("layer", "beta", "edit_layer", "rank", "damped"):
        found[name] = chosen.get(name) if isinstance(chosen, dict) else None
    for metric in METRICS:
        measured = None if result is None else result.measurement(metric)
        found[metric] = None if measured is None else measured.value
        found[f"{metric}_low"] = None if measured is None else measured.ci95[0]
        found[f"{metric}_high"] = None if measured is None else measured.ci95[1]
        found[f"{metric}_baseline"] = None if measured is None else measured.baseline
        found[f"{metric}_control"] = None if measured is None else measured.control
        found[f"{metric}_n"] = None if measured is None else measured.n
        found[f"{metric}_n_failed"] = None if measured is None else measured.n_failed
    for metric in _BESIDE:
        beside = _of(result, metric)
        found[metric] = None if beside is None else beside.value
    for metric in _SPLIT:
        values = _by_split(result, metric)
        found[f"{metric}_lowest_split"] = min(values, default=None)
        found[f"{metric}_highest_split"] = max(values, default=None)
    for control in () if result is None else result.controls:
        if control.metric in _SPLIT:
            found[f"{control.metric}: {control.scope}"] = control.value
    return found


def _of(result: ToolResult | None, metric: str) -> Measurement | None:
    every = () if result is None else (*result.measurements, *result.controls)
    return next((each for each in every if each.metric == metric), None)


def _by_split(result: ToolResult | None, metric: str) -> list[float]:
    splits = None if result is None else result.output.get("splits")
    listed = splits if isinstance(splits, list) else []
    values = [split.get(metric) for split in listed if isinstance(split, dict)]
    return [float(value) for value in values if isinstance(value, int | float)]


def write_table(out: Path, rows: Sequence[RelationRow]) -> tuple[Path, Path]:
    """Both files, in the order of `rows`; each whole or not at all."""
    flattened = [flat(row) for row in rows]
    # Which controls there are the rows decide: every row gets every column.
    names = list(dict.fromkeys(name for each in flattened for name in each))
    flattened = [{name: each.get(name) for name in names} for each in flattened]
    lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in flattened)
    write_atomic(out / JSONL_FILE, lines)
    # Said and not guessed: a column without a single value has its type all the same.
    schema = pa.schema([(name, _type(name)) for name in names])
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(flattened, schema=schema), written)
    write_atomic(out / PARQUET_FILE, written.getvalue())
    return out / JSONL_FILE, out / PARQUET_FILE


def _type(name: str) -> pa.DataType:
    if name in _TEXTS or name.endswith("_control"):
        return pa.string()
    if name == "damped":
        return pa.bool_()
    whole = name in _COUNTS or name.endswith(("_n", "_n_failed"))
    return pa.int64() if whole else pa.float64()
