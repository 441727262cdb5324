"""A card for one tool call: arguments, progress while it runs, then what it found."""

from textual.content import Content
from textual.widgets import Static

from dragoman.agent.rendering.numbers import duration
from dragoman.core.events import ToolFinished, ToolProgress, ToolStarted
from dragoman.core.records import JsonObject
from dragoman.tui.widgets.fold import Fold
from dragoman.tui.widgets.heat_map import HeatMap, heat_of
from dragoman.tui.widgets.measurements import MeasurementTable
from dragoman.tui.widgets.safe_text import shown, value
from dragoman.tui.widgets.status import counted

_ARGUMENT_LIMIT = 400
_ROWS_IN_CARD = 12
_BAR_CELLS = 24


def argument_lines(arguments: JsonObject, *, limit: int = _ARGUMENT_LIMIT) -> Content:
    """Arguments one to a line, names aligned; those left at null are not shown."""
    given = {name: argument for name, argument in arguments.items() if argument is not None}
    width = max(map(len, given), default=0)
    return Content("\n").join(
        Content.assemble(
            shown(name.ljust(width), "$text-muted", one_line=True),
            "  ",
            value(given[name], limit=limit),
        )
        for name in given
    )


class ProgressLine(Static):
    """A bar, the count, and what is being done."""

    def __init__(self) -> None:
        super().__init__(markup=False, classes="progress")

    def show(self, done: int, total: int, text: str) -> None:
        """`total` 0 means unknown: then there is a count and no bar."""
        what = shown(text, "$text-muted", one_line=True, limit=200)
        if total <= 0:
            self.update(Content.assemble(f"{done}  " if done else "… ", what))
            return
        filled = round(_BAR_CELLS * min(max(done, 0), total) / total)
        self.update(
            Content.assemble(
                ("━" * filled, "$primary"),
                ("─" * (_BAR_CELLS - filled), "$text-disabled"),
                f" {done} of {total}  ",
                what,
            )
        )


class ToolCard(Fold):
    """From `ToolStarted` to `ToolFinished`."""

    def __init__(self, started: ToolStarted) -> None:
        self._tool = shown(started.tool, "bold", one_line=True, limit=80)
        self._arguments = Static(argument_lines(started.arguments), markup=False)
        self._progress = ProgressLine()
        super().__init__(self._arguments, self._progress, opened=True, classes="tool -running")
        self._progress.show(0, 0, "starting")
        self.title = Content.assemble(self._tool, ("  running", "$text-primary"))

    def progress(self, event: ToolProgress) -> None:
        """How far it is."""
        self._progress.show(event.done, event.total, event.text)

    async def finish(self, event: ToolFinished) -> None:
        """Result in place of the progress bar; a failure says what was wrong."""
        result = event.result
        failed = result.status == "error"
        self._settle("-failed" if failed else "-done")
        await self._progress.remove()
        word, style = ("✕ failed", "$text-error") if failed else ("✓ done", "$text-success")
        tail = (
            "replayed from the ledger"
            if event.replayed
            else f"{duration(event.seconds)} · {counted(len(result.measurements), 'measurement')}"
        )
        self.title = Content.assemble(
            self._tool, (f"  {word}", f"bold {style}"), (f"  {tail}", "$text-muted")
        )
        summary = shown(result.error or result.summary, "$text-error" if failed else "")
        await self._body.mount(Static(summary, markup=False, classes="summary"))
        if result.measurements:
            await self._body.mount(MeasurementTable(result.measurements, most=_ROWS_IN_CARD))
        heat = heat_of(result.output)
        if heat is not None:
            await self._body.mount(HeatMap(heat))
        for caveat in result.caveats:
            line = Content.assemble(("caveat  ", "$text-warning"), shown(caveat))
            await self._body.mount(Static(line, markup=False))

    async def abandon(self) -> None:
        """The run ended before this call did."""
        if self.has_class("-running"):
            self._settle("-stopped")
            await self._progress.remove()
            self.title = Content.assemble(self._tool, ("  ◔ stopped", "bold $text-warning"))

    def _settle(self, state: str) -> None:
        self.remove_class("-running")
        self.add_class(state)
