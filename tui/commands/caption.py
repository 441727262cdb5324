"""`dragoman caption`: captions for thousands of units, left as rows, a table and a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.agent.batch_captions import BatchOutcome, BatchRequest, Kind, caption_all
from dragoman.agent.workbench import ChatMode
from dragoman.core.errors import ExitCode
from dragoman.tui.commands.interrupt import stoppable
from dragoman.tui.commands.output import emit, emit_json, emit_text, examples, results_only, say
from dragoman.tui.commands.unit_options import DictionaryOption, SeedOption, SubjectArgument

if TYPE_CHECKING:
    from dragoman.core.settings import Settings

EXAMPLES = examples(
    "dragoman caption smollm2 --layers 12 --units 0-63",
    "dragoman caption smollm2 --layers 3-8 --chat none --out captions/smollm2",
    "dragoman caption smollm2 --layers 3-8 --chat none --out captions/smollm2 --resume",
    "dragoman caption efficientnet-lite0 --images photos --layers 9 --units 0-63 --chat none",
)


def caption(
    subject: SubjectArgument,
    layers: Annotated[
        str | None,
        typer.Option(metavar="RANGE", help="Layers, such as 3-8 or 0,4; else the middle one."),
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(metavar="RANGE", help="Units of each layer, such as 0-31,77; else all."),
    ] = None,
    kind: Annotated[
        Kind,
        typer.Option(
            help="MLP neurons, components of the residual stream, attention heads, or latents; a "
            "vision subject's units are channels."
        ),
    ] = "mlp",
    dictionary: DictionaryOption = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Your own texts: a file, or a dataset on disk. More than 1000 are read whole, "
            "for quantiles and strongest contexts.",
        ),
    ] = None,
    exemplars: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE", help="In place of texts: what `dragoman exemplars` left of some."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A vision subject's images; else the probe set."),
    ] = None,
    captioner: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="For a vision subject: a local image-to-text model that proposes captions too.",
        ),
    ] = None,
    chat: Annotated[
        ChatMode,
        typer.Option(
            help="The chat model that proposes captions too; auto: an endpoint if configured, "
            "else none."
        ),
    ] = "auto",
    pmi: Annotated[
        bool, typer.Option("--pmi/--no-pmi", help="Weigh captions by how common they are.")
    ] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="A fifth of the texts, a quarter of the images.")
    ] = False,
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Also the random twin and the causal check: much slower."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the files go; else a folder named by the run."),
    ] = None,
    seed: SeedOption = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run of the same settings.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Say in words what many units respond to.

    Leaves captions.jsonl, captions.parquet and captions.html, a page to browse. Each unit's row
    is on the disk as soon as it is done: Ctrl-C, a kill or a full disk lose nothing but the units
    in hand, and --resume goes on exactly.
    """
    from dragoman.core.settings import load_settings

    request = BatchRequest(
        layers=layers,
        units=units,
        kind=kind,
        dictionary=dictionary,
        corpus=corpus,
        exemplars=exemplars,
        images=images,
        captioner=captioner,
        quick=quick,
        pmi=pmi,
        thorough=thorough,
        seed=seed,
        out=out,
        resume=resume,
    )
    settings = load_settings()
    if chat == "auto":
        # The local model is slow, and what it adds to the search was measured to be nothing.
        chat = "endpoint" if settings.endpoint_configured else "none"
    with results_only():
        outcome = _run(settings, subject, chat, request)
    code = ExitCode.DONE if outcome.outcome == "done" else ExitCode.INTERRUPTED
    if as_json:
        emit_json(outcome.model_dump(mode="json") | {"exit_code": int(code)})
    else:
        _show(outcome)
    if code is ExitCode.INTERRUPTED:
        say("the same command with --resume goes on")
    return code


def _run(settings: "Settings", subject: str, chat: ChatMode, request: BatchRequest) -> BatchOutcome:
    from dragoman.agent.workbench import open_workbench
    from dragoman.tui.commands.batch_display import batch_display

    with batch_display() as display:

        def stopping() -> None:
            display.say("stopping after the unit in hand; Ctrl-C again ends at once")

        with (
            stoppable(stopping, display.restore) as cancelled,
            open_workbench(
                settings, subject=subject, chat=chat, on_event=display.on_event
            ) as bench,
        ):
            return caption_all(
                bench,
                request,
                on_pace=display.on_pace,
                progress=display.on_progress,
                cancelled=cancelled,
            )


def _show(outcome: BatchOutcome) -> None:
    emit_text(
        f"{outcome.n_captioned} of {outcome.n_done} units have a caption that beats its floor"
        + (
            f"; {outcome.n_units - outcome.n_done} units are left"
            if outcome.n_done < outcome.n_units
            else ""
        )
        + (
            f"; picture files left out because they do not decode: {outcome.n_images_failed}"
            if outcome.n_images_failed
            else ""
        )
    )
    for path in outcome.files:
        emit(path)
