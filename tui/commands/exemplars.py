"""`dragoman exemplars`: where every unit of every layer is most active, in one pass over texts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dragoman.agent.batch_captions import BatchRequest, Kind
from dragoman.agent.exemplar_stores import (
    StoreOutcome,
    collect_exemplars,
    merge_exemplars,
    units_of_store,
)
from dragoman.core.errors import Interrupted
from dragoman.core.records import JsonObject
from dragoman.tui.commands.interrupt import stoppable
from dragoman.tui.commands.output import (
    emit,
    emit_json,
    emit_text,
    examples,
    help_without_command,
    results_only,
)
from dragoman.tui.commands.unit_options import DictionaryOption, SeedOption, SubjectArgument

app = typer.Typer(
    name="exemplars",
    help="The texts at which every unit of every layer is most active.",
    epilog=examples(
        "dragoman exemplars collect smollm2 --quick",
        "dragoman exemplars collect smollm2 --corpus half.jsonl --out stores/half",
        "dragoman exemplars merge stores/half stores/other --out stores/both",
        "dragoman exemplars show stores/both 12.77 3.5",
    ),
    invoke_without_command=True,
    callback=help_without_command,
    rich_markup_mode=None,
)
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_Out = Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the merged store.")]
_Store = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a finished pass.")]


@app.command(
    epilog=examples(
        "dragoman exemplars collect smollm2 --quick",
        "dragoman exemplars collect smollm2 --layers 3-8 --corpus texts.parquet",
        "dragoman exemplars collect smollm2 --layers 12 --dictionary sae.safetensors",
    )
)
def collect(
    subject: SubjectArgument,
    layers: Annotated[
        str | None,
        typer.Option(metavar="RANGE", help="Layers, such as 3-8 or 0,4; else all."),
    ] = None,
    kind: Annotated[
        Kind,
        typer.Option(help="MLP neurons, components of the residual stream, heads, or latents."),
    ] = "mlp",
    dictionary: DictionaryOption = None,
    corpus: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Your own texts, all of them; else the subject's own."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The first 200 texts.")] = False,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the store goes; else into the cache."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Read texts once, for every unit of all layers at the same time.

    Memory does not grow with the corpus. Ctrl-C, a kill or a full disk lose at most the shard in
    hand (65,536 tokens): the same command goes on, to the same bits. Parts of a corpus may be read
    apart, on several machines, and merged.
    """
    from dragoman.agent.workbench import open_workbench
    from dragoman.core.settings import load_settings
    from dragoman.tui.commands.batch_display import batch_display

    request = BatchRequest(
        layers=layers,
        kind=kind,
        dictionary=dictionary,
        corpus=corpus,
        quick=quick,
        seed=seed,
        out=out,
    )
    with results_only(), batch_display() as display:

        def stopping() -> None:
            display.say("stopping after the batch in hand; Ctrl-C again ends at once")

        with (
            stoppable(stopping, display.restore) as cancelled,
            open_workbench(load_settings(), subject=subject, on_event=display.on_event) as bench,
        ):
            try:
                outcome = collect_exemplars(
                    bench, request, progress=display.on_progress, cancelled=cancelled
                )
            except Interrupted as error:
                raise Interrupted(f"{error}; the same command goes on") from None
    _show(outcome, as_json)


@app.command(epilog=examples("dragoman exemplars merge stores/a stores/b --out stores/both"))
def merge(
    stores: Annotated[
        list[Path], typer.Argument(metavar="STORE...", help="Folders of finished passes.")
    ],
    out: _Out,
    as_json: _Json = False,
) -> None:
    """Make one store of several.

    To the bit what one pass over all their texts, in this order, would have left.
    """
    with results_only():
        outcome = merge_exemplars(stores, out)
    _show(outcome, as_json)


@app.command(epilog=examples("dragoman exemplars show stores/both 12.77 mlp.3.5"))
def show(
    store: _Store,
    units: Annotated[
        list[str], typer.Argument(metavar="UNIT...", help="Such as 12.77 or resid.3.5.")
    ],
    as_json: _Json = False,
) -> None:
    """Show where units are most active.

    The strongest contexts, and some that leave the unit silent.
    """
    with results_only():
        entries = units_of_store(store, units)
    if as_json:
        emit_json(list(entries))
        return
    for entry in entries:
        _show_unit(entry)


def _show(outcome: StoreOutcome, as_json: bool) -> None:
    if as_json:
        emit_json(outcome.model_dump(mode="json"))
        return
    dead = f", {outcome.n_dead} of them dead on these texts" if outcome.n_dead else ""
    emit_text(
        f"{outcome.n_units} units of {len(outcome.layers)} layers{dead}; {outcome.n_documents} "
        f"texts, {outcome.n_tokens} tokens: {outcome.corpus}"
    )
    emit(outcome.folder)


def _show_unit(entry: JsonObject) -> None:
    told: Any = entry
    emit_text(
        f"{told['unit']}: active at {told['density']:.1%} of positions, threshold "
        f"{told['threshold']:.4g}" + (f"; {told['reason']}" if "reason" in told else "")
    )
    for each in told["exemplars"]:
        text = f"{each['before']}«{each['token']}»{each['after']}"
        emit_text(f"  {each['activation']:8.3f}  {_line(text)}")
    for each in told["silent"][:3]:
        emit_text(f"    silent  {_line(each['text'])}")


def _line(text: str) -> str:
    return " ".join(text.split())
