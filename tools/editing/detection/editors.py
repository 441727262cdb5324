"""The editor whose directions are read: one layer, one template, and nothing spared.

Nothing is edited with it, so neither its strength nor what it does to neighbours is tuned; the loss
is that of `train_editor`. Its records come from entities of its own, which no test ever asks about.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.editor import read_records
from dragoman.tools.editing.editors.base import Editor
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.records import EditRecord, ask, swap_objects
from dragoman.tools.editing.training import (
    PUBLISHED_KL,
    Examples,
    Material,
    TrainingSettings,
    train_editor,
)
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

SETTINGS = TrainingSettings(max_epochs=3, lambda_kl=PUBLISHED_KL)
_RECORDS, _VALIDATION = 96, 24


class DirectionEditor(NamedTuple):
    """A trained editor and where it belongs."""

    editor: Editor
    layer: int
    template: str
    entities: frozenset[str]
    """Those that it saw."""

    @torch.no_grad()
    def directions(
        self, subject: LanguageSubject, records: Sequence[EditRecord]
    ) -> Float[Tensor, "record d_model"]:
        """What it would add to each record's entity."""
        found: Tensor = self.editor(_inputs(subject, self.template, records, self.layer))
        return found


def train_directions(
    subject: LanguageSubject,
    knowledge: Knowledge,
    facts: Sequence[Sample],
    layer: int,
    seed: int,
    step: Callable[[int, int, str], None],
) -> DirectionEditor:
    """Train on `facts`, every fourth of which chooses the weights.

    Raises:
        ToolError: the objects' first tokens are all the same, or the loss was not a number.
    """
    template, tokens, objects = knowledge.rewrite, knowledge.first_tokens, knowledge.objects
    train = [fact for at, fact in enumerate(facts) if at % 4]
    records = swap_objects(train, objects, tokens, seed, limit=_RECORDS)
    chosen = swap_objects(facts[::4], objects, tokens, seed + 1, limit=_VALIDATION)
    if not records or not chosen:
        raise ToolError(
            "relation: the first tokens of its objects are all the same for this subject, so no "
            "object can be told from another; choose another relation"
        )
    trained = train_editor(
        _material(subject, knowledge, records, layer),
        _material(subject, knowledge, chosen, layer),
        layer,
        SETTINGS,
        seed,
        step=step,
    )
    return DirectionEditor(
        trained.editor, layer, template, frozenset(fact.subject for fact in facts)
    )


def _material(
    subject: LanguageSubject, knowledge: Knowledge, records: Sequence[EditRecord], layer: int
) -> Material:
    template = knowledge.rewrite
    entities = list(dict.fromkeys(record.entity for record in records))
    cache = PromptCache(subject, [ask(template, entity) for entity in entities], [layer])
    new = [knowledge.token(record.new_object) for record in records]
    old = [knowledge.token(record.old_object) for record in records]
    examples = Examples(
        cache,
        tuple(entities.index(record.entity) for record in records),
        _inputs(subject, template, records, layer),
        torch.tensor(new, device=subject.device),
        torch.tensor(old, device=subject.device),
    )
    return Material([examples], [])


@torch.no_grad()
def _inputs(
    subject: LanguageSubject, template: str, records: Sequence[EditRecord], layer: int
) -> Tensor:
    return read_records(subject, template, records, [layer]).inputs(SETTINGS.form)[layer]
