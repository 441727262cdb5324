"""A person's own facts: JSON lines or Parquet, checked row by row.

One row is one fact. `entity` and `object` are required; the other columns may be left out:

    entity      what the fact is about: "France"
    object      what is true of it: "Paris"
    prompt      a template with one {} for the entity that ends right before the object:
                "The capital of {} is". Needed where the file stands for a relation of its own.
    new_object  what an edit is to put in its place: "Rome"

Every row at fault is named with its line (JSON lines) or row number (Parquet) and what is wrong.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
)

from dragoman.core.errors import ToolError
from dragoman.core.escaping import visible

SUFFIXES = (".jsonl", ".parquet")
MAXIMUM_BYTES = 64 * 2**20
MAXIMUM_ROWS = 100_000
_SHOWN = 5


def _clean(text: str) -> str:
    if visible(text, one_line=True) != text or "\t" in text:
        raise ValueError("holds a control or hidden character")
    return text


def _template(text: str) -> str:
    if text.count("{}") != 1 or text.count("{") + text.count("}") != 2:
        raise ValueError("must hold exactly one {} for the entity and no other brace")
    return text


def _absent(value: Any) -> Any:
    return None if value == "" else value


_Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=400),
    AfterValidator(_clean),
]
_Template = Annotated[_Text, AfterValidator(_template)]


class FactRow(BaseModel):
    """One fact as a file states it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    entity: _Text
    object: _Text
    prompt: Annotated[_Template | None, BeforeValidator(_absent)] = None
    new_object: Annotated[_Text | None, BeforeValidator(_absent)] = None


def is_fact_file(path: Path) -> bool:
    """Whether the name says that it is a file of facts."""
    return path.suffix.lower() in SUFFIXES


def read_fact_file(path: Path) -> tuple[FactRow, ...]:
    """Every row.

    Raises:
        ToolError: no such file, or one line that names the rows at fault and what is wrong.
    """
    where = f"fact file {visible(str(path), one_line=True)!r}"
    if not is_fact_file(path):
        raise ToolError(f"{where} must end in {' or '.join(SUFFIXES)}")
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise ToolError(f"{where} is larger than {MAXIMUM_BYTES // 2**20} MiB")
        found = list(_parquet(path) if path.suffix.lower() == ".parquet" else _lines(path))
    except OSError as error:
        raise ToolError(f"{where} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ToolError(f"{where} is not UTF-8 text") from None
    faults = [each for each in found if isinstance(each, str)]
    if faults:
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        raise ToolError(f"{where}: {'; '.join(faults[:_SHOWN])}{more}")
    rows = tuple(each for each in found if isinstance(each, FactRow))
    if not rows:
        raise ToolError(f"{where} holds no fact")
    if len(rows) > MAXIMUM_ROWS:
        raise ToolError(f"{where} holds {len(rows)} facts; at most {MAXIMUM_ROWS} are read")
    return rows


def make_row(**columns: str | None) -> FactRow:
    """One fact that was given without a file, held to the same rules.

    Raises:
        ToolError: one line that says what is wrong.
    """
    present = {name: value for name, value in columns.items() if value is not None}
    row = _row(json.dumps(present), "the fact")
    if isinstance(row, str):
        raise ToolError(row)
    return row


def relation_document(path: Path, rows: tuple[FactRow, ...]) -> dict[str, Any]:
    """The file as a relation of its own, in the published format.

    Raises:
        ToolError: no row has a prompt.
    """
    prompts = list(dict.fromkeys(row.prompt for row in rows if row.prompt))
    if not prompts:
        raise ToolError(
            f"fact file {visible(str(path), one_line=True)!r}: no row has a 'prompt' such as "
            '"The capital of {} is", which is needed to ask; or name the relation that it is of'
        )
    samples = [{"subject": row.entity, "object": row.object} for row in rows]
    return {"name": path.stem, "prompt_templates": prompts, "samples": samples}


def _lines(path: Path) -> Iterator[FactRow | str]:
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        if line.strip():
            yield _row(line, f"line {number}")


def _parquet(path: Path) -> Iterator[FactRow | str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except pa.ArrowException as error:
        first = str(error).splitlines()[0]
        yield f"is no Parquet file ({visible(first, one_line=True)[:120]})"
        return
    for number, row in enumerate(table.to_pylist(), start=1):
        # Parquet has a null where JSON lines leave a column out.
        present = {name: value for name, value in row.items() if value is not None}
        yield _row(json.dumps(present, default=str), f"row {number}")


def _row(text: str, place: str) -> FactRow | str:
    try:
        return FactRow.model_validate_json(text)
    except ValidationError as error:
        return f"{place}: {', '.join(_fault(each) for each in error.errors()[:2])}"


def _fault(problem: Any) -> str:
    kind, name = problem["type"], ".".join(str(part) for part in problem["loc"])
    name = visible(name, one_line=True)[:60]
    match kind:
        case "missing":
            return f"{name!r} is missing"
        case "extra_forbidden":
            return f"{name!r} is no column (known: {', '.join(FactRow.model_fields)})"
        case "json_invalid" | "model_type":
            return "is no JSON object"
        case "string_too_short":
            return f"{name!r} is empty"
        case "string_type":
            return f"{name!r} must be a string"
        case "string_too_long":
            return f"{name!r} is longer than 400 characters"
        case _:
            said = problem["msg"].removeprefix("Value error, ")
            return f"{name!r} {visible(said, one_line=True)}"
