"""`dragoman relation find`: a relation for pairs, or for entities that come alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from dragoman.agent.workbench import ChatMode
from dragoman.core.errors import ExitCode, UserError
from dragoman.core.events import ToolProgress
from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject
from dragoman.tui.commands.interrupt import stoppable
from dragoman.tui.commands.output import emit_json, emit_table, emit_text, results_only

if TYPE_CHECKING:
    from dragoman.tools.circuits.finding import Found
    from dragoman.tools.circuits.proposing import Proposed
    from dragoman.tools.relations import Sample

_SHOWN = 8


class Wanted(NamedTuple):
    """What is looked for, and with what."""

    file: Path
    templates: Sequence[str]
    """Of the person's own."""
    out: Path | None
    subject: str
    chat: ChatMode
    seed: int


class _Lines(NamedTuple):
    """What a file holds: pairs, or entities alone."""

    pairs: "list[Sample]"
    entities: list[str]


def find_relation(wanted: Wanted, *, as_json: bool) -> int:
    """Find, print, and write the relation file if one is asked for."""
    from dragoman.core.errors import ToolError

    lines = _read(wanted.file)
    try:
        found = _search(wanted, lines)
    except ToolError as error:
        raise UserError(str(error)) from None
    best = found[0] if isinstance(found, list) and found else None
    if not isinstance(found, list):
        _write(wanted, found.tried[0].template, lines.pairs)
        _show_found(found, as_json=as_json)
    else:
        if best is not None:
            _write(wanted, best.template, best.pairs)
        _show_proposed(found, as_json=as_json)
    return ExitCode.DONE


def _search(wanted: Wanted, lines: _Lines) -> "Found | list[Proposed]":
    from dragoman.agent.workbench import open_workbench
    from dragoman.core.protocols import stop_if
    from dragoman.core.settings import load_settings
    from dragoman.tui.commands.live import run_display

    with results_only(), run_display() as display:
        from dragoman.tools.circuits.finding import candidate_templates, find_template
        from dragoman.tools.circuits.proposing import candidates, propose
        from dragoman.tools.circuits.suggesting import suggest_templates

        with (
            stoppable(
                lambda: display.say("stopping at the next step", "yellow"), display.restore
            ) as cancelled,
            open_workbench(
                load_settings(),
                subject=wanted.subject,
                chat=wanted.chat,
                on_event=display.on_event,
            ) as bench,
        ):

            def step(done: int, total: int, text: str) -> None:
                stop_if(cancelled)
                progress = ToolProgress(experiment_id="", done=done, total=total, text=text)
                display.on_event(progress)

            if bench.subject.kind != "language":
                raise UserError(f"{wanted.subject!r} is no language subject: it has no relations")
            subject = bench.subject
            suggested: list[str] = []
            if bench.chat is not None:
                shown = lines.pairs or lines.entities
                suggested = suggest_templates(bench.chat, shown, wanted.seed, cancelled)
            own = list(wanted.templates)
            if lines.pairs:
                templates = candidate_templates([*own, *suggested])
                return find_template(subject, lines.pairs, templates, wanted.seed, step)
            tried = candidates(own, suggested)
            return propose(subject, lines.entities, tried, wanted.seed, step)


def _read(path: Path) -> _Lines:
    """Subjects and objects of a tab-separated file, or subjects alone; told by its first line."""
    from dragoman.tools.relations import Sample

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    rows: dict[str, str] = {}
    paired: bool | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        left, _, right = (part.strip() for part in line.rstrip("\r\n").partition("\t"))
        paired = ("\t" in line) if paired is None else paired
        if paired and (not left or not right or "\t" in right):
            raise UserError(f"{path}, line {number}: must be a subject, one tab and an object")
        if not paired and "\t" in line:
            raise UserError(f"{path}, line {number}: a pair among lines that hold one entity each")
        rows.setdefault(left, right)
    if not paired:
        return _Lines([], list(rows))
    return _Lines([Sample(subject=left, object=right) for left, right in rows.items()], [])


def _write(wanted: Wanted, template: str, pairs: "Sequence[Sample]") -> None:
    if wanted.out is None:
        return
    document: JsonObject = {
        "name": wanted.file.stem,
        "prompt_templates": [template],
        "samples": [{"subject": each.subject, "object": each.object} for each in pairs],
    }
    try:
        write_atomic(wanted.out, json.dumps(document, ensure_ascii=False, indent=1))
    except OSError as error:
        raise UserError(f"--out {wanted.out}: {error.strerror}") from None


def _show_found(found: "Found", *, as_json: bool) -> None:
    best, known = found.tried[0], found.known
    if as_json:
        tried: list[JsonValue] = [{**each._asdict()} for each in found.tried]
        emit_json({"known": known.model_dump(mode="json"), "tried": tried})
        return
    emit_table(
        ("TEMPLATE", "KNOWN OF CHOOSING PAIRS"),
        [(each.template, f"{each.share:.2f}") for each in found.tried[:_SHOWN]],
        empty="no template was tried",
    )
    emit_text(
        f"{best.template!r}: {known.value:.2f} of {known.n} other pairs are known "
        f"({known.control}: {known.baseline:.2f})"
    )


def _show_proposed(found: "Sequence[Proposed]", *, as_json: bool) -> None:
    if as_json:
        rows: list[JsonValue] = [
            {
                "template": each.template,
                "source": each.source,
                "consistent": each.consistent.model_dump(mode="json"),
                "pairs": [[pair.subject, pair.object] for pair in each.pairs],
            }
            for each in found
        ]
        emit_json({"relations": rows})
        return
    emit_table(
        ("TEMPLATE", "FROM", "CONSISTENT", "BY CHANCE", "N", "FOR EXAMPLE"),
        [
            (
                each.template,
                each.source,
                f"{each.consistent.value:.2f}",
                f"{each.consistent.baseline:.2f}",
                str(each.consistent.n),
                ", ".join(f"{pair.subject}: {pair.object}" for pair in each.pairs[:2]),
            )
            for each in found
        ],
        empty="the subject answers consistently through no template that was tried",
    )
    if found:
        emit_text(
            "consistent: the same answer after two sets of examples; whether it is true, nobody has"
            " told"
        )
