"""The trained editors and detectors that are kept: what `dragoman edit list` shows.

Read without torch and without the weights, so that listing takes no time.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.relations import list_relations, load_relation

Kind: TypeAlias = Literal["editor", "detector"]


class Shelved(Record):
    """One trained editor or detector."""

    kind: Kind
    id: str
    relation: str
    """Its name if it is one of ours, else the beginning of its content id."""
    subject_digest: str
    layer: int
    """Of the editor; a detector reads directions of an editor at this layer."""
    seed: int
    metric: str
    value: float
    """What it was measured to be worth when it was trained: for an editor the share of validation
    edits after which the new object leads, for a detector phi on held-out entities."""
    trained: str
    """Date and time, UTC."""


class _Place(NamedTuple):
    """Where things of one kind lie, and what their account says of their worth."""

    folder: str
    layer: Callable[[Any], int]
    worth: Callable[[Any], tuple[str, float]]


_PLACES: dict[Kind, _Place] = {
    "editor": _Place(
        "editors",
        lambda said: said["layer"],
        lambda said: ("validation efficacy", said["best"]["validation_efficacy"]),
    ),
    "detector": _Place(
        "detectors",
        lambda said: said["editor_layer"],
        lambda said: _first_measured(said["question"], said["figures"]["measurements"]),
    ),
}


def shelved(cache: Path) -> list[Shelved]:
    """Every whole editor and detector, the newest first; what cannot be read is left out."""
    names = _names()
    found = []
    for kind, place in _PLACES.items():
        for account in (cache / place.folder).glob(f"*/{kind}.json"):
            if not account.with_suffix(".safetensors").is_file():
                continue
            try:
                said = json.loads(account.read_bytes())
                when = account.stat().st_mtime
                found.append((when, _read(kind, account.parent.name, said, when, names)))
            except (OSError, ValueError, LookupError, TypeError):
                continue
    return [each for _, each in sorted(found, key=lambda pair: -pair[0])]


def _read(kind: Kind, name: str, said: Any, when: float, names: dict[str, str]) -> Shelved:
    inputs, place = said["inputs"], _PLACES[kind]
    metric, value = place.worth(said)
    return Shelved(
        kind=kind,
        id=name,
        relation=names.get(inputs["relation"], inputs["relation"][:12]),
        subject_digest=inputs["subject"],
        layer=place.layer(said),
        seed=inputs["seed"],
        metric=metric,
        value=value,
        trained=datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M"),
    )


def _first_measured(question: str, measurements: Any) -> tuple[str, float]:
    first = measurements[0]
    return f"{first['metric']} ({question})", first["value"]


def _names() -> dict[str, str]:
    """Content ids of our relations to their names."""
    known = {}
    for name in list_relations():
        try:
            known[load_relation(name).content_id()] = name
        except ToolError:
            continue
    return known
