"""An editor and its baselines on the same probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.context import ToolContext
from dragoman.tools.editing.directions import EDITED, NO_EDIT, compared_directions
from dragoman.tools.editing.editor import read_records
from dragoman.tools.editing.judging import Answers, Judge, token_of
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.methods import Method, all_methods
from dragoman.tools.editing.metrics import grouped_shares
from dragoman.tools.editing.probes import NEIGHBOUR_KINDS, Kind, Probe
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.editing.study import Study


@dataclass(frozen=True)
class Comparison:
    """Answers by method and kind of probe; the probes of a kind are the same for all methods."""

    records: tuple[EditRecord, ...]
    compared: tuple[Method, ...]
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

    def shares(self, method: str, kind: Kind) -> dict[str, float]:
        """Group to its share of changed answers; empty where there are no such probes."""
        if kind not in self.probes:
            return {}
        groups = [probe.group for probe in self.probes[kind]]
        shares = grouped_shares(self.changed(method, kind), groups)
        return dict(zip(dict.fromkeys(groups), shares, strict=True))

    def kept_shares(self, method: str, kinds: Sequence[Kind]) -> dict[str, float]:
        """Group to its share of neighbours that keep their answer."""
        wins, groups = self.kept(method, [kind for kind in kinds if kind in self.probes])
        return dict(zip(dict.fromkeys(groups), grouped_shares(wins, groups), strict=True))

    def n_not_held(self) -> int:
        """Neighbour probes left out because the unedited subject answers them wrongly."""
        return sum(
            not had for kind in NEIGHBOUR_KINDS for had in self.answers[NO_EDIT][kind].kept()
        )


@torch.no_grad()
def directions_of(
    ctx: ToolContext, study: Study, records: Sequence[EditRecord], *, seed: int | None = None
) -> dict[str, Float[Tensor, "record d_model"]]:
    """The editor's direction for each record, and those of the baselines that add one.

    `seed` draws the random ones; the context's where it is left out.
    """
    fit = study.fit
    read = read_records(ctx.subject, study.knowledge.rewrite, records, [fit.layer])
    return compared_directions(
        fit.editor(read.inputs(study.form)[fit.layer]),
        read.attributes(fit.layer),
        records,
        fit.centroids,
        fit.difference_strength,
        ctx.seed if seed is None else seed,
    )


def compare(
    ctx: ToolContext,
    study: Study,
    records: Sequence[EditRecord],
    probes: Mapping[Kind, Sequence[Probe]],
    directions: Mapping[str, Float[Tensor, "record d_model"]],
) -> Comparison:
    """Put every probe to the subject under the study's editor and every baseline."""
    methods = all_methods(records, study.knowledge, directions)
    return compare_methods(ctx, study.knowledge, records, probes, methods, study.fit.layer)


def compare_methods(
    ctx: ToolContext,
    knowledge: Knowledge,
    records: Sequence[EditRecord],
    probes: Mapping[Kind, Sequence[Probe]],
    methods: Sequence[Method],
    layer: int,
) -> Comparison:
    """Put every probe to the subject under each method, `EDITED` and `NO_EDIT` among them."""
    answers: dict[str, dict[Kind, Answers]] = {method.name: {} for method in methods}
    asked = {kind: some for kind, some in probes.items() if some}
    token = token_of(ctx.subject, knowledge)
    for done, (kind, some) in enumerate(asked.items()):
        ctx.step(done, len(asked), f"asking the edited subject: {kind.replace('_', ' ')}")
        by_layer: dict[int, list[Method]] = {}
        for method in methods:
            # At the neighbour only the editor's own direction is of interest, as a control.
            if kind == "at_neighbour" and method.name not in (EDITED, NO_EDIT):
                continue
            at = layer if method.layer is None else method.layer
            by_layer.setdefault(at, []).append(method)
        for at, mine in by_layer.items():
            said = Judge(ctx.subject, some, records, token, at).ask_by(mine)
            for name, one in said.items():
                answers[name][kind] = one
    return Comparison(tuple(records), tuple(methods), asked, answers)
