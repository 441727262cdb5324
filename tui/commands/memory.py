"""`dragoman memory`: what earlier audits found."""

from typing import Annotated

import typer

from dragoman.tui.commands.output import (
    emit_json,
    emit_table,
    examples,
    help_without_command,
    results_only,
)

app = typer.Typer(
    name="memory",
    help="List and search earlier findings.",
    epilog=examples('dragoman memory search "capital cities"'),
    invoke_without_command=True,
    callback=help_without_command,
    rich_markup_mode=None,
)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog=examples("dragoman memory list --json"))
def list_findings(as_json: _Json = False) -> None:
    """List every finding, latest first."""
    from dragoman.agent.ledger import Ledger
    from dragoman.core.settings import load_settings

    # The ledger is the truth from which the index of memory is built.
    with Ledger(load_settings().ledger_file) as ledger:
        findings = ledger.findings()[::-1]
    if as_json:
        emit_json([finding.model_dump(mode="json") for finding in findings])
        return
    emit_table(
        ("CREATED", "SUBJECT", "STATUS", "FINDING"),
        [(each.created, each.subject_name, each.status, each.text) for each in findings],
        empty="nothing is remembered yet; an audit's claims are kept here",
    )


@app.command(epilog=examples('dragoman memory search "plural of nouns" -k 3'))
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, by meaning.")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many.")] = 5,
    as_json: _Json = False,
) -> None:
    """Find findings by meaning."""
    with results_only():
        from dragoman.agent.ledger import Ledger
        from dragoman.agent.workbench import open_memory
        from dragoman.core.settings import load_settings
        from dragoman.tools.weights import EMBEDDINGS, require

        settings = load_settings()
        require(EMBEDDINGS, settings.weights_folder)
        with Ledger(settings.ledger_file) as ledger:
            memory = open_memory(settings, ledger)
            recalled = [] if memory is None else memory.search(text, k=k)
    if as_json:
        emit_json([each.model_dump(mode="json") for each in recalled])
        return
    emit_table(
        ("SIMILARITY", "SUBJECT", "STATUS", "STANDING", "FINDING"),
        [
            (
                f"{each.similarity:.2f}",
                each.finding.subject_name,
                each.finding.status,
                each.standing,
                each.finding.text,
            )
            for each in recalled
        ],
        empty="nothing is remembered yet; an audit's claims are kept here",
    )
