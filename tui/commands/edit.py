"""`dragoman edit`: change what a subject believes, and foresee where it errs."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dragoman.core.errors import ExitCode, UserError
from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject, ToolResult
from dragoman.tui.commands.one_tool import run_one
from dragoman.tui.commands.output import (
    emit,
    emit_json,
    emit_table,
    emit_text,
    examples,
    help_without_command,
    results_only,
)
from dragoman.tui.commands.side_by_side import show_edit, show_texts

if TYPE_CHECKING:
    from dragoman.tools.editing.detection.shelf import Shelved

app = typer.Typer(
    name="edit",
    help="Edit what a subject believes, and foresee where it errs.",
    epilog=examples(
        "dragoman edit train country_capital --quick",
        "dragoman edit apply country_capital --entity France --new-object Rome --quick",
        "dragoman edit text --edit country_capital:France=Rome 'France is proud of its capital,'",
        "dragoman edit detect facts.jsonl --relation country_capital --out risks.parquet",
    ),
    invoke_without_command=True,
    callback=help_without_command,
    rich_markup_mode=None,
)
_RELATION_HELP = "A relation's name, a relation file, or your own facts (.jsonl, .parquet)."
_Relation = Annotated[str, typer.Argument(metavar="RELATION", help=_RELATION_HELP)]
_Layer = Annotated[int | None, typer.Option(min=0, help="Edit at this layer only.")]
_Subject = Annotated[str, typer.Option(help="A known subject, a model folder, or a hub id.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
_Quick = Annotated[bool, typer.Option("--quick", help="A first look, in a minute or two.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_FILES = {"risks.json", "facts.json"}


@app.command(
    epilog=examples(
        "dragoman edit train country_capital --quick",
        "dragoman edit train my_facts.jsonl --layer 13",
    )
)
def train(
    relation: _Relation,
    layer: _Layer = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Train an editor and measure it on entities that it never saw.

    Beside every baseline. The editor is kept, and found again by the same command and by `apply`:
    Ctrl-C loses at most the one in training, and nothing half-trained is kept. `dragoman tool run
    edit_representation` measures paraphrases, text and collateral of the same editor as well.
    """
    arguments: JsonObject = {"relation": relation, "layer": layer, "effort": _effort(quick)}
    return run_one(("train_editor", arguments), [relation], subject, seed, as_json)


