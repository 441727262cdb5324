"""`dragoman relation`: the linear map behind a relation, and what follows from it."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from dragoman.agent.workbench import ChatMode
from dragoman.core.errors import ExitCode, UserError
from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject, ToolResult
from dragoman.tui.commands.heat_map import shade
from dragoman.tui.commands.one_tool import Call, run_one
from dragoman.tui.commands.output import (
    complain,
    emit_json,
    emit_table,
    emit_text,
    examples,
    help_without_command,
)
from dragoman.tui.commands.relation_folder import fit_folder

app = typer.Typer(
    name="relation",
    help="Fit, read, edit, trace and compare relations.",
    epilog=examples(
        "dragoman relation fit country_capital --quick",
        "dragoman relation lens country_capital --text 'I flew from Peru to Japan.'",
    ),
    invoke_without_command=True,
    callback=help_without_command,
    rich_markup_mode=None,
)
_Name = Annotated[
    str, typer.Argument(metavar="RELATION", help="A relation's name, or a relation file.")
]
_Subject = Annotated[str, typer.Option(help="A known subject, a model folder, or a hub id.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
_Quick = Annotated[bool, typer.Option("--quick", help="A first look, in a minute or two.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.command("list", epilog=examples("dragoman relation list", "dragoman relation list mine/"))
def list_relations(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Relation files, in place of ours.")
    ] = None,
    as_json: _Json = False,
) -> int:
    """List relations.

    Ours, or the relation files of a folder: what is wrong with a file is told, sample by sample,
    and the exit code is then 2.
    """
    from dragoman.core.errors import ToolError
    from dragoman.tools.circuits.batch import relation_files
    from dragoman.tools.relations import list_relations as ours
    from dragoman.tools.relations import load_relation, read_relation

    rows: list[dict[str, JsonValue]] = []
    notes: list[str] = []
    faults: list[str] = []
    paths = [] if folder is None else relation_files(folder)
    names = ours() if folder is None else tuple(path.as_posix() for path in paths)
    for name in names:
        try:
            relation = load_relation(name) if folder is None else read_relation(folder / name)
        except ToolError as error:
            faults.append(str(error))
            rows.append({"name": name, "fault": str(error)})
            continue
        rows.append(
            {
                "name": name,
                "kind": relation.kind,
                "samples": len(relation.samples),
                "objects": len(relation.objects),
                "template": relation.prompt_templates[0],
                "notes": list(relation.notes),
            }
        )
        notes += [f"{name}: {note}" for note in relation.notes]
    if as_json:
        emit_json({"relations": [*rows]})
    else:
        emit_table(
            ("NAME", "KIND", "SAMPLES", "OBJECTS", "TEMPLATE"),
            [
                tuple(str(row[key]) for key in ("name", "kind", "samples", "objects", "template"))
                for row in rows
                if "fault" not in row
            ],
            empty="no relation file can be read",
        )
        for note in notes:
            emit_text(note)
    for fault in faults:
        complain(fault)
    return ExitCode.WRONG_INPUT if faults else ExitCode.DONE


@app.command(
    epilog=examples(
        "dragoman relation fit country_capital --quick",
        "dragoman relation fit my_relation.json --layer 12 --json",
        "dragoman relation fit my_relations/ --out fitted --quick",
    )
)
def fit(
    relation: Annotated[
        str,
        typer.Argument(metavar="RELATION", help="A relation's name, a relation file or a folder."),
    ],
    layer: Annotated[int | None, typer.Option(min=0, help="Read and edit here only.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Table and page of a folder; also to go on with one."),
    ] = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Estimate a relation's linear map and measure it.

    Faithfulness and causality beside their controls. Of a folder and its sub-folders every relation
    file is measured, into results.jsonl, relations.jsonl, relations.parquet and relations.html; the
    same command again goes on where it stopped.
    """
    arguments: JsonObject = {"layer": layer, "effort": _effort(quick)}
    folder = Path(relation).expanduser()
    if folder.is_dir():
        target = out if out is not None else Path("relations_fitted")
        return fit_folder(folder, target, arguments, subject, seed, as_json)
    if out is not None:
        raise UserError(f"--out goes with a folder of relation files; {relation!r} is none")
    call: Call = ("approximate_relation", {"relation": relation, **arguments})
    return run_one(call, [relation], subject, seed, as_json)


