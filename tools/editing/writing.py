"""What the subject writes under each method, and what that says of the method.

Texts are drawn as published, from the five most probable tokens, and all methods of one opening
draw by the same random numbers: where a method changes no probability it changes no word.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.methods import Method
from dragoman.tools.editing.records import EditRecord, Prompt, ask
from dragoman.tools.subjects.language import LanguageSubject

ABOUT = "The following is an excerpt from a Wikipedia article:\n\n{} is"
"""The opening after which essence is measured, as published; no training prompt is like it."""
TOP_K = 5
_AT_ONCE = 96


class Opening(NamedTuple):
    """A prompt to be continued under one record's edit."""

    record: int
    prompt: Prompt


class Written(NamedTuple):
    """The text after one opening, by method."""

    opening: Opening
    texts: Mapping[str, str]


def openings_about(records: Sequence[EditRecord], limit: int) -> list[Opening]:
    """`ABOUT` the first entities, with one record each."""
    first = {record.entity: index for index, record in reversed(list(enumerate(records)))}
    chosen = sorted(first.values())[:limit]
    return [Opening(index, ask(ABOUT, records[index].entity)) for index in chosen]


@torch.no_grad()
def write(
    subject: LanguageSubject,
    openings: Sequence[Opening],
    layer: int,
    methods: Sequence[Method],
    n_tokens: int,
    *,
    seed: int,
    greedy: bool = False,
) -> list[Written]:
    """Continuations of each opening by each method; an edit acts in the prompt pass alone.

    All methods of some openings go in one batch; a method without a direction adds zero. A method
    that has no prompt for a record is left out of its texts.
    """
    per_batch = max(1, _AT_ONCE // len(methods))
    written: list[Written] = []
    for start in range(0, len(openings), per_batch):
        some = openings[start : start + per_batch]
        written += _write(subject, some, layer, methods, n_tokens, seed + start, greedy)
    return written


def _write(
    subject: LanguageSubject,
    openings: Sequence[Opening],
    layer: int,
    methods: Sequence[Method],
    n_tokens: int,
    seed: int,
    greedy: bool,
) -> list[Written]:
    asked: list[tuple[int, str]] = []
    prompts: list[Prompt] = []
    vectors: list[Float[Tensor, " d_model"]] = []
    for place, opening in enumerate(openings):
        for method in methods:
            prompt = method.prompt(opening.record, opening.prompt)
            if prompt is None:
                continue
            asked.append((place, method.name))
            prompts.append(prompt)
            vectors.append(
                torch.zeros(subject.d_model, device=subject.device)
                if method.directions is None
                else method.directions[opening.record]
            )
    # A prompt is read once for all methods that ask it.
    different = list(dict.fromkeys(prompts))
    cache = PromptCache(subject, different, [layer], final_only=True)
    rows = [different.index(prompt) for prompt in prompts]
    texts = subject.generate_from(
        cache.edited_prompts(layer, rows, torch.stack(vectors)),
        n_tokens,
        temperature=0.0 if greedy else 1.0,
        top_k=TOP_K,
        streams=[place for place, _ in asked],
        seed=seed,
    )
    by_opening: list[dict[str, str]] = [{} for _ in openings]
    for (place, name), text in zip(asked, texts, strict=True):
        by_opening[place][name] = text
    return [Written(opening, found) for opening, found in zip(openings, by_opening, strict=True)]
