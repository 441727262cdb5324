"""The properties set of ours: kinds of things, and what being of a kind implies.

After the entailment test of REMEDI (Hernandez, Li & Andreas 2023, section 6), which used the McRae
feature norms. Being of a kind is a relation like any other ("The robin is a kind of bird"), so its
editors are trained as for every relation; beside it stand, for each kind, properties that it
implies and properties that have nothing to do with it.
"""

import json
from pathlib import Path
from typing import Any, Literal

from dragoman.core.records import Record
from dragoman.tools.relations import Relation, Sample

_FILE = Path(__file__).resolve().parent.parent / "data" / "editing" / "properties.json"


class Implied(Record):
    """A property that a kind implies."""

    text: str
    """What follows the entity: "has feathers"."""
    strength: Literal["always", "usually"]


class Implications(Record):
    """What one kind implies, and what it does not."""

    implied: tuple[Implied, ...]
    unrelated: tuple[str, ...]


class Properties(Record):
    """The whole set."""

    source: str
    relation: Relation
    """Entity to kind."""
    implications: dict[str, Implications]
    """By kind."""


def load_properties(path: Path = _FILE) -> Properties:
    """Ours, or a file in the same form."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    samples = tuple(Sample(**each) for each in document["samples"])
    templates = tuple(document["prompt_templates"])
    relation = Relation(
        name=document["name"],
        kind="commonsense",
        prompt_templates=templates,
        prompt_templates_zs=templates,
        samples=samples,
        domain_name="entity",
        range_name="kind",
        symmetric=False,
    )
    return Properties(
        source=document["source"],
        relation=relation,
        implications={
            kind: Implications.model_validate(each)
            for kind, each in document["implications"].items()
        },
    )
