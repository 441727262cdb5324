"""What carries a claim: measurements, controls, the experiments, and how to run them again."""

import json
from collections.abc import Iterator, Sequence

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from dragoman.agent.rendering.numbers import STATUS_MEANING
from dragoman.agent.rendering.replay import parse_replay
from dragoman.agent.rendering.view import ClaimView, EvidenceView, ReportView
from dragoman.core.claims import Hypothesis
from dragoman.core.records import JsonObject
from dragoman.tui.widgets.interval_plot import IntervalPlot
from dragoman.tui.widgets.measurements import MeasurementTable
from dragoman.tui.widgets.prose import claim_content
from dragoman.tui.widgets.safe_text import shown
from dragoman.tui.widgets.status import bearing_label, claim_label
from dragoman.tui.widgets.tool_card import argument_lines


class EvidencePane(VerticalScroll):
    """The evidence behind one claim, or a line that says why there is none to see."""

    claim: ClaimView | None = None

    async def show(self, view: ReportView, place: int) -> None:
        """Fill the pane with the claim of that place in the report, from 0."""
        self.claim = view.claims[place]
        with self.app.batch_update():
            await self.remove_children()
            await self.mount(*_blocks(self.claim, view.report.replay))
        self.scroll_home(animate=False)

    async def say(self, text: str) -> None:
        """Empty the pane but for a line."""
        self.claim = None
        await self.remove_children()
        await self.mount(_line(shown(text, "$text-muted")))


def _blocks(view: ClaimView, commands: Sequence[str]) -> Iterator[Widget]:
    claim = view.claim
    yield _line(
        (f"{view.label}  ", "$text-primary"),
        claim_label(claim.status),
        shown(f"  {STATUS_MEANING[claim.status]}", "$text-muted"),
    )
    yield _line(claim_content(view.text, brief=True), classes="claim-text")
    if claim.scope:
        yield _line(("holds for  ", "$text-muted"), shown(claim.scope))
    yield _head("Measured")
    yield MeasurementTable(claim.effects)
    if view.panels:
        yield IntervalPlot(view.panels)
        legend = "● value  ━ 95% interval  ○ control  │ predicted to exceed"
        yield _line((legend, "$text-muted"))
    if view.controls:
        yield _head("Controls")
        yield MeasurementTable([control.measurement for control in view.controls])
    if view.hypothesis is not None:
        yield from _prediction(view.hypothesis)
    yield from _experiments(view, commands)
    if view.concerns or claim.confounds:
        yield _head("Held against it")
    for concern in view.concerns:
        yield _line(
            (f"{concern.severity}  ", "$text-warning"),
            shown(concern.text),
            shown(f"  ({concern.raised_by})", "$text-muted"),
        )
    for confound in claim.confounds:
        yield _line(("confound  ", "$text-warning"), shown(confound))


def _prediction(hypothesis: Hypothesis) -> Iterator[Widget]:
    yield _head("Predicted before the experiment")
    yield _line(shown(hypothesis.statement))
    for prediction in hypothesis.predictions:
        scope = f" ({prediction.scope})" if prediction.scope else ""
        yield _line(
            ("predicts  ", "$text-muted"),
            shown(f"{prediction.metric}{scope} above {prediction.threshold:g} and its control"),
        )
    yield _line(("refuted by  ", "$text-muted"), shown(hypothesis.refuted_by))
    for rival in hypothesis.rivals:
        yield _line(("rival  ", "$text-muted"), shown(rival))


def _experiments(view: ClaimView, commands: Sequence[str]) -> Iterator[Widget]:
    """Each experiment once, with all pieces of evidence that came from it."""
    groups: dict[str, list[EvidenceView]] = {}
    for each in view.evidence:
        groups.setdefault(each.evidence.experiment_id, []).append(each)
    for experiment_id, pieces in groups.items():
        first = pieces[0]
        yield _head("Experiment")
        yield _line(
            shown(first.evidence.tool, "bold", one_line=True, limit=80),
            shown(f"  {experiment_id[:12]}", "$text-muted", one_line=True),
        )
        command = commands[first.replay - 1] if first.replay is not None else ""
        arguments = _arguments(command)
        if arguments:
            yield _line(argument_lines(arguments, limit=2000), classes="arguments")
        for piece in pieces:
            measurement = piece.evidence.measurement
            yield _line(
                (f"{piece.label}  ", "$text-muted"),
                bearing_label(piece.evidence.bearing),
                "  ",
                shown(f"{measurement.metric} {measurement.scope}".rstrip(), one_line=True),
            )
        paths = (artifact.path for piece in pieces for artifact in piece.evidence.artifacts)
        for path in dict.fromkeys(paths):
            yield _line(("file  ", "$text-muted"), shown(path, one_line=True))
        if command:
            yield _line(("run it again, without any chat model", "$text-muted"))
            yield _line(shown(command.partition("  # ")[0], one_line=True), classes="command")


def _arguments(command: str) -> JsonObject:
    """The arguments of the experiment that a replay command runs."""
    if not command:
        return {}
    options = parse_replay(command).options
    arguments = json.loads(options[options.index("--args") + 1]) if "--args" in options else {}
    return arguments if isinstance(arguments, dict) else {}


def _head(text: str) -> Static:
    return Static(text, markup=False, classes="section")


def _line(*parts: Content | str | tuple[str, str], classes: str = "") -> Static:
    return Static(Content.assemble(*parts), markup=False, classes=classes)