@app.command(
    epilog=examples("dragoman edit apply country_capital --entity France --new-object Rome --quick")
)
def apply(
    relation: _Relation,
    entity: Annotated[str, typer.Option(help="Whose representation is edited.")],
    new_object: Annotated[str, typer.Option(help="What it is to have from then on.")],
    layer: _Layer = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Edit one entity: the text before and after, side by side.

    The probabilities that moved stand below.
    """
    arguments: JsonObject = {
        "relation": relation,
        "entity": entity,
        "new_object": new_object,
        "layer": layer,
        "effort": _effort(quick),
    }
    call = ("edit_representation", arguments)
    return run_one(call, [relation], subject, seed, as_json, show=_show_edit)


@app.command(
    epilog=examples(
        "dragoman edit text --edit country_capital:France=Rome 'France is proud of its capital,'",
        "dragoman edit text --edit country_capital:France=Rome --edit country_capital:Japan=Cairo "
        "'The capitals of France and Japan are' --tokens all",
    )
)
def text(
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT...", help="Texts that mention the edited entities."),
    ],
    edit: Annotated[
        list[str],
        typer.Option(
            metavar="RELATION:ENTITY=OBJECT",
            help="What an entity is to have from then on; again for each further edit.",
        ),
    ],
    occurrence: Annotated[
        Literal["first", "last", "all"], typer.Option(help="Which mention of a name is edited.")
    ] = "all",
    tokens: Annotated[
        Literal["last", "all"], typer.Option(help="Which tokens of a mention are edited.")
    ] = "last",
    layer: _Layer = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Continue your own texts with several edits at once.

    Several entities, or several relations of one entity. Editors are trained, or found again, with
    the edited entities held out. Beside each text: the unedited one, and the same facts stated
    before it; below, every baseline.
    """
    edits = [_edit(each) for each in edit]
    arguments: JsonObject = {
        "edits": [{**each} for each in edits],
        "texts": [*texts],
        "occurrence": occurrence,
        "tokens": tokens,
        "layer": layer,
        "effort": _effort(quick),
    }
    relations = list(dict.fromkeys(each["relation"] for each in edits))
    return run_one(("edit_text", arguments), relations, subject, seed, as_json, show=_show_texts)


@app.command(
    epilog=examples(
        "dragoman edit detect country_capital --quick",
        "dragoman edit detect facts.jsonl --relation country_capital --out risks.parquet",
        "dragoman edit detect country_capital --entity France --object Paris --quick",
    )
)
def detect(
    facts: Annotated[
        str,
        typer.Argument(
            metavar="FACTS", help="Your own facts (.jsonl, .parquet), or a relation's name."
        ),
    ],
    relation: Annotated[
        str | None,
        typer.Option(help="The relation that the facts are of; else the file stands for itself."),
    ] = None,
    question: Annotated[
        Literal["prior", "contextual"],
        typer.Option(help="The subject's own memory, or what a sentence before it says."),
    ] = "prior",
    entity: Annotated[
        str | None, typer.Option(help="With --object: the risk of this one fact.")
    ] = None,
    stated: Annotated[
        str | None, typer.Option("--object", help="What the one fact states of the entity.")
    ] = None,
    new_object: Annotated[
        str | None,
        typer.Option(help="For --question contextual: what the sentence gives the entity."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the table here, as .jsonl or .parquet."),
    ] = None,
    subject: _Subject = "smollm2",
    seed: _Seed = 0,
    quick: _Quick = False,
    as_json: _Json = False,
) -> int:
    """Foresee which facts the subject gets wrong.

    Each fact gets a risk and the reason, by a probe that did not learn from its entity; how far the
    probe can be trusted is measured beside the subject's own confidence. What was trained is kept:
    further facts of the relation take one pass.
    """
    if out is not None and out.suffix.lower() not in (".jsonl", ".parquet"):
        raise UserError(f"--out {out}: must end in .jsonl or .parquet")
    own = facts.lower().endswith((".jsonl", ".parquet"))
    if relation is not None and not own:
        raise UserError(f"--relation goes with a file of facts; {facts!r} is none")
    arguments: JsonObject = {
        "relation": relation or facts,
        "question": question,
        "facts": facts if own else None,
        "effort": _effort(quick),
        "entity": entity,
        "object": stated,
        "new_object": new_object,
    }
    if own and (entity or stated):
        raise UserError("--entity and --object go with a relation's name, not with a file of facts")
    if (entity is None) != (stated is None):
        raise UserError("--entity and --object go together: both, or neither")

    def keep(result: ToolResult, home: Path) -> None:
        if out is None:
            return
        from dragoman.tools.editing.detection.table import risk_table

        rows = _rows(result, home)
        try:
            write_atomic(out, risk_table(rows, out.suffix.lower()))
        except OSError as error:
            raise UserError(f"--out {out}: {error.strerror}") from None
        if not as_json:
            emit(f"table: {out} ({len(rows)} facts)")

    call = ("detect_errors", arguments)
    relations = [str(arguments["relation"])]
    return run_one(
        call,
        relations,
        subject,
        seed,
        as_json,
        keep,
        show=_show_risks,
        facts=Path(facts).expanduser() if own else None,
    )


@app.command("list", epilog=examples("dragoman edit list", "dragoman edit list --json"))
def list_kept(as_json: _Json = False) -> int:
    """List the trained editors and detectors that are kept."""
    from dragoman.core.settings import load_settings

    with results_only():
        from dragoman.tools.editing.detection.shelf import shelved

        found: list[Shelved] = shelved(load_settings().cache_folder)
    if as_json:
        emit_json([each.model_dump(mode="json") for each in found])
        return ExitCode.DONE
    emit_table(
        ("KIND", "ID", "RELATION", "SUBJECT", "LAYER", "SEED", "MEASURED", "TRAINED"),
        [
            (
                each.kind,
                each.id[:12],
                each.relation,
                each.subject_digest[:12],
                str(each.layer),
                str(each.seed),
                f"{each.metric} {each.value:.2f}",
                each.trained,
            )
            for each in found
        ],
        empty="nothing is kept yet: `dragoman edit train RELATION` trains an editor, "
        "`dragoman edit detect RELATION` a detector",
    )
    return ExitCode.DONE


def _edit(written: str) -> dict[str, str]:
    relation, _, rest = written.partition(":")
    entity, _, new_object = rest.rpartition("=")
    if not (relation and entity and new_object):
        raise UserError(
            f"--edit {written!r}: write it as RELATION:ENTITY=OBJECT (names that hold ':' or '=' "
            "go through `dragoman tool run edit_text`)"
        )
    return {"relation": relation, "entity": entity, "new_object": new_object}


def _effort(quick: bool) -> str:
    return "quick" if quick else "full"


def _show_edit(result: ToolResult, home: Path) -> None:
    emit_text(result.summary)
    emit("")
    width = shutil.get_terminal_size((100, 24)).columns
    for line in show_edit(result.output, min(width, 120)):
        emit(line)
    emit("")
    _show_numbers(result)


def _show_texts(result: ToolResult, home: Path) -> None:
    emit_text(result.summary)
    width = shutil.get_terminal_size((100, 24)).columns
    for line in show_texts(result.output, min(width, 120)):
        emit(line)
    emit("")
    _show_numbers(result, controls=True)


def _show_risks(result: ToolResult, home: Path) -> None:
    emit_text(result.summary)
    emit("")
    rows = _rows(result, home)
    emit_table(
        ("RISK", "ERROR FORESEEN", "ENTITY", "STATED", "SUBJECT SAYS", "REASON"),
        [
            (
                "-" if row["risk"] is None else f"{row['risk']:.2f}",
                {True: "yes", False: "no", None: "-"}[row["error_foreseen"]],
                str(row["entity"]),
                str(row["object"]),
                str(row["answered"] or "-"),
                str(row["reason"]),
            )
            for row in sorted(rows, key=_by_risk)[:40]
        ],
        empty="no fact was scored",
    )
    if len(rows) > 40:
        emit(f"… and {len(rows) - 40} more: --out FILE writes them all")
    emit("")
    _show_numbers(result)


def _show_numbers(result: ToolResult, *, controls: bool = False) -> None:
    emit_table(
        ("METRIC", "VALUE", "95% INTERVAL", "N", "CONTROL"),
        [
            (
                each.metric + (f" ({each.scope})" if each.scope else ""),
                f"{each.value:.2f}",
                f"{each.ci95[0]:.2f} to {each.ci95[1]:.2f}",
                f"{each.n}" + (f" ({each.n_failed} failed)" if each.n_failed else ""),
                f"{each.baseline:.2f} {each.control}",
            )
            for each in (*result.measurements, *(result.controls if controls else ()))
        ],
        empty="no measurements",
    )
    for caveat in result.caveats:
        emit_text(f"caveat: {caveat}")


def _by_risk(row: dict[str, Any]) -> float:
    risk = row["risk"]
    return 1.0 if risk is None else -float(risk)


def _rows(result: ToolResult, home: Path) -> list[dict[str, Any]]:
    """The facts that were asked for; else every tested fact."""
    written = {each.name: home / each.path for each in result.artifacts if each.name in _FILES}
    path = written.get("facts.json") or written["risks.json"]
    rows: list[dict[str, Any]] = json.loads(path.read_bytes())
    return rows
