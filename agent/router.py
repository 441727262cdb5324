"""Choose hypotheses without a chat model: by the words of the question.

This is what `--chat none` runs, and what stands in when a chat model gives no usable plan. It is
deliberately plain: words that speak for a template, words and facts of relations, numbers of
layers and neurons, and text in quotation marks.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from dragoman.agent.relation_words import (
    named_fact,
    rank_relations,
    score_relations,
    stems,
)
from dragoman.agent.slots import Scene
from dragoman.agent.template import Template, words
from dragoman.core.records import JsonObject
from dragoman.tools.relations import load_relation

_WORD = re.compile(r"[a-z]+")
_LAYER = re.compile(r"\b(?:layers?|blocks?)\s+(\d+)|\bL(\d+)\b", re.IGNORECASE)
_NEURONS = re.compile(r"\b(?:neurons?|units?)\s+((?:\d+(?:\s*(?:,|and)\s*)*)+)", re.IGNORECASE)
_UNIT = re.compile(r"\b(\d+)\.(\d+)\b")
# An apostrophe inside a word neither opens nor closes a quotation.
_QUOTED = re.compile(r"(?<!\w)[\"“\u2018'](\S.{0,298}?)[\"”\u2019'](?!\w)")
_CONCEPT = re.compile(
    r"\b(?:neurons?|units?)\b.*?\b(?:to|on|for|at|about|of)\s+(?:the\s+(?:concept|idea)\s+of\s+)?"
    r"([^?.!,;]{2,60})",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"\b(?:an?|as|about|for|of)\s+([a-z]+)")
_WOMEN = frozenset({"she", "her", "hers", "woman", "women", "female", "females"})
_MEN = frozenset({"he", "him", "his", "man", "men", "male", "males"})
_UNIT_WORDS = words("neuron- unit units")
_SEEKING = words("which find search any")
_WHEREABOUTS = re.compile(
    r"\bwhere in(?:side)?\b|\b(?:at|in) (?:which|what) (?:layer|block|part|place)", re.IGNORECASE
)
_FIRST_LOOK = ("knows_relation", "decodes_linearly")
_CUE, _HINT, _SHAPE = 3, 1, 5
"""What a clear word counts, an unclear one, and a question whose shape fits one template alone."""
_MOST = 2
_NAMES_A_RELATION = 4.0
"""What a question shares with a relation that it names, and not by chance."""


class Choice(NamedTuple):
    """A type of hypothesis with its slots filled: what a planner decides."""

    template: Template
    slots: JsonObject


def route(question: str, scene: Scene, templates: Mapping[str, Template]) -> list[Choice]:
    """At most two choices for `question`, the better first; a first look where no word decides.

    An unclear word may decide what is tested first, and never that a second test is worth its time.
    """
    scores = _scores(question, templates)
    least = min(max(scores.values(), default=0), _CUE)
    ranked = [name for name, score in scores.items() if score >= max(least, _HINT)]
    choices = _filled(ranked, question, scene, templates)
    return choices or _filled(_FIRST_LOOK, question, scene, templates)


def _filled(
    names: list[str] | tuple[str, ...],
    question: str,
    scene: Scene,
    templates: Mapping[str, Template],
) -> list[Choice]:
    choices = []
    for name in names:
        slots = fill(name, question, scene) if name in templates else None
        if slots is not None:
            choices.append(Choice(templates[name], slots))
    return choices[:_MOST]


def _scores(question: str, templates: Mapping[str, Template]) -> dict[str, int]:
    """By template, the highest first; among equals the catalogue's order stays."""
    spoken = _WORD.findall(question.lower())
    scored = {name: _score(template, question, spoken) for name, template in templates.items()}
    return dict(sorted(scored.items(), key=lambda each: -each[1]))


def _score(template: Template, question: str, spoken: list[str]) -> int:
    score = _CUE * _spoken(template.cues, spoken) + _HINT * _spoken(template.hints, spoken)
    prompts, answers = _quotations(question)
    units = _spoken(_UNIT_WORDS, spoken) > 0
    shaped = {
        "predicts_answer": bool(prompts and answers),
        "one_word_follows": bool(prompts and not answers),
        "decided_where": bool(_WHEREABOUTS.search(question)),
        "units_needed": units and _spoken(template.cues, spoken) > 0,
        "units_for_concept": units and _spoken(_SEEKING, spoken) > 0,
    }
    return score + _SHAPE * shaped.get(template.name, False)


def _spoken(cues: frozenset[str], spoken: list[str]) -> int:
    """How many different words of a question are cues; `edit-` is a cue for all that begin so."""
    beginnings = tuple(cue[:-1] for cue in cues if cue.endswith("-"))
    return sum(word in cues or word.startswith(beginnings) for word in dict.fromkeys(spoken))


