"""Training material: records and neighbours with their prompts' cached passes."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.records import EditRecord, Prompt, ask
from dragoman.tools.editing.training import Examples, Material, Spared
from dragoman.tools.subjects.language import LanguageSubject

Inputs: TypeAlias = dict[int, Float[Tensor, "record part d_model"]]

# None of these is a shape that specificity is measured on (`probes`).
_PREFACES = ("{}. ", "We talked about {}. ", "There is also {}. ")
# The prompt of the published essence term; essence itself is measured after another one.
_ESSENCE = "{} is a"
_ESSENCE_TOKENS = 7


def training_templates(knowledge: Knowledge) -> tuple[str, ...]:
    """The rewrite template, then those beyond the second, which is held out for paraphrases."""
    return (knowledge.rewrite, *knowledge.templates[2:])


def held_out_template(knowledge: Knowledge) -> str | None:
    """The template that no training prompt uses; None if the relation has only one."""
    return knowledge.templates[1] if len(knowledge.templates) > 1 else None


def build_material(
    subject: LanguageSubject,
    knowledge: Knowledge,
    records: Sequence[EditRecord],
    inputs: Inputs,
    seed: int,
    *,
    spared: int,
) -> dict[int, Material]:
    """By layer: the edits, the neighbours and the texts about the entity that they should spare.

    `spared` is the number of cases, at most, of each shape of spared text.
    """
    edits = _examples(subject, knowledge, records, inputs)
    neighbours = _neighbours(subject, knowledge, records, inputs, seed, spared)
    essence = _essence(subject, records, inputs, spared)
    return {layer: Material(edits[layer], neighbours[layer], [essence[layer]]) for layer in inputs}


def _neighbours(
    subject: LanguageSubject,
    knowledge: Knowledge,
    records: Sequence[EditRecord],
    inputs: Inputs,
    seed: int,
    n_cases: int,
) -> dict[int, list[Spared]]:
    """By layer, for the first records: a known fact of another entity, in each shape of prompt."""
    generator = np.random.default_rng(seed)
    edited = {record.entity for record in records}
    known = [
        fact.subject
        for fact in knowledge.facts
        if fact.subject in edited and knowledge.is_known(fact)
    ]
    cases: list[tuple[int, str]] = []
    for index, record in enumerate(records[:n_cases]):
        others = [entity for entity in known if entity != record.entity]
        if others:
            cases.append((index, others[int(generator.integers(len(others)))]))
    neighbours: dict[int, list[Spared]] = {layer: [] for layer in inputs}
    if not cases:
        return neighbours
    chosen = [index for index, _ in cases]
    for number in range(len(_PREFACES) + 1):
        shape = [
            _mention(number, records[index].entity, knowledge.rewrite, other)
            for index, other in cases
        ]
        prompts = list(dict.fromkeys(shape))
        cache = PromptCache(subject, prompts, tuple(inputs), final_only=True)
        rows = tuple(prompts.index(prompt) for prompt in shape)
        for layer, vectors in inputs.items():
            neighbours[layer].append(Spared(cache, rows, vectors[chosen]))
    return neighbours


def _essence(
    subject: LanguageSubject, records: Sequence[EditRecord], inputs: Inputs, n_cases: int
) -> dict[int, Spared]:
    """By layer: what the unedited subject writes about the first entities, under their edits."""
    entities = list(dict.fromkeys(record.entity for record in records))[:n_cases]
    openings = [ask(_ESSENCE, entity) for entity in entities]
    written = subject.generate([one.text for one in openings], _ESSENCE_TOKENS)
    texts = [
        Prompt(one.text + text, one.entity_end) for one, text in zip(openings, written, strict=True)
    ]
    cache = PromptCache(subject, texts, tuple(inputs))
    cases = [index for index, record in enumerate(records) if record.entity in entities]
    cases = cases[:n_cases]
    rows = tuple(entities.index(records[index].entity) for index in cases)
    return {layer: Spared(cache, rows, vectors[cases]) for layer, vectors in inputs.items()}


def _mention(number: int, edited: str, template: str, other: str) -> Prompt:
    """A question about `other` that mentions `edited`: before it, or last, inside it."""
    if number == len(_PREFACES):
        return ask(template.replace("{}", f"{other} and not {{}}"), edited)
    preface = ask(_PREFACES[number], edited)
    return Prompt(preface.text + template.replace("{}", other), preface.entity_end)


def _examples(
    subject: LanguageSubject,
    knowledge: Knowledge,
    records: Sequence[EditRecord],
    inputs: Inputs,
) -> dict[int, list[Examples]]:
    """By layer: the records, half of them asked through the rewrite template, half through others.

    One prompt cache serves all layers of a template.
    """
    layers = tuple(inputs)
    templates = training_templates(knowledge)
    shares = np.array([_template_of(index, len(templates)) for index in range(len(records))])
    examples: dict[int, list[Examples]] = {layer: [] for layer in layers}
    for number, template in enumerate(templates):
        mine = [int(index) for index in np.flatnonzero(shares == number)]
        if not mine:
            continue
        entities = list(dict.fromkeys(records[index].entity for index in mine))
        cache = PromptCache(subject, [ask(template, entity) for entity in entities], layers)
        rows = tuple(entities.index(records[index].entity) for index in mine)
        new = [knowledge.token(records[index].new_object) for index in mine]
        old = [knowledge.token(records[index].old_object) for index in mine]
        for layer in layers:
            examples[layer].append(
                Examples(
                    cache,
                    rows,
                    inputs[layer][mine],
                    torch.tensor(new, device=subject.device),
                    torch.tensor(old, device=subject.device),
                )
            )
    return examples


def _template_of(index: int, n_templates: int) -> int:
    """Every other record goes to template 0; the rest take turns."""
    if n_templates == 1 or index % 2 == 0:
        return 0
    return 1 + index // 2 % (n_templates - 1)
