"""An editor and its baselines on the same probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.context import ToolContext
from dragoman.tools.editing.directions import (
    EDITED,
    NO_EDIT,
    PREFIX,
    Centroids,
    compared_directions,
)
from dragoman.tools.editing.editor import read_attributes, read_inputs
from dragoman.tools.editing.judging import Answers, Judge, token_of
from dragoman.tools.editing.probes import NEIGHBOUR_KINDS, Kind, Probe
from dragoman.tools.editing.records import EditRecord, state
from dragoman.tools.editing.study import Study


@dataclass(frozen=True)
class Comparison:
    """Answers by method and kind of probe; the probes of a kind are the same for all methods."""

    records: tuple[EditRecord, ...]
    directions: Mapping[str, Float[Tensor, "record d_model"]]
    probes: Mapping[Kind, Sequence[Probe]]
    answers: Mapping[str, Mapping[Kind, Answers]]

    @property
    def methods(self) -> tuple[str, ...]:
        """Edited first, then the baselines."""
        return tuple(self.answers)

    def changed(self, method: str, kind: Kind) -> list[bool]:
        """For each probe of the kind, whether the new object beats the true one."""
        return self.answers[method][kind].changed()

    def kept(self, method: str, kinds: Sequence[Kind]) -> tuple[list[bool], list[str]]:
        """Whether neighbours keep their answer, and the groups.

        Only probes that the unedited subject answers rightly count: what is not there cannot be
        kept.
        """
        wins: list[bool] = []
        groups: list[str] = []
        for kind in kinds:
            before = self.answers[NO_EDIT][kind].kept()
            after = self.answers[method][kind].kept()
            for probe, had, has in zip(self.probes[kind], before, after, strict=True):
                if had:
                    wins.append(has)
                    groups.append(probe.group)
        return wins, groups

    def n_not_held(self) -> int:
        """Neighbour probes left out because the unedited subject answers them wrongly."""
        return sum(
            not had for kind in NEIGHBOUR_KINDS for had in self.answers[NO_EDIT][kind].kept()
        )


@torch.no_grad()
def directions_of(
    ctx: ToolContext, study: Study, records: Sequence[EditRecord], known_objects: Centroids
) -> dict[str, Float[Tensor, "record d_model"]]:
    """The editor's direction for each record, and the baselines' at the same norms."""
    layer = study.fit.layer
    template = study.knowledge.rewrite
    contexts = [state(template, one.entity, one.new_object) for one in records]
    attributes = read_attributes(ctx.subject, contexts, [layer])[layer]
    edited = study.fit.editor(
        read_inputs(ctx.subject, template, records, [layer], study.form)[layer]
    )
    return compared_directions(edited, attributes, records, known_objects, ctx.seed)


def compare(
    ctx: ToolContext,
    study: Study,
    records: Sequence[EditRecord],
    probes: Mapping[Kind, Sequence[Probe]],
    directions: Mapping[str, Float[Tensor, "record d_model"]],
) -> Comparison:
    """Put every probe to the subject under every method."""
    answers: dict[str, dict[Kind, Answers]] = {
        method: {} for method in (EDITED, NO_EDIT, PREFIX, *directions)
    }
    asked = {kind: some for kind, some in probes.items() if some}
    token = token_of(ctx.subject, study.knowledge)
    for done, (kind, some) in enumerate(asked.items()):
        ctx.step(done, len(asked), f"asking the edited subject: {kind.replace('_', ' ')}")
        judge = Judge(ctx.subject, some, records, token, study.fit.layer)
        answers[EDITED][kind] = judge.ask(directions[EDITED])
        answers[NO_EDIT][kind] = judge.ask(None)
        if kind == "at_neighbour":
            continue  # A control of the editor's own direction.
        answers[PREFIX][kind] = judge.ask_with_prefix()
        for method, vectors in directions.items():
            if method != EDITED:
                answers[method][kind] = judge.ask(vectors)
    return Comparison(tuple(records), directions, asked, answers)
