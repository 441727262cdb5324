"""`@tool`: a typed function with a docstring becomes a schema, a check and a result."""

import contextlib
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_type_hints

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, create_model

from dragoman.core.errors import ToolError
from dragoman.core.files import file_sha256
from dragoman.core.records import (
    Experiment,
    JsonObject,
    SubjectKind,
    ToolResult,
    ToolSuccess,
    content_id,
)
from dragoman.tools.context import ToolContext
from dragoman.tools.relations import relation_path

Method: TypeAlias = Literal["behaviour", "captioning", "editing", "circuits", "memory"]
_FOLDER = Path(__file__).resolve().parent
_FILE_ARGUMENTS = ("captioner", "corpus", "dictionary", "facts", "images")
_RELATION_ARGUMENTS = ("relation", "relations")
Reads: TypeAlias = Callable[[Path, str, JsonObject], str]
"""`reads(home, subject_digest, arguments)`: digest of what a call reads in the data folder."""
Effort: TypeAlias = Literal["quick", "full"]
"""How much a tool spends: `quick` for a first look in a minute or two, `full` for a result."""


class Arguments(BaseModel):
    """Base of every tool's argument model: closed and strict."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Tool:
    """A technique that agent, person and script call by the same name."""

    name: str
    method: Method
    function: Callable[..., ToolSuccess]
    arguments: type[Arguments]
    description: str
    uses_chat: bool
    subjects: tuple[SubjectKind, ...] = ("language",)
    """The kinds of subject that it works on."""
    narrow: bool = False
    """It takes weights in less than float32 as well, and computes in float32 all the same."""
    reads: Reads | None = None
    """Where it reads what other calls kept in the data folder: their digest."""

    @property
    def schema(self) -> JsonObject:
        """JSON schema of the arguments, bounds and enumerations included."""
        schema: JsonObject = self.arguments.model_json_schema()
        return schema

    def parse(self, arguments: JsonObject) -> JsonObject:
        """Validated arguments with defaults filled in; `ToolError` names each bad one."""
        try:
            parsed = self.arguments.model_validate_json(json.dumps(arguments))
        except ValidationError as error:
            raise ToolError(f"{self.name}: {_complaints(error, self.arguments)}") from None
        dumped: JsonObject = parsed.model_dump(mode="json")
        return dumped

    def experiment(
        self,
        arguments: JsonObject,
        *,
        subject_digest: str,
        seed: int,
        chat: str = "",
        home: Path | None = None,
    ) -> Experiment:
        """The experiment that a call would be; its id does not depend on running it.

        `home` is the data folder: of tools that read what was kept there, a result is replayed only
        while that is the same.
        """
        code = _inputs_digest(arguments)
        if self.reads is not None and home is not None:
            code = content_id([code, self.reads(home, subject_digest, arguments)])
        return Experiment(
            tool=self.name,
            arguments=arguments,
            subject_digest=subject_digest,
            seed=seed,
            chat=chat if self.uses_chat else "",
            code=code,
        )

    def run(self, context: ToolContext, experiment: Experiment) -> ToolResult:
        """Carry out the experiment. A `ToolError` becomes a result; anything else propagates."""
        try:
            self._check_kind(context)
            success = self.function(context, **experiment.arguments)
        except ToolError as error:
            return ToolResult.failure(experiment, str(error))
        return ToolResult.success(experiment, success)

    def _check_kind(self, context: ToolContext) -> None:
        network = context.network
        if network.kind not in self.subjects:
            raise ToolError(
                f"{self.name} needs a {' or '.join(self.subjects)} subject; "
                f"{network.identity.name!r} is a {network.kind} subject"
            )
        if network.kind == "language" and not self.narrow:
            context.subject.check_wide(self.name)


def tool(
    *,
    method: Method,
    uses_chat: bool = False,
    subjects: tuple[SubjectKind, ...] = ("language",),
    narrow: bool = False,
    reads: Reads | None = None,
) -> Callable[[Callable[..., ToolSuccess]], Tool]:
    """Turn `def verb_object(context, argument: Annotated[T, Field(...)] = ...)` into a `Tool`.

    The docstring is what the agent reads; each argument's meaning and bounds stand in its Field.
    """

    def make(function: Callable[..., ToolSuccess]) -> Tool:
        hints = get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {}
        for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
            missing = parameter.default is inspect.Parameter.empty
            fields[name] = (hints[name], ... if missing else parameter.default)
        return Tool(
            name=function.__name__,
            method=method,
            function=function,
            arguments=create_model(function.__name__, __base__=Arguments, **fields),
            description=inspect.getdoc(function) or "",
            uses_chat=uses_chat,
            subjects=subjects,
            narrow=narrow,
            reads=reads,
        )

    return make


@functools.cache
def tools_digest() -> str:
    """sha256 (hex) over the source of `tools/`, prompts and data files included."""
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.rglob("*")):
        if path.suffix in {".py", ".json", ".md"}:
            digest.update(str(path.relative_to(_FOLDER)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _inputs_digest(arguments: JsonObject) -> str:
    """`tools_digest`, and with it the bytes of the files and folders that arguments name."""
    digests = [tools_digest()]
    for name, value in _named(arguments):
        # What cannot be read is told by the tool itself, better than by a digest.
        with contextlib.suppress(OSError, RuntimeError, ValueError, ToolError):
            digests += [f"{name} {file_sha256(each)}" for each in _files(name, value)]
    return digests[0] if len(digests) == 1 else content_id(list(digests))


def _files(name: str, value: str) -> list[Path]:
    if name in _RELATION_ARGUMENTS:
        path = relation_path(value)
        ours = path.is_relative_to(_FOLDER)  # and part of the tools' digest
        return [] if ours or not path.is_file() else [path]
    path = Path(value).expanduser()
    if path.is_dir():
        return [each for each in sorted(path.rglob("*")) if each.is_file()]
    return [path] if path.is_file() else []


def _named(value: JsonValue, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text under a name that may be that of a file, however deep it lies."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _named(value[key], key)
    elif isinstance(value, list):
        for each in value:
            yield from _named(each, name)
    elif isinstance(value, str) and name in (*_FILE_ARGUMENTS, *_RELATION_ARGUMENTS):
        yield name, value


def _complaints(error: ValidationError, arguments: type[Arguments]) -> str:
    known = ", ".join(arguments.model_fields) or "none"
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]) or "arguments"
        if problem["type"] == "extra_forbidden":
            lines.append(f"argument {name!r} is unknown (known: {known})")
        elif problem["type"] == "missing":
            lines.append(f"argument {name!r} is missing")
        else:
            lines.append(f"argument {name!r}: {problem['msg']}")
    return "; ".join(lines)