@app.command(
    epilog=examples(
        "dragoman relation lens country_capital --text 'I flew from Peru to Japan.'",
        "dragoman relation lens country_capital --quick --png lens.png",
    )
)
def lens(
    relation: _Name,
    text: Annotated[
        str | None, typer.Option(help="Read this text; else a question after a false statement.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the heat map here as PNG.")
    ] = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Read a relation at every layer and token of a text.

    Also measures how often the lens names the object where the output, after a false statement,
    does not.
    """

    def draw(result: ToolResult, home: Path) -> None:
        from dragoman.tools.circuits.lens import LensMap
        from dragoman.tools.circuits.lens_tool import draw_lens

        written = next((each for each in result.artifacts if each.name == "lens.json"), None)
        if written is None:
            return
        read = LensMap.model_validate_json((home / written.path).read_bytes())
        if not as_json:
            emit_text(shade(read))
        if png is not None:
            try:
                write_atomic(png, draw_lens(read, "png"))
            except OSError as error:
                raise UserError(f"--png {png}: {error.strerror}") from None

    arguments: JsonObject = {"relation": relation, "text": text, "effort": _effort(quick)}
    return run_one(("attribute_lens", arguments), [relation], subject, seed, as_json, draw)


@app.command(
    epilog=examples(
        "dragoman relation edit country_capital --quick",
        "dragoman relation edit country_capital --entity France --new-object Tokyo",
    )
)
def edit(
    relation: _Name,
    entity: Annotated[str | None, typer.Option(help="Edit this one entity.")] = None,
    new_object: Annotated[str | None, typer.Option(help="What it is to get.")] = None,
    remedi: Annotated[
        bool, typer.Option("--remedi", help="Train REMEDI's editor beside, on the same facts.")
    ] = False,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Edit facts through the inverse of the relation's map."""
    arguments: JsonObject = {
        "relation": relation,
        "entity": entity,
        "new_object": new_object,
        "with_remedi": remedi,
        "effort": _effort(quick),
    }
    return run_one(("edit_through_relation", arguments), [relation], subject, seed, as_json)


@app.command(
    epilog=examples(
        "dragoman relation trace country_capital --quick",
        "dragoman relation trace country_capital --entity Peru",
    )
)
def trace(
    relation: _Name,
    entity: Annotated[str | None, typer.Option(help="Show this fact token by token.")] = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Find where in the subject a relation is decided."""
    arguments: JsonObject = {"relation": relation, "entity": entity, "effort": _effort(quick)}
    return run_one(("trace_fact", arguments), [relation], subject, seed, as_json)


@app.command(
    epilog=examples("dragoman relation compare country_capital country_language name_country")
)
def compare(
    relations: Annotated[
        list[str], typer.Argument(metavar="RELATION...", help="Two or more, by name or file.")
    ],
    layer: Annotated[int | None, typer.Option(min=0, help="Compare the maps here.")] = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Compare relations by what their maps read and write."""
    arguments: JsonObject = {
        "relations": [*relations],
        "layer": layer,
        "effort": _effort(quick),
    }
    return run_one(("compare_relations", arguments), relations, subject, seed, as_json)


@app.command(
    epilog=examples(
        "dragoman relation find pairs.tsv --out my_relation.json",
        "dragoman relation find pairs.tsv --template 'The mascot of {} is the'",
        "dragoman relation find countries.txt --chat local",
    )
)
def find(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Lines of a subject, a tab and its object; or of an entity alone."
        ),
    ],
    template: Annotated[
        list[str] | None, typer.Option(help="A template of your own to try; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the best relation here.")
    ] = None,
    chat: Annotated[
        ChatMode, typer.Option(help="A chat model that suggests further templates.")
    ] = "none",
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    as_json: _Json = False,
) -> int:
    """Find a relation of pairs, or of entities alone.

    Of pairs: the template through which the subject knows most of them.

    Tried are yours, a chat model's, those of our relations and general ones. Half of the pairs or
    entities choose, the other half is reported. Of entities alone the relations are kept that the
    subject answers the same way after different examples.
    """
    from dragoman.tui.commands.relation_find import Wanted, find_relation

    wanted = Wanted(file, template or [], out, subject, chat, seed)
    return find_relation(wanted, as_json=as_json)


def _effort(quick: bool) -> str:
    return "quick" if quick else "full"
