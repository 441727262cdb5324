"""`dragoman relation`: the linear map behind a relation, and what follows from it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue

from dragoman.core.errors import ExitCode, Interrupted, UserError
from dragoman.core.events import EventSink, Notice
from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject, ToolResult, content_id
from dragoman.tui.commands.interrupt import stoppable
from dragoman.tui.commands.one_tool import run_one
from dragoman.tui.commands.output import (
    complain,
    emit,
    emit_json,
    emit_table,
    emit_text,
    examples,
    help_without_command,
    results_only,
    say,
)

if TYPE_CHECKING:
    from dragoman.core.protocols import Cancelled
    from dragoman.tools.circuits.batch import RelationRow
    from dragoman.tools.circuits.lens import LensMap

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
    faults: list[str] = []
    paths = [None] * len(ours()) if folder is None else relation_files(folder)
    names = ours() if folder is None else tuple(path.name for path in paths if path)
    for name, path in zip(names, paths, strict=True):
        try:
            relation = load_relation(name) if path is None else read_relation(path)
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

    Faithfulness and causality beside their controls. Of a folder every .json file is measured, into
    results.jsonl, relations.jsonl, relations.parquet and relations.html; the same command again
    goes on where it stopped.
    """
    arguments: JsonObject = {"layer": layer, "effort": _effort(quick)}
    folder = Path(relation).expanduser()
    if folder.is_dir():
        target = out if out is not None else Path("relations_fitted")
        return _fit_folder(folder, target, arguments, subject, seed, as_json)
    if out is not None:
        raise UserError(f"--out goes with a folder of relation files; {relation!r} is none")
    call = ("approximate_relation", {"relation": relation, **arguments})
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
    )
)
def find(
    pairs: Annotated[
        Path, typer.Argument(metavar="FILE", help="A line for each pair: subject, tab, object.")
    ],
    template: Annotated[
        list[str] | None, typer.Option(help="A template of your own to try; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the relation file here.")
    ] = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    as_json: _Json = False,
) -> int:
    """Find the template that draws most of some pairs.

    Tried are yours, those of our relations and general ones. Half of the pairs choose, the other
    half is reported.
    """
    from dragoman.core.settings import load_settings
    from dragoman.tui.commands.live import byte_progress

    rows = _read_pairs(pairs)
    with results_only(), byte_progress() as progress:
        from dragoman.core.errors import ToolError
        from dragoman.tools.circuits.finding import candidate_templates, find_template
        from dragoman.tools.relations import Sample
        from dragoman.tools.subjects.huggingface import load_subject

        samples = [Sample(subject=left, object=right) for left, right in rows]
        try:
            found = find_template(
                load_subject(subject, load_settings()),
                samples,
                candidate_templates(template or []),
                seed,
                # Counts of templates are no bytes: the bar shows words alone.
                lambda done, total, text: progress(0, 0, f"{text}: {done} of {total}"),
            )
        except ToolError as error:
            raise UserError(str(error)) from None
    best, known = found.tried[0], found.known
    if out is not None:
        document: JsonObject = {
            "name": pairs.stem,
            "prompt_templates": [best.template],
            "samples": [{"subject": left, "object": right} for left, right in rows],
        }
        try:
            write_atomic(out, json.dumps(document, ensure_ascii=False, indent=1))
        except OSError as error:
            raise UserError(f"--out {out}: {error.strerror}") from None
    if as_json:
        tried: list[JsonValue] = [{**each._asdict()} for each in found.tried]
        emit_json({"known": known.model_dump(mode="json"), "tried": tried})
    else:
        emit_table(
            ("TEMPLATE", "KNOWN OF CHOOSING PAIRS"),
            [(each.template, f"{each.share:.2f}") for each in found.tried[:8]],
            empty="no template was tried",
        )
        emit_text(
            f"{best.template!r}: {known.value:.2f} of {known.n} other pairs are known "
            f"({known.control}: {known.baseline:.2f})"
        )
    return ExitCode.DONE


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    """Pairs of a tab-separated file; `UserError` names the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    rows: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        left, _, right = (part.strip() for part in line.partition("\t"))
        if not left or not right or "\t" in right:
            raise UserError(f"{path}, line {number}: must be a subject, one tab and an object")
        rows.setdefault(left, right)
    return list(rows.items())


def shade(read: "LensMap") -> str:
    """The heat map in characters: a line for each layer, a column for each token."""
    cells = read.object_probability or read.probability
    what = f"probability of {read.object!r}" if read.object else "probability of the best token"
    lines = [f"{what}: ' ' 0  '░' .2  '▒' .4  '▓' .6  '█' .8 and more"]
    for layer, row in reversed(list(zip(read.layers, cells, strict=True))):
        lines.append(f"{layer:>4} " + "".join(" ░▒▓█"[min(4, int(cell * 5))] * 2 for cell in row))
    lines += [
        f"{place:>4} {token!r}: the output says {said!r}, layer {read.layers[best]} reads {word!r}"
        for place, (token, said) in enumerate(zip(read.tokens, read.output, strict=True))
        for best in [max(range(len(cells)), key=lambda at: cells[at][place])]
        for word in [read.read[best][place][0]]
    ]
    return "\n".join(lines)


def _effort(quick: bool) -> str:
    return "quick" if quick else "full"


def _fit_folder(
    folder: Path, out: Path, arguments: JsonObject, subject: str, seed: int, as_json: bool
) -> int:
    from dragoman.core.settings import load_settings
    from dragoman.tools.circuits.batch import relation_files
    from dragoman.tui.commands.live import run_display

    files = relation_files(folder)
    settings = load_settings()
    with results_only(), run_display() as display:

        def stopping() -> None:
            display.say("stopping at the next step; Ctrl-C again ends at once", "yellow")

        with stoppable(stopping, display.restore) as cancelled:
            try:
                rows = _measure(files, out, arguments, subject, seed, display.on_event, cancelled)
            except Interrupted:
                say(f"the finished rows are in {out}: the same command goes on from there")
                raise
        from dragoman.tools.circuits.page import write_page
        from dragoman.tools.circuits.table import flat, write_table

        title = f"{len(rows)} relations of {folder.resolve().name} on {subject}"
        written = [*write_table(out, rows), write_page(out, rows, title, settings.home)]
    faults = [row.fault for row in rows if row.fault]
    if as_json:
        paths: list[JsonValue] = [str(path) for path in written]
        emit_json({"relations": [flat(row) for row in rows], "files": paths})
    else:
        _show_rows(rows)
        for path in written:
            emit(str(path))
    for fault in faults:
        complain(fault)
    return ExitCode.WRONG_INPUT if faults else ExitCode.DONE


def _measure(
    files: Sequence[Path],
    out: Path,
    arguments: JsonObject,
    subject: str,
    seed: int,
    sink: EventSink,
    cancelled: "Cancelled",
) -> "list[RelationRow]":
    from dragoman.agent.workbench import open_workbench
    from dragoman.core.protocols import stop_if
    from dragoman.core.settings import load_settings
    from dragoman.tools.circuits.batch import run_batch
    from dragoman.tools.registry import tools_digest

    with open_workbench(load_settings(), subject=subject, on_event=sink) as bench:
        key = content_id(
            {
                "subject": bench.subject.identity.digest,
                "arguments": arguments,
                "seed": seed,
                "code": tools_digest(),
            }
        )

        def run(path: Path) -> ToolResult:
            given: JsonObject = {"relation": str(path.resolve()), **arguments}
            return bench.run_tool(
                "approximate_relation", given, seed=seed, on_event=sink, cancelled=cancelled
            )

        def step(done: int, total: int, text: str) -> None:
            stop_if(cancelled)
            sink(Notice(text=text))

        try:
            return run_batch(files, out, key, run, step)
        except OSError as error:
            raise UserError(f"--out {out}: {error.strerror}") from None


def _show_rows(rows: "Sequence[RelationRow]") -> None:
    from dragoman.tools.circuits.table import METRICS, flat

    def cell(value: JsonValue) -> str:
        return f"{value:.2f}" if isinstance(value, float) else "-"

    table = []
    for row in rows:
        found = flat(row)
        numbers = [cell(found[metric]) for metric in METRICS]
        table.append((row.file, row.relation, row.kind or "-", *numbers))
    header = ("FILE", "RELATION", "KIND", *(metric.upper() for metric in METRICS))
    emit_table(header, table, empty="no relations")
