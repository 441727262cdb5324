r"""Relations: true (subject, object) pairs with prompt templates, in the published JSON format.

The format is that of the relation files of Hernandez et al. 2024 (arXiv:2308.09124): `name`,
`prompt_templates` (for in-context examples), `prompt_templates_zs` (for a bare question),
`properties` {`relation_type`, `domain_name`, `range_name`, `symmetric`} and `samples`
[{`subject`, `object`}]. The published files have known faults: double-escaped characters
(`Bras\\u00edlia`), repeated pairs, subjects with several objects. Those are put right here, and
`Relation.notes` says what was done; anything else that is wrong is an error that names its place.

A person's own facts as JSON lines or Parquet (`fact_files`) are read as a relation too.
"""

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from dragoman.core.errors import ToolError
from dragoman.core.escaping import visible
from dragoman.core.records import Record
from dragoman.tools.fact_files import is_fact_file, read_fact_file, relation_document

RelationKind: TypeAlias = Literal["factual", "linguistic", "commonsense", "bias"]

RelationName: TypeAlias = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="Name of a relation, or path of a relation file",
    ),
]
"""What a tool takes for a relation; `load_relation` reads it."""

KINDS: tuple[RelationKind, ...] = ("factual", "linguistic", "commonsense", "bias")
_SHOWN_NOTES = 3
MINIMUM_SAMPLES = 8
"""Fewer leave nothing to test on once six of them are in-context examples."""
MAXIMUM_BYTES = 4 * 2**20
"""Four times the whole published collection: a larger file is something else."""
MAXIMUM_CHARACTERS = 400
"""Of one subject, object or template."""

_FOLDER = Path(__file__).resolve().parent / "data" / "relations"
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_SHOWN = 100
"""Bad samples that are named one by one: a file with more is wrong as a whole."""


class Sample(Record):
    """One fact: `subject` stands in the relation to `object`."""

    subject: str
    object: str


class Relation(Record):
    """A relation as tools use it: unique subjects, whole templates, one object each."""

    name: str
    kind: RelationKind
    prompt_templates: Annotated[tuple[str, ...], Field(min_length=1)]
    """Each holds one `{}` for the subject and ends right before the object, without a space."""
    prompt_templates_zs: Annotated[tuple[str, ...], Field(min_length=1)]
    """The same, for prompts without in-context examples."""
    samples: tuple[Sample, ...]
    domain_name: str
    range_name: str
    symmetric: bool
    notes: tuple[str, ...] = ()
    """What was put right while reading: repeated pairs, further objects, missing properties."""

    @property
    def objects(self) -> tuple[str, ...]:
        """The range: each object once, in the order of first appearance."""
        return tuple(dict.fromkeys(sample.object for sample in self.samples))


def is_prefix(token: str, target: str) -> bool:
    """Whether a predicted token names `target`, by the published rule.

    It must be, stripped and without regard to case, a non-empty prefix (section 3.2).
    """
    stripped = token.strip().casefold()
    return bool(stripped) and target.strip().casefold().startswith(stripped)


def list_relations() -> tuple[str, ...]:
    """The names of the relations that ship with Dragoman, sorted; no file is opened."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def load_relation(name_or_path: str) -> Relation:
    """A relation of ours by name (case, spaces, `-` and `_` do not matter), or a file by path.

    Raises:
        ToolError: no such relation (the message names the known ones), no readable file, or a
            file that breaks the format (the message names the place).
    """
    return read_relation(relation_path(name_or_path))


def relation_path(name_or_path: str) -> Path:
    """The file that `load_relation` reads, which need not be a relation.

    Raises:
        ToolError: no such relation, and nothing at that path.
    """
    wanted = _normal(name_or_path)
    if wanted in list_relations() and not _looks_like_path(name_or_path):
        return _FOLDER / f"{wanted}.json"
    try:
        path = Path(name_or_path).expanduser()
        if wanted and path.exists():
            return path
    except (OSError, ValueError, RuntimeError):  # name too long, NUL inside, no such home
        pass
    raise ToolError(_unknown(name_or_path))


def relation_caveats(relation: Relation) -> list[str]:
    """What the relation's file says of itself, as caveats of whatever was measured on it."""
    shown = [f"relation file: {note}" for note in relation.notes[:_SHOWN_NOTES]]
    more = len(relation.notes) - len(shown)
    if more > 0:
        shown.append(f"relation file: {more} more such notes; `dragoman relation list` shows all")
    return shown


