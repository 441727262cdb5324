"""How often a unit is said to cause what it does not, and what it does: rows, and their page."""

from collections.abc import Mapping, Sequence

import numpy as np

from dragoman.core.records import Record
from dragoman.evals.rows import EvalRow
from dragoman.tools.captioning.units import UnitKind
from dragoman.tools.statistics import bootstrap, wilson

NAMES: Mapping[UnitKind, str] = {
    "mlp": "MLP neurons",
    "head": "attention heads",
    "resid": "components of the stream",
    "latent": "latents",
}
_HEAD = (
    "| units | layer | n | cases | claimed, one control | claimed | p at most .05, one control "
    "| p at most .05 | own words claimed, one control | own words claimed |"
)


class Counts(Record):
    """How many sets of tokens a unit was asked about, and how many it was said to act on."""

    n: int
    claimed: int
    """The whole interval lies above both bars."""
    claimed_by_units: int
    """It lies above the bar of like units, whatever the unit does to other words."""
    p: int
    """p is at most 0.05."""
    p_by_units: int


class Row(EvalRow):
    """One unit."""

    made: str
    """Digest of code, subject, texts and setting: rows that differ in it are not of one study."""
    kind: UnitKind
    layer: int
    unit: str
    others: Counts
    """Tokens that captions of other units of its layer name, and that are not its own."""
    own: Counts | None
    """The tokens that it writes most of; None where that changes from token to token."""

    @property
    def key(self) -> str:
        return self.unit

    @property
    def told(self) -> str:
        return (
            f"unit {self.unit}: {self.others.claimed} of {self.others.n} claimed of others' words"
        )


def render(rows: Sequence[Row], introduction: str) -> str:
    """The page: one line a layer, and one for each kind."""
    lines = [introduction, "", _HEAD, f"|{'---|' * 10}"]
    for kind, name in NAMES.items():
        of_kind = [row for row in rows if row.kind == kind]
        layers = sorted({row.layer for row in of_kind})
        for layer in layers:
            lines.append(_line(name, str(layer), [row for row in of_kind if row.layer == layer]))
        if len(layers) > 1:
            lines.append(_line(f"**{name}**", "all", of_kind))
    return "\n".join(lines) + "\n"


def _line(name: str, layer: str, rows: Sequence[Row]) -> str:
    others = [row.others for row in rows if row.others.n]
    own = [row.own for row in rows if row.own is not None]
    cells = [
        name,
        layer,
        str(len(rows)),
        str(sum(each.n for each in others)),
        _share([each.claimed_by_units / each.n for each in others]),
        _share([each.claimed / each.n for each in others]),
        _share([each.p_by_units / each.n for each in others]),
        _share([each.p / each.n for each in others]),
        _share([each.claimed_by_units / each.n for each in own]),
        _share([each.claimed / each.n for each in own]),
    ]
    return f"| {' | '.join(cells)} |"


def _share(of_units: Sequence[float]) -> str:
    """Mean over units and its interval: what one unit does to many words is not many samples."""
    if not of_units:
        return ""
    if len(set(of_units)) > 1:
        low, high = bootstrap(of_units, seed=0)
    else:  # resampling would call it certain
        low, high = wilson(sum(of_units), len(of_units))
    return f"{np.mean(of_units):.3f} [{low:.3f}, {high:.3f}]"
