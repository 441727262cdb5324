"""`dragoman tool`: every technique by itself, without any chat model deciding."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.agent.workbench import ChatMode
from dragoman.core.errors import DragomanError, ExitCode, ToolError
from dragoman.core.events import EventSink
from dragoman.core.records import Experiment, JsonObject, ToolResult
from dragoman.tui.commands.output import (
    complain,
    emit,
    emit_json,
    emit_table,
    emit_text,
    examples,
    help_without_command,
    results_only,
)

if TYPE_CHECKING:
    from dragoman.tools.registry import Tool

app = typer.Typer(
    name="tool",
    help="List, describe and run single techniques.",
    epilog=examples("dragoman tool list", "dragoman tool describe approximate_relation"),
    invoke_without_command=True,
    callback=help_without_command,
    rich_markup_mode=None,
)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The tool's name.")]


@app.command("list", epilog=examples("dragoman tool list --json"))
def list_tools(as_json: _Json = False) -> None:
    """List the tools."""
    with results_only():
        from dragoman.tools.catalogue import TOOLS
    if as_json:
        emit_json(
            [
                {"name": tool.name, "method": tool.method, "summary": _first_line(tool)}
                for tool in TOOLS.values()
            ]
        )
        return
    emit_table(
        ("NAME", "METHOD", "WHAT IT DOES"),
        [(tool.name, tool.method, _first_line(tool)) for tool in TOOLS.values()],
        empty="there are no tools",
    )


@app.command(epilog=examples("dragoman tool describe caption_neurons"))
def describe(name: _Name, as_json: _Json = False) -> None:
    """Show what a tool does and takes."""
    tool = _find(name)
    if as_json:
        emit_json(
            {
                "name": tool.name,
                "method": tool.method,
                "description": tool.description,
                "uses_chat": tool.uses_chat,
                "arguments": tool.schema,
            }
        )
        return
    emit(f"{tool.name} ({tool.method})\n\n{tool.description}\n\nArguments:")
    emit_table(("NAME", "TYPE", "DEFAULT", "MEANING"), _argument_rows(tool.schema), empty="  none")


@app.command(
    epilog=examples(
        'dragoman tool run approximate_relation --args \'{"relation": "country_capital"}\' --json',
        'dragoman tool run predict_next --args \'{"prompt": "The capital of France is"}\'',
    )
)
def run(
    name: _Name,
    args: Annotated[
        str, typer.Option("--args", metavar="JSON", help="The arguments, as one JSON object.")
    ] = "{}",
    subject: Annotated[
        str, typer.Option(help="A known subject, a model folder, or a hub id.")
    ] = "smollm2",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    chat: Annotated[
        ChatMode, typer.Option(help="A chat model for the tools that can use one.")
    ] = "none",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one ToolResult as JSON and nothing else.")
    ] = False,
) -> int:
    """Run one experiment.

    No chat model takes part unless --chat names one. Exit code 2 when the tool refuses its
    arguments.
    """
    arguments: JsonObject = {}
    try:
        arguments = _parse(args)
        with results_only():
            result = _run(name, arguments, subject, seed, chat)
    except DragomanError as error:
        if not as_json:
            raise
        refused = Experiment(tool=name, arguments=arguments, subject_digest="", seed=seed)
        result = ToolResult.failure(refused, str(error))
        emit_json(result.model_dump(mode="json"))
        complain(str(error))
        return error.exit_code
    if as_json:
        emit_json(result.model_dump(mode="json"))
    if result.status == "error":
        complain(result.error or result.summary)
        return ExitCode.WRONG_INPUT
    if not as_json:
        show_result(result)
    return ExitCode.DONE


def _run(name: str, arguments: JsonObject, subject: str, seed: int, chat: ChatMode) -> ToolResult:
    from dragoman.core.settings import load_settings
    from dragoman.tui.commands.live import run_display

    tool = _find(name)
    tool.parse(arguments)  # a wrong argument is told before any weights are loaded
    from dragoman.agent.workbench import open_workbench

    with run_display() as display:
        sink: EventSink = display.on_event
        with open_workbench(
            load_settings(),
            subject=subject,
            chat=chat if tool.uses_chat else "none",
            on_event=sink,
        ) as bench:
            return bench.run_tool(name, arguments, seed=seed, on_event=sink)


def _find(name: str) -> "Tool":
    from dragoman.agent.specification import unknown

    with results_only():
        from dragoman.tools.catalogue import TOOLS
    if name not in TOOLS:
        raise ToolError(unknown(name, list(TOOLS), "tool"))
    return TOOLS[name]


def _parse(text: str) -> JsonObject:
    """The argument object; a `ToolError` shows where the text stops being JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        value = json.loads(text, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8
    except RecursionError:
        raise ToolError("--args: nested too deep") from None
    except ValueError as error:
        raise ToolError(f"--args is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ToolError('--args: give one JSON object, such as \'{"relation": "plural"}\'')
    return value


def _first_line(tool: "Tool") -> str:
    return tool.description.split("\n\n")[0].replace("\n", " ")


def _argument_rows(schema: JsonObject) -> list[tuple[str, str, str, str]]:
    properties, required = schema.get("properties"), schema.get("required") or []
    if not isinstance(properties, dict) or not isinstance(required, list):
        return []
    rows = []
    for name, field in properties.items():
        described = field if isinstance(field, dict) else {}
        default = "required" if name in required else json.dumps(described.get("default"))
        rows.append((f"  {name}", _kind(described), default, str(described.get("description", ""))))
    return rows


def _kind(field: JsonObject) -> str:
    """A schema's type in a few words: 'integer 0..12', 'quick | full', 'list of string'."""
    choices = field.get("enum") or ([field["const"]] if "const" in field else None)
    if isinstance(choices, list):
        return " | ".join(str(choice) for choice in choices)
    options = field.get("anyOf")
    if isinstance(options, list):
        return " or ".join(_kind(option) for option in options if isinstance(option, dict))
    kind = str(field.get("type", "any"))
    items = field.get("items")
    if kind == "array":
        return f"list of {_kind(items) if isinstance(items, dict) else 'any'}"
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if low is None and high is None:
        return kind
    return f"{kind} {'' if low is None else low}..{'' if high is None else high}"


def show_result(result: ToolResult) -> None:
    emit_text(result.summary)
    emit_table(
        ("METRIC", "VALUE", "95% INTERVAL", "N", "CONTROL", "SCOPE"),
        [
            (
                each.metric,
                f"{each.value:.3f} {each.unit}",
                f"{each.ci95[0]:.3f} to {each.ci95[1]:.3f}",
                f"{each.n}" + (f" ({each.n_failed} failed)" if each.n_failed else ""),
                f"{each.baseline:.3f} {each.control}",
                each.scope,
            )
            for each in (*result.measurements, *result.controls)
        ],
        empty="no measurements",
    )
    if result.output:
        emit(json.dumps(result.output, indent=2))
    for caveat in result.caveats:
        emit_text(f"caveat: {caveat}")
    for artifact in result.artifacts:
        emit(f"file: {artifact.path}")