def read_relation(path: Path) -> Relation:
    """The relation in one file; `ToolError` says in one line what is wrong with it."""
    where = f"relation file {_quoted(str(path))}"
    if path.is_dir():
        raise ToolError(f"{where} is a folder; name a .json file in it")
    if not path.is_file():
        raise ToolError(f"{where} is no regular file")
    if is_fact_file(path):
        document: Any = relation_document(path, read_fact_file(path))
        try:
            return _relation(document, fallback_name=path.stem)
        except _Fault as fault:
            raise ToolError(f"{where}: {fault}") from None
    try:
        with path.open("rb") as opened:
            data = opened.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise ToolError(f"{where} cannot be read: {error.strerror}") from None
    if len(data) > MAXIMUM_BYTES:
        raise ToolError(f"{where} is larger than {MAXIMUM_BYTES // 2**20} MiB")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ToolError(f"{where} is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ToolError(
            f"{where} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 10,000 brackets
        raise ToolError(f"{where} is not usable JSON ({type(error).__name__})") from None
    try:
        return _relation(document, fallback_name=path.stem)
    except _Fault as fault:
        raise ToolError(f"{where}: {fault}") from None


class _Fault(Exception):
    """What is wrong in a document, without the file's name."""


def _relation(document: Any, *, fallback_name: str) -> Relation:
    if not isinstance(document, dict):
        raise _Fault("the top level must be an object with 'prompt_templates' and 'samples'")
    properties = document.get("properties", {})
    if not isinstance(properties, dict):
        raise _Fault("'properties' must be an object")
    notes: list[str] = []
    kind = properties.get("relation_type")
    if kind is None:
        notes.append("properties.relation_type is missing: taken as 'factual'")
        kind = "factual"
    elif kind not in KINDS:
        raise _Fault(f"properties.relation_type is {_quoted(kind)}; it must be one of {KINDS}")
    symmetric = properties.get("symmetric", False)
    if not isinstance(symmetric, bool):
        raise _Fault("properties.symmetric must be true or false")
    templates = _templates(document.get("prompt_templates"), "prompt_templates")
    if document.get("prompt_templates_zs"):
        bare = _templates(document["prompt_templates_zs"], "prompt_templates_zs")
    else:
        notes.append("prompt_templates_zs is missing: prompt_templates stand in")
        bare = templates
    samples = _samples(document.get("samples"), notes)
    return Relation(
        name=_text(document.get("name", fallback_name), "name"),
        kind=kind,
        prompt_templates=templates,
        prompt_templates_zs=bare,
        samples=samples,
        domain_name=_text(properties.get("domain_name", "subject"), "properties.domain_name"),
        range_name=_text(properties.get("range_name", "object"), "properties.range_name"),
        symmetric=symmetric,
        notes=tuple(notes),
    )


def _templates(value: Any, field: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _Fault(f"'{field}' must be a list of at least one template")
    found = []
    for index, entry in enumerate(value):
        template = _text(entry, f"{field}[{index}]", lines=True)
        holes = template.count("{}")
        if holes != 1:
            raise _Fault(
                f"{field}[{index}] must hold exactly one {{}} for the subject, not {holes}"
            )
        if template.count("{") + template.count("}") != 2:
            raise _Fault(f"{field}[{index}] holds a brace besides its {{}}")
        found.append(template)
    return tuple(dict.fromkeys(found))


def _samples(value: Any, notes: list[str]) -> tuple[Sample, ...]:
    if not isinstance(value, list):
        raise _Fault("'samples' must be a list of {subject, object}")
    faults: list[str] = []
    kept: dict[str, tuple[int, Sample]] = {}
    for index, entry in enumerate(value):
        place = f"samples[{index}]"
        try:
            if not isinstance(entry, dict):
                raise _Fault(f"{place} must be an object with 'subject' and 'object'")
            sample = Sample(
                subject=_text(entry.get("subject"), f"{place}.subject"),
                object=_text(entry.get("object"), f"{place}.object"),
            )
        except _Fault as fault:
            faults.append(str(fault))
            continue
        key = sample.subject.casefold()
        if key not in kept:
            kept[key] = (index, sample)
            continue
        first, before = kept[key]
        if before.object.casefold() == sample.object.casefold():
            notes.append(f"{place} repeats samples[{first}]: left out")
        else:
            notes.append(
                f"{place} gives {_quoted(sample.subject)} a further object "
                f"{_quoted(sample.object)}: the first, {_quoted(before.object)}, is kept"
            )
    if faults:
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        raise _Fault("; ".join(faults[:_SHOWN]) + more)
    samples = tuple(sample for _, sample in kept.values())
    if len(samples) < MINIMUM_SAMPLES:
        raise _Fault(
            f"{len(samples)} different subjects; at least {MINIMUM_SAMPLES} samples are needed"
        )
    if len({sample.object.casefold() for sample in samples}) < 2:
        raise _Fault("all samples share one object; at least 2 different objects are needed")
    return samples


def _text(value: Any, place: str, *, lines: bool = False) -> str:
    """A clean string: escapes decoded, outer space gone, nothing that would break a prompt."""
    if value is None:
        raise _Fault(f"{place} is missing")
    if not isinstance(value, str):
        raise _Fault(f"{place} must be a string, not {type(value).__name__}")
    text = _ESCAPES.sub(_unescaped, value).strip()
    if not text:
        raise _Fault(f"{place} is empty")
    if len(text) > MAXIMUM_CHARACTERS:
        raise _Fault(f"{place} is longer than {MAXIMUM_CHARACTERS} characters")
    plain = text.replace("\n", " ") if lines else text
    if visible(plain, one_line=True) != plain or "\t" in plain:
        raise _Fault(f"{place} holds a control or hidden character: {_quoted(text)}")
    return text


def _unescaped(match: re.Match[str]) -> str:
    units = bytes.fromhex(match.group().replace("\\u", ""))
    # A lone surrogate stays one, and is then refused as a hidden character.
    return units.decode("utf-16-be", "surrogatepass")


def _normal(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().casefold()).strip("_")


def _looks_like_path(text: str) -> bool:
    return (
        text.endswith((".json", ".jsonl", ".parquet"))
        or "/" in text
        or "\\" in text
        or text.startswith("~")
    )


def _quoted(value: Any) -> str:
    text = visible(str(value), one_line=True)
    return repr(text if len(text) <= 120 else text[:117] + "...")


def _unknown(name_or_path: str) -> str:
    known = list_relations()
    bare = name_or_path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".json")
    near = difflib.get_close_matches(_normal(bare), known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = "no file" if _looks_like_path(name_or_path) else "no relation"
    return f"{what} {_quoted(name_or_path)}: {hint}known relations: {', '.join(known)}; or a path"
