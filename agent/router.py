"""Choose hypotheses without a chat model: by the words of the question.

This is what `--chat none` runs, and what stands in when a chat model gives no usable plan. It is
deliberately plain: words that speak for a template, names of relations, numbers of layers and
neurons, and text in quotation marks.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from dragoman.agent.slots import Scene
from dragoman.agent.templates import Template
from dragoman.core.records import JsonObject

_WORD = re.compile(r"[a-z]+")
_LAYER = re.compile(r"\blayers?\s+(\d+)", re.IGNORECASE)
_NEURONS = re.compile(r"\b(?:neurons?|units?)\s+((?:\d+(?:\s*(?:,|and)\s*)*)+)", re.IGNORECASE)
_UNIT = re.compile(r"\b(\d+)\.(\d+)\b")
_QUOTED = re.compile(r"[\"“']([^\"”']{3,300})[\"”']")
_OCCUPATIONS = frozenset(
    ("nurse", "doctor", "engineer", "teacher", "lawyer", "secretary", "mechanic", "pilot", "nanny")
)
_FIRST_LOOK = ("knows_relation", "decodes_linearly")
_MOST = 2


class Choice(NamedTuple):
    """A type of hypothesis with its slots filled: what a planner decides."""

    template: Template
    slots: JsonObject


def route(question: str, scene: Scene, templates: Mapping[str, Template]) -> list[Choice]:
    """At most two choices for `question`, the better first; a first look where no word decides."""
    words = frozenset(_WORD.findall(question.lower()))
    scored = sorted(
        (
            (len(words & template.cues), -rank, name)
            for rank, (name, template) in enumerate(templates.items())
        ),
        reverse=True,
    )
    named = [name for score, _, name in scored if score > 0]
    wanted = named or [name for name in _FIRST_LOOK if name in templates]
    choices: list[Choice] = []
    for name in wanted:
        slots = fill(name, question, scene)
        if slots is not None:
            choices.append(Choice(templates[name], slots))
    return choices[:_MOST]


def fill(template: str, question: str, scene: Scene) -> JsonObject | None:
    """The slots of a template as far as the question's words give them; None where they do not."""
    words = frozenset(_WORD.findall(question.lower()))
    match template:
        case "knows_relation" | "decodes_linearly" | "edit_generalises":
            return {"relation": nearest_relation(words, scene.relations)}
        case "unit_responds":
            layer, neurons = _units(question, scene)
            return {"layer": layer, "neurons": [*neurons]}
        case "groups_treated_alike":
            occupation = sorted(words & _OCCUPATIONS)
            return {
                "groups": next(iter(scene.groups)),
                "occupation": occupation[0] if occupation else "nurse",
            }
        case "predicts_answer":
            quoted = _QUOTED.findall(question)
            return {"prompt": quoted[0], "answer": quoted[1]} if len(quoted) > 1 else None
    return None


def nearest_relation(words: frozenset[str], relations: tuple[str, ...]) -> str:
    """The relation whose name shares most with the question's words; the first where none does."""
    stems = {_stem(word) for word in words}

    def shared(relation: str) -> float:
        parts = _WORD.findall(relation.rpartition("/")[2].lower())
        hits = sum(_stem(part) in stems for part in parts)
        # The last word of a name is what is asked for: country_capital, noun_plural.
        return hits / max(len(parts), 1) + (0.5 if parts and _stem(parts[-1]) in stems else 0)

    return max(relations, key=shared)


def _stem(word: str) -> str:
    for ending, short in (("ies", "y"), ("es", "e"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)] + short
    return word


def _units(question: str, scene: Scene) -> tuple[int, list[int]]:
    n_layers, d_mlp = scene.subject.n_layers, scene.subject.d_mlp
    pairs = [(int(layer), int(neuron)) for layer, neuron in _UNIT.findall(question)]
    if pairs:
        layer = pairs[0][0]
        neurons = [neuron for at, neuron in pairs if at == layer]
    else:
        found = _LAYER.search(question)
        layer = int(found[1]) if found else n_layers // 2
        listed = _NEURONS.search(question)
        neurons = [int(number) for number in re.findall(r"\d+", listed[1])] if listed else []
    inside = [neuron for neuron in dict.fromkeys(neurons) if neuron < d_mlp]
    return min(layer, n_layers - 1), inside[:8]
