"""The shelf of reports: one folder each with `report.json`, and what is rendered from it.

`report.json` is the report; `report.md` and `report.html` are made from it and from the plots in
the data folder, byte for byte the same each time.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

from pydantic import ValidationError

from dragoman.agent.rendering.html import render_html
from dragoman.agent.rendering.markdown import render_markdown
from dragoman.agent.report_check import require_sound
from dragoman.core.errors import IntegrityError, UserError
from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject
from dragoman.core.report import SCHEMA_VERSION, Report, ReportRow

Format: TypeAlias = Literal["json", "md", "html"]
_SHOWN_IDS = 5


class Damaged(NamedTuple):
    """A report that cannot be read, and why."""

    id: str
    reason: str


class ReportShelf:
    """The reports of one data folder, under their ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, report: Report, artifacts_home: Path) -> Path:
        """Check `report`, write its three files and return its folder.

        Artifact paths are relative to `artifacts_home`, the data folder. The folder appears whole
        or not at all; one that is there already is brought up to date file by file, the JSON
        first. Raises `IntegrityError` for a report that does not hold.
        """
        require_sound(report)
        files = {
            "report.json": report_json(report),
            "report.md": render_markdown(report),
            "report.html": render_html(report, artifacts_home),
        }
        target = self.folder / report.id
        if target.is_dir():
            for name, content in files.items():
                write_atomic(target / name, content)
            return target
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in self.folder.glob(f".{report.id}.*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{report.id}."))
        try:
            for name, content in files.items():
                write_atomic(unfinished / name, content)
            unfinished.chmod(0o755)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return target

    def rows(self) -> list[ReportRow]:
        """Every readable report, the latest first; see `damaged` for the others."""
        return self._survey()[0]

    def damaged(self) -> list[Damaged]:
        """The reports that `rows` leaves out."""
        return self._survey()[1]

    def load(self, report_id: str) -> Report:
        """The report of that id, or of the one id that begins so.

        Raises `UserError` for none or several, `IntegrityError` for a damaged file.
        """
        return self._read(self._resolve(report_id))

    def export(self, report_id: str, format: Format) -> str:
        """The text of one of a report's files.

        Raises as `load`, and `IntegrityError` where the rendered file is missing.
        """
        found = self._resolve(report_id)
        report = self._read(found)
        if format == "json":
            return report_json(report)
        path = self.folder / found / f"report.{format}"
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise IntegrityError(
                f"{path}: cannot be read ({error}); the report itself is whole: export it as json"
            ) from None

    def _ids(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )

    def _resolve(self, report_id: str) -> str:
        # Compared with the names that are there, never joined to a path: an id cannot lead outside.
        known = self._ids()
        if report_id in known:
            return report_id
        matches = [each for each in known if report_id and each.startswith(report_id)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(f"report {report_id!r} could be {_some(matches)}: give more of its id")
        if not known:
            raise UserError(
                f"no report {report_id!r}: there are none yet; `dragoman audit` makes one"
            )
        raise UserError(
            f"no report {report_id!r}: known are {_some(known)}; see `dragoman report list`"
        )

    def _survey(self) -> tuple[list[ReportRow], list[Damaged]]:
        rows: list[ReportRow] = []
        damaged: list[Damaged] = []
        for report_id in self._ids():
            try:
                rows.append(_row(self._read(report_id)))
            except IntegrityError as error:
                damaged.append(Damaged(report_id, str(error)))
        return sorted(rows, key=lambda row: (row.finished, row.id), reverse=True), damaged

    def _read(self, report_id: str) -> Report:
        path = self.folder / report_id / "report.json"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise IntegrityError(f"{path}: {error.strerror}") from None
        report = parse_report(content, str(path))
        if report.id != report_id:
            raise IntegrityError(f"{path}: is report {report.id!r}, not {report_id!r}")
        return report


def report_json(report: Report) -> str:
    """The file's text. ASCII: what is hidden in a string shows as its escape in any terminal."""
    return json.dumps(report.model_dump(mode="json"), indent=2, ensure_ascii=True) + "\n"


def parse_report(content: str | bytes, name: str) -> Report:
    """The report in a file called `name`; `IntegrityError` for anything else."""
    try:
        value = json.loads(content, parse_constant=_no_constant)
    # RecursionError: brackets nested without end; ValueError: no JSON, no UTF-8, endless digits.
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{name}: is damaged ({error})") from None
    _require_version(value, name)
    try:
        return Report.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise IntegrityError(f"{name}: is damaged ({where}: {first['msg']})") from None


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _require_version(value: Any, name: str) -> None:
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(version, str):
        raise IntegrityError(f"{name}: is damaged (no schema_version)")
    if version != SCHEMA_VERSION:
        raise IntegrityError(
            f"{name}: has schema {version[:20]!r}; this version of Dragoman reads {SCHEMA_VERSION}"
        )


def report_schema() -> JsonObject:
    """The public JSON schema (draft 2020-12) of `report.json`; its version stands in its `$id`."""
    schema: JsonObject = Report.model_json_schema(mode="serialization")
    properties = schema["properties"]
    assert isinstance(properties, dict)
    properties["schema_version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:dragoman:report:{SCHEMA_VERSION}",
        **schema,
    }


def _row(report: Report) -> ReportRow:
    return ReportRow(
        id=report.id,
        question="; ".join(report.questions),
        subject=report.subject.name,
        finished=report.finished,
        outcome=report.outcome,
        n_claims=len(report.claims),
    )


def _some(ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    return ", ".join(repr(each) for each in ids[-_SHOWN_IDS:]) + more
