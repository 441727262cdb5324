"""The workbench: one subject, its tools, the chat model, the ledger and the memory, opened once."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

from dragoman.agent.ledger import Ledger
from dragoman.core.errors import ToolError, UserError
from dragoman.core.events import (
    EventSink,
    Notice,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    ignore,
)
from dragoman.core.protocols import Cancelled, ChatModel, FindingStore, Progress, never, silent
from dragoman.core.records import Experiment, JsonObject, ToolResult
from dragoman.core.settings import Settings

if TYPE_CHECKING:
    from dragoman.tools.registry import Tool
    from dragoman.tools.subjects.language import LanguageSubject
    from dragoman.tools.subjects.vision import VisionSubject

ChatMode: TypeAlias = Literal["auto", "local", "none", "endpoint"]

DIRECT = "direct"
"""The audit id under which tool calls by hand are kept."""


class Workbench:
    """What an audit, a chat or a single tool call works with; the subject loads on first use."""

    def __init__(
        self,
        settings: Settings,
        subject_name: str,
        ledger: Ledger,
        chat: ChatModel | None,
        memory: FindingStore | None,
    ) -> None:
        self.settings = settings
        self.subject_name = subject_name
        self.ledger = ledger
        self.chat = chat
        self.memory = memory

    @cached_property
    def subject(self) -> "LanguageSubject | VisionSubject":
        """The network under examination."""
        from dragoman.tools.subjects.loading import load_network

        return load_network(self.subject_name, self.settings)

    @cached_property
    def tools(self) -> "dict[str, Tool]":
        """Every tool by name."""
        from dragoman.tools.catalogue import TOOLS

        return TOOLS

    def tool(self, name: str) -> "Tool":
        """One tool; `UserError` names the known ones."""
        if name not in self.tools:
            raise UserError(f"tool {name!r} is unknown (known: {', '.join(self.tools)})")
        return self.tools[name]

    def experiment(self, name: str, arguments: JsonObject, seed: int) -> Experiment:
        """The experiment that a call would be; `ToolError` for bad arguments."""
        tool = self.tool(name)
        return tool.experiment(
            tool.parse(arguments),
            subject_digest=self.subject.identity.digest,
            seed=seed,
            chat="" if self.chat is None else self.chat.identity.model,
            home=self.settings.home,
        )

    def run_tool(
        self,
        name: str,
        arguments: JsonObject,
        *,
        seed: int = 0,
        on_event: EventSink = ignore,
        cancelled: Cancelled = never,
    ) -> ToolResult:
        """Run one tool by hand: always afresh, kept in the ledger."""
        tool = self.tool(name)
        try:
            experiment = self.experiment(name, arguments, seed)
        except ToolError as error:
            refused = tool.experiment(
                arguments, subject_digest=self.subject.identity.digest, seed=seed
            )
            return ToolResult.failure(refused, str(error))
        return self.carry_out(
            experiment,
            audit_id=DIRECT,
            chat=self.chat,
            on_event=on_event,
            cancelled=cancelled,
        )

    def carry_out(
        self,
        experiment: Experiment,
        *,
        audit_id: str,
        chat: ChatModel | None,
        on_event: EventSink = ignore,
        cancelled: Cancelled = never,
        watch: Progress = silent,
    ) -> ToolResult:
        """Run an experiment and record it; `watch` may stop it by raising."""
        from dragoman.tools.context import ToolContext

        def progress(done: int, total: int, text: str) -> None:
            watch(done, total, text)
            on_event(ToolProgress(experiment_id=experiment.id, done=done, total=total, text=text))

        context = ToolContext(
            network=self.subject,
            seed=experiment.seed,
            home=self.settings.home,
            artifacts=self.settings.artifacts_folder / experiment.id[:16],
            cache=self.settings.cache_folder,
            weights=self.settings.weights_folder,
            chat=chat,
            findings=self.memory,
            progress=progress,
            cancelled=cancelled,
        )
        self.ledger.experiment_started(audit_id, experiment)
        on_event(
            ToolStarted(
                experiment_id=experiment.id,
                tool=experiment.tool,
                arguments=experiment.arguments,
            )
        )
        began = time.monotonic()
        result = self.tool(experiment.tool).run(context, experiment)
        seconds = time.monotonic() - began
        self.ledger.experiment_finished(audit_id, result, seconds)
        on_event(ToolFinished(result=result, seconds=seconds, replayed=False))
        return result


@contextmanager
def open_workbench(
    settings: Settings,
    *,
    subject: str = "smollm2",
    chat: ChatMode = "none",
    on_event: EventSink = ignore,
) -> Iterator[Workbench]:
    """Open ledger, memory and chat model; close them, and end child processes, on the way out."""
    from dragoman.agent.choose_chat import choose_chat

    def notice(text: str) -> None:
        on_event(Notice(text=text))

    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(settings.ledger_file))
        model = choose_chat(chat, settings, notice)
        if model is not None:
            stack.callback(model.close)
        yield Workbench(settings, subject, ledger, model, open_memory(settings, ledger, notice))


def open_memory(
    settings: Settings, ledger: Ledger, notice: Callable[[str], None] = lambda text: None
) -> FindingStore | None:
    """The memory of findings, or None (with a notice) where its weights are not installed."""
    from dragoman.agent.memory import Memory
    from dragoman.tools.embedding import Embedder

    folder = settings.weights_folder / "minilm"
    if not (folder / "model.safetensors").is_file():
        notice("no memory of earlier findings: `dragoman weights pull minilm` brings it")
        return None
    return Memory(settings.memory_folder, Embedder(folder), source=ledger.findings)
