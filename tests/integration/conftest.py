"""An audit on a tiny saved subject: the real graph, ledger, tools and report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.agent.chat_scripted import ScriptedChat
from dragoman.agent.desk import Registration
from dragoman.agent.ledger import Ledger
from dragoman.agent.specification import Specification, make_specification
from dragoman.agent.workbench import Workbench
from dragoman.core.events import RunEvent
from dragoman.core.protocols import ChatModel
from dragoman.core.report import Report
from dragoman.core.settings import load_settings


@pytest.fixture
def relation_file(tmp_path: Path) -> str:
    """A relation that no random subject can know."""
    path = tmp_path / "letters.json"
    samples = [{"subject": f"item{i}", "object": f"{'abcdefgh'[i % 8]}{i}"} for i in range(24)]
    document = {
        "name": "letters",
        "prompt_templates": ["{} gives"],
        "prompt_templates_zs": ["{} gives"],
        "properties": {"relation_type": "factual"},
        "samples": samples,
    }
    path.write_text(json.dumps(document))
    return str(path)


@pytest.fixture
def subject_folder(make_tiny: Any, tmp_path: Path) -> str:
    """A tiny Llama as a person would have it on disk."""
    subject = make_tiny("llama")
    folder = tmp_path / "tiny-llama"
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return str(folder)


class Audits:
    """Runs audits in one data folder and keeps what they emit."""

    def __init__(self, subject_folder: str) -> None:
        self.subject_folder = subject_folder
        self.settings = load_settings()
        self.events: list[RunEvent] = []

    def specification(self, **values: Any) -> Specification:
        return make_specification({"subject": self.subject_folder, "quick": True, **values})

    def run(
        self,
        specification: Specification,
        chat: ChatModel | None = None,
        *,
        resume: str | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Report:
        from dragoman.agent.audit import run_audit

        self.events.clear()
        with Ledger(self.settings.ledger_file) as ledger:
            bench = Workbench(self.settings, specification.subject, ledger, chat, None)
            return run_audit(
                specification,
                bench,
                on_event=self.events.append,
                cancelled=cancelled,
                resume=resume,
            )

    def registrations(self, audit_id: str) -> list[Registration]:
        with Ledger(self.settings.ledger_file) as ledger:
            entries = ledger.entries(audit_id, "registration")
        return [Registration.model_validate(each) for each in entries]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
def audits(subject_folder: str) -> Audits:
    return Audits(subject_folder)


@pytest.fixture
def script(relation_file: str) -> Callable[..., ScriptedChat]:
    """A chat model that plans one knowledge test and writes one sentence."""

    def make(**changes: list[str]) -> ScriptedChat:
        sentence = {
            "claim_ids": ["q1r1h1c1"],
            "text": "The hypothesis was refuted: it does not know the letters.",
        }
        replies = {
            "plan": [json.dumps({"templates": ["knows_relation"]})],
            "fill": [json.dumps({"relation": relation_file})],
            "critique": [json.dumps({"concerns": [1]})],
            "narrative": [json.dumps({"sentences": [sentence]})],
        }
        return ScriptedChat({**replies, **changes})

    return make
