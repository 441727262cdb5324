"""The type of a hypothesis template, and how slots become the arguments of a test."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import BaseModel

from dragoman.agent.slots import Scene
from dragoman.core.claims import Prediction
from dragoman.core.records import JsonObject

NOTHING = "nothing here: "
"""Begins the rival that every hypothesis has."""


@dataclass(frozen=True)
class Wording:
    """How a claim about one metric reads when it held, was refuted, or stayed open.

    `{slot}` names are filled when the claim is made; `<metric>` becomes the measurement's hole.
    """

    held: str
    refuted: str
    inconclusive: str


class Example(NamedTuple):
    """A question that a template is for, and its slots: shown to a chat model before it chooses."""

    question: str
    slots: JsonObject


@dataclass(frozen=True)
class Template:
    """A type of hypothesis."""

    name: str
    asks: str
    """What question it answers, in the words that a chat model chooses by."""
    statement: str
    example: Example
    slots: Callable[[Scene], type[BaseModel]]
    tool: str
    arguments: Callable[[Mapping[str, object], Scene], JsonObject]
    predictions: Callable[[JsonObject], tuple[Prediction, ...]]
    wordings: Mapping[str, Wording]
    """By metric."""
    refuted_by: str
    rivals: tuple[str, ...]
    controls: tuple[str, ...]
    confounds: tuple[str, ...]
    """What a critic may hold against a supported claim of this type."""
    raises: Mapping[str, str] = field(default_factory=dict)
    """By metric, the metric whose claim it raises to its own rung: it makes no claim of its own."""
    cues: frozenset[str] = field(default_factory=frozenset)
    """Words of a question that speak for this template when no chat model reads it.

    `edit-` stands for every word that begins with `edit`.
    """
    hints: frozenset[str] = field(default_factory=frozenset)
    """Words that speak for it less clearly: they decide only among equals."""


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as one line."""
    return frozenset(text.split())


def relation_arguments(slots: Mapping[str, object], scene: Scene) -> JsonObject:
    """A relation, with the audit's effort."""
    return {"relation": str(slots["relation"]), "effort": scene.effort}


def relations_arguments(slots: Mapping[str, object], scene: Scene) -> JsonObject:
    """Several relations, with the audit's effort."""
    relations = slots["relations"]
    assert isinstance(relations, list)
    return {"relations": [*relations], "effort": scene.effort}


def layer_arguments(slots: Mapping[str, object], scene: Scene) -> JsonObject:
    """A relation, and a layer where the question names one."""
    layer = slots.get("layer")
    arguments = relation_arguments(slots, scene)
    return {**arguments, "layer": layer} if isinstance(layer, int) else arguments


def neuron_arguments(slots: Mapping[str, object], scene: Scene) -> JsonObject:
    """A layer and its neurons, drawn by the audit's seed where none is named."""
    layer, neurons = slots["layer"], slots["neurons"]
    assert isinstance(layer, int)
    assert isinstance(neurons, list)
    drawn: list[int] = [*neurons] or scene.draw_neurons(layer)
    arguments: JsonObject = {"layer": layer, "neurons": [*drawn], "effort": scene.effort}
    return arguments if scene.corpus is None else {**arguments, "corpus": scene.corpus}


def needed_arguments(slots: Mapping[str, object], scene: Scene) -> JsonObject:
    """Neurons to switch off: watched by a relation's accuracy where one is named, else by loss."""
    arguments, relation = neuron_arguments(slots, scene), slots.get("relation")
    if isinstance(relation, str):
        return {**arguments, "effect": "relation", "relation": relation}
    return {**arguments, "effect": "loss"}


def pair_arguments(slots: Mapping[str, object], scene: Scene) -> JsonObject:
    """Both groups' names in one frame, and the occupation as the answer."""
    first, second = scene.groups[str(slots["groups"])]
    frame = "{} works as a"
    return {
        "first": [frame.format(name) for name in first],
        "second": [frame.format(name) for name in second],
        "answer": str(slots["occupation"]),
    }


def predict(
    metric: str, threshold: float, rung: str
) -> Callable[[JsonObject], tuple[Prediction, ...]]:
    """The same single prediction whatever the arguments are."""
    return lambda arguments: (
        Prediction.model_validate({"metric": metric, "threshold": threshold, "rung": rung}),
    )