def fill(template: str, question: str, scene: Scene) -> JsonObject | None:
    """The slots of a template as far as the question's words give them; None where they do not."""
    match template:
        case (
            "knows_relation"
            | "edit_generalises"
            | "edit_through_map"
            | "decided_where"
            | "holds_truth_unsaid"
            | "errors_foreseen"
        ):
            return {"relation": nearest_relation(question, scene.relations)}
        case "decodes_linearly":
            named = _layer(question, scene)
            return {"relation": nearest_relation(question, scene.relations), "layer": named}
        case "unit_responds":
            layer, neurons = _units(question, scene)
            return {"layer": layer, "neurons": [*neurons]}
        case "units_needed":
            layer, neurons = _units(question, scene)
            relation = next(iter(_named_relations(question, scene)), None)
            return {"layer": layer, "neurons": [*neurons], "relation": relation}
        case "units_for_concept":
            concept = _concept(question)
            return None if concept is None else {"concept": concept}
        case "relations_share_directions":
            relations = _named_relations(question, scene)[:2]
            return {"relations": [*relations]} if len(relations) == 2 else None
        case "groups_treated_alike":
            return {"groups": _groups(question, scene), "occupation": _occupation(question)}
        case "predicts_answer":
            prompts, answers = _quotations(question)
            return {"prompt": prompts[0], "answer": answers[0]} if prompts and answers else None
        case "one_word_follows":
            prompts, answers = _quotations(question)
            return {"prompt": prompts[0]} if prompts and not answers else None
        case "single_edit_holds":
            fact = named_fact(question, rank_relations(question, scene.relations))
            if fact is None or fact.true:
                return None
            return {
                "relation": fact.relation,
                "entity": fact.entity,
                "new_object": fact.object,
            }
    return None


def nearest_relation(question: str, relations: tuple[str, ...]) -> str:
    """The relation that shares most with the question; the first where none does."""
    return rank_relations(question, relations)[0]


def _named_relations(question: str, scene: Scene) -> list[str]:
    """The relations that a question clearly names, the clearest first."""
    scores = score_relations(question, scene.relations)
    return [name for name, score in scores.items() if score >= _NAMES_A_RELATION]


def _concept(question: str) -> str | None:
    """What units are looked for that respond to it; None where units are named by number."""
    if _NEURONS.search(question) or _UNIT.search(question):
        return None
    quoted = _QUOTED.findall(question)
    if quoted:
        return str(quoted[0])[:60]
    found = _CONCEPT.search(question)
    return None if found is None else found[1].strip()


def _quotations(question: str) -> tuple[list[str], list[str]]:
    """The first quotation of several words, as a prompt; all others are answers."""
    quoted = _QUOTED.findall(question)
    first = next((index for index, text in enumerate(quoted) if " " in text.strip()), None)
    if first is None:
        return [], []
    return [quoted[first]], quoted[:first] + quoted[first + 1 :]


def _groups(question: str, scene: Scene) -> str:
    """The pair of groups whose first side is the one that the question speaks of."""
    said = frozenset(_WORD.findall(question.lower()))
    women_alone = bool(said & _WOMEN) and not said & _MEN
    wanted = "women and men" if women_alone else "men and women"
    return wanted if wanted in scene.groups else next(iter(scene.groups))


def _occupation(question: str) -> str:
    """A quoted word, else an occupation that our relations know, else what an article announces."""
    quoted = [text for text in _QUOTED.findall(question) if text.isalpha()]
    people = _WOMEN | _MEN
    named = [str(word) for word in quoted if word.lower() not in people]
    if named:
        return named[-1]
    known = stems(" ".join(_occupations()))
    for word in _WORD.findall(question.lower()):
        (stem,) = stems(word) or ("",)
        if stem in known and word not in people:
            return stem
    announced = [word for word in _ABOUT.findall(question.lower()) if word not in people]
    return str(announced[0]) if announced else "nurse"


def _occupations() -> list[str]:
    # One-word names only: "police officer" would make every officer an occupation.
    held = [each.subject for each in load_relation("occupation_gender").samples]
    held += [each.subject for each in load_relation("occupation_workplace").samples]
    held += load_relation("verb_agent_noun").objects
    held += load_relation("person_occupation").objects
    return [each for each in held if " " not in each]


def _layer(question: str, scene: Scene) -> int | None:
    found = _LAYER.search(question)
    if found is None:
        return None
    return min(int(found[1] or found[2]), scene.subject.n_layers - 1)


def _units(question: str, scene: Scene) -> tuple[int, list[int]]:
    n_layers, d_mlp = scene.subject.n_layers, scene.subject.d_mlp
    pairs = [(int(layer), int(neuron)) for layer, neuron in _UNIT.findall(question)]
    if pairs:
        layer = min(pairs[0][0], n_layers - 1)
        neurons = [neuron for at, neuron in pairs if at == pairs[0][0]]
    else:
        named = _layer(question, scene)
        layer = n_layers // 2 if named is None else named
        listed = _NEURONS.search(question)
        neurons = [int(number) for number in re.findall(r"\d+", listed[1])] if listed else []
    return layer, [neuron for neuron in dict.fromkeys(neurons) if neuron < d_mlp][:8]
