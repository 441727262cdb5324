"""The trained editors that are kept: what `dragoman edit list` shows."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.relations import list_relations, load_relation

_FOLDER, _ACCOUNT, _WEIGHTS = "editors", "editor.json", "editor.safetensors"


class ShelvedEditor(Record):
    """One trained editor."""

    id: str
    relation: str
    """Its name if it is one of ours, else the beginning of its content id."""
    subject_digest: str
    layer: int
    seed: int
    validation_efficacy: float
    """Share of validation edits after which the new object leads."""
    trained: str
    """Date and time, UTC."""


def shelved_editors(cache: Path) -> list[ShelvedEditor]:
    """Every whole editor, the newest first; what cannot be read is left out."""
    names = _names()
    found = []
    for account in (cache / _FOLDER).glob(f"*/{_ACCOUNT}"):
        if not (account.parent / _WEIGHTS).is_file():
            continue
        try:
            said = json.loads(account.read_bytes())
            found.append((account.stat().st_mtime, _editor(account.parent.name, said, names)))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [
        each.model_copy(
            update={"trained": datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M")}
        )
        for when, each in sorted(found, key=lambda pair: -pair[0])
    ]


def _editor(name: str, said: Any, names: dict[str, str]) -> ShelvedEditor:
    inputs = said["inputs"]
    return ShelvedEditor(
        id=name,
        relation=names.get(inputs["relation"], inputs["relation"][:12]),
        subject_digest=inputs["subject"],
        layer=said["layer"],
        seed=inputs["seed"],
        validation_efficacy=said["best"]["validation_efficacy"],
        trained="",
    )


def _names() -> dict[str, str]:
    """Content ids of our relations to their names."""
    known = {}
    for name in list_relations():
        try:
            known[load_relation(name).content_id()] = name
        except ToolError:
            continue
    return known
