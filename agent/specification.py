"""What an audit is asked to do: the typed specification, and its YAML file read with line numbers.

    subject: smollm2
    questions:
      - Does the subject know which city is the capital of a country?
    relations: [country_capital]
    budgets: {minutes: 8}
    gates:
      - {metric: faithfulness, relation: country_capital, at_least: 0.6}

YAML is read as data: tags, aliases and duplicate keys are refused.
"""

import difflib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Self, TypeAlias, get_args

from pydantic import Field, JsonValue, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from dragoman.core.claims import ClaimStatus
from dragoman.core.errors import UserError
from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, Record

_LARGEST_BYTES = 1 << 20
_DEEPEST = 20
_Place: TypeAlias = tuple[str | int, ...]
_Text: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Question: TypeAlias = Annotated[_Text, StringConstraints(max_length=1000)]


class Budgets(Record):
    """What the run may spend; None leaves the default of the run's kind."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Experiments that may be run."""
    tokens: Annotated[int, Field(ge=0)] | None = None
    """Chat tokens, prompt and completion together."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    usd: Annotated[float, Field(ge=0)] | None = None


class GateRule(Record):
    """A condition on the finished report; one that fails makes the exit code 1.

    Either `metric` with `at_least` or `at_most`, narrowed by `tool` and `relation`, or `claim`
    (a template's name, or words of the claim's text) with the `status` that it must have.
    """

    metric: _Text | None = None
    tool: _Text | None = None
    relation: _Text | None = None
    at_least: float | None = None
    at_most: float | None = None
    claim: _Text | None = None
    status: ClaimStatus | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if (self.metric is None) == (self.claim is None):
            raise ValueError("a gate has either 'metric' or 'claim'")
        if self.metric is not None:
            if self.at_least is None and self.at_most is None:
                raise ValueError("a gate on a metric has 'at_least' or 'at_most'")
            if self.status is not None:
                raise ValueError("'status' belongs to a gate on a claim")
        else:
            if self.status is None:
                known = ", ".join(get_args(ClaimStatus))
                raise ValueError(f"a gate on a claim has a 'status' (one of {known})")
            if (self.at_least, self.at_most) != (None, None):
                raise ValueError("'at_least' and 'at_most' belong to a gate on a metric")
        return self


class Specification(Record):
    """Everything that decides what an audit does, apart from the chat model it talks to."""

    subject: _Text = "smollm2"
    """A known name, a folder with a Hugging Face causal LM, or a hub id."""
    reference: _Text | None = None
    """A second subject to compare with, named in the same way."""
    questions: Annotated[tuple[_Question, ...], Field(min_length=1, max_length=50)]
    tools: tuple[_Text, ...] = ()
    """The only tools that may be used; empty allows all."""
    relations: tuple[_Text, ...] = ()
    """Relations to look at first: names, or paths to relation files."""
    corpus: _Text | None = None
    """Text in place of text sampled from the subject: a .txt, .jsonl or .parquet file."""
    budgets: Budgets = Budgets()
    gates: tuple[GateRule, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    quick: bool = False
    """Smaller samples and fewer layers: a first look in minutes."""


def load_specification(
    path: Path,
    *,
    known_tools: Collection[str] | None = None,
    known_relations: Collection[str] | None = None,
) -> Specification:
    """Read a specification file; a `UserError` names `file:line` and what is valid there.

    Names of tools and relations are checked where the known ones are given. Paths to relations
    and to the corpus are also looked for beside the file.
    """
    source = visible(str(path), one_line=True)
    text = _read_text(path, source)
    lines: dict[_Place, int] = {}
    values = _parse(text, source, lines)
    try:
        specification = make_specification(values)
    except ValidationError as error:
        # A misspelt key explains the missing one, not the other way round.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        where = _line_of(first["loc"], lines)
        raise UserError(f"{source}:{where}: {describe(first)}") from None
    specification = _beside(specification, path.parent)
    for kind, names, known in (
        ("tools", specification.tools, known_tools),
        ("relations", specification.relations, known_relations),
    ):
        for index, name in enumerate(names):
            if known is not None and name not in known and not _is_path(name):
                where = lines.get((kind, index), 1)
                hint = unknown(name, known, kind.removesuffix("s"))
                raise UserError(f"{source}:{where}: {hint}")
    return specification


def default_specification() -> Specification:
    """The audit that is run when nothing was asked: one question for each method."""
    return load_specification(Path(__file__).resolve().parent / "data" / "default_audit.yaml")


def make_specification(values: JsonObject) -> Specification:
    """A specification from plain values, checked strictly: no text is taken for a number."""
    return Specification.model_validate_json(json.dumps(values), strict=True)


def describe(problem: ErrorDetails) -> str:
    """One pydantic complaint in our words, with the valid names where there are some."""
    place = ".".join(str(part) for part in problem["loc"])
    name = str(problem["loc"][-1]) if problem["loc"] else ""
    match problem["type"]:
        case "extra_forbidden":
            return unknown(name, _fields_at(problem["loc"][:-1]), "key")
        case "missing":
            return f"{place!r} is missing"
        case "value_error":
            reason = problem["msg"].removeprefix("Value error, ")
            return f"{place}: {reason}" if place else reason
        case "too_short":
            return f"{place!r} is empty: name at least one"
        case _:
            reason = problem["msg"].removeprefix("Input ").removeprefix("String ")
            return f"{place!r} {reason}"


def unknown(name: str, known: Collection[str], kind: str) -> str:
    """'… is unknown', with the nearest known name and all of them."""
    near = difflib.get_close_matches(name, list(known), n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    shown = visible(name, one_line=True)
    return f"{kind} {shown!r} is unknown ({guess}known: {', '.join(sorted(known))})"


def _read_text(path: Path, source: str) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise UserError(f"{source}: larger than 1 MB; a specification is a short YAML file")
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(f"{source}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{source}: is a folder; name a YAML file") from None
    except UnicodeDecodeError:
        raise UserError(f"{source}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}") from None


def _parse(text: str, source: str, lines: dict[_Place, int]) -> JsonObject:
    yaml = YAML(typ="safe", pure=True)
    try:
        _check_depth(yaml, text, source)
        node = yaml.compose(text)
        value = None if node is None else _plain(node, (), lines, yaml, source)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{source}:{line}: not valid YAML: {error.problem}") from None
    except YAMLError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: not valid YAML: {visible(reason, one_line=True)}") from None
    if not isinstance(value, dict):
        known = ", ".join(Specification.model_fields)
        raise UserError(f"{source}:1: a specification is a mapping with the keys {known}")
    return value


def _check_depth(yaml: YAML, text: str, source: str) -> None:
    """Refuse deep nesting while it is read: composing it would take quadratic time."""
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, CollectionStartEvent):
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise UserError(f"{source}:{event.start_mark.line + 1}: nested too deep")


def _plain(
    node: Node, place: _Place, lines: dict[_Place, int], yaml: YAML, source: str
) -> JsonValue:
    """A node as plain data; `lines` learns where each place stands (1-based)."""
    line = node.start_mark.line + 1

    def refuse(reason: str, at: int = line) -> UserError:
        return UserError(f"{source}:{at}: {reason}")

    if node.anchor is not None:
        raise refuse("anchors and aliases are not read; write the value out")
    lines.setdefault(place, line)
    if isinstance(node, MappingNode) and _tag(node) == "map":
        mapping: JsonObject = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, ScalarNode) or _tag(key) != "str":
                raise refuse("a key is plain text", at)
            if key.value in mapping:
                raise refuse(f"{visible(key.value, one_line=True)!r} is given twice", at)
            lines[(*place, key.value)] = at
            mapping[key.value] = _plain(value, (*place, key.value), lines, yaml, source)
        return mapping
    if isinstance(node, SequenceNode) and _tag(node) == "seq":
        return [
            _plain(each, (*place, index), lines, yaml, source)
            for index, each in enumerate(node.value)
        ]
    if not isinstance(node, ScalarNode):
        raise refuse(f"tag {_tag(node)!r} is not read")
    return _scalar(node, refuse(f"tag {_tag(node)!r} is not read"), refuse("not a number"))


def _scalar(node: ScalarNode, bad_tag: UserError, bad_number: UserError) -> JsonValue:
    text: str = node.value
    match _tag(node):
        case "str" | "timestamp":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() in {"true", "yes", "on"}
        case "int":
            try:
                return int(text.replace("_", ""), 0)
            except ValueError:
                raise bad_number from None
        case "float":
            try:
                value = float(text.replace("_", ""))
            except ValueError:
                raise bad_number from None
            if not abs(value) < float("inf"):
                raise bad_number
            return value
        case _:
            raise bad_tag


def _tag(node: Node) -> str:
    return str(node.tag).removeprefix("tag:yaml.org,2002:")


def _line_of(location: tuple[str | int, ...], lines: dict[_Place, int]) -> int:
    """The line of the deepest part of `location` that stands in the file."""
    for length in range(len(location), -1, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return 1


def _fields_at(location: tuple[str | int, ...]) -> Collection[str]:
    match location:
        case ("budgets",):
            return Budgets.model_fields
        case ("gates", int()):
            return GateRule.model_fields
        case _:
            return Specification.model_fields


def _beside(specification: Specification, folder: Path) -> Specification:
    def found(name: str) -> str:
        beside = folder / Path(name).expanduser()
        return str(beside) if _is_path(name) and beside.exists() else name

    return specification.model_copy(
        update={
            "subject": found(specification.subject),
            "reference": specification.reference and found(specification.reference),
            "relations": tuple(map(found, specification.relations)),
            "corpus": specification.corpus and found(specification.corpus),
        }
    )


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith((".json", ".jsonl", ".txt", ".parquet"))
