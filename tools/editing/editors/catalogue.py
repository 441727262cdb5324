"""Every kind of editor by its name."""

from typing import Literal, TypeAlias

import torch

from dragoman.tools.editing.editors.base import Editor
from dragoman.tools.editing.editors.linear import Linear, LinearWithEntity
from dragoman.tools.editing.editors.low_rank import LowRank, LowRankWithEntity
from dragoman.tools.editing.editors.mlp import Mlp

Kind: TypeAlias = Literal["linear", "linear_entity", "low_rank", "low_rank_entity", "mlp"]

KINDS: dict[Kind, type[Linear] | type[LowRank] | type[Mlp]] = {
    "linear": Linear,
    "linear_entity": LinearWithEntity,
    "low_rank": LowRank,
    "low_rank_entity": LowRankWithEntity,
    "mlp": Mlp,
}


def make_editor(kind: Kind, d_model: int, seed: int) -> Editor:
    """A new editor of that kind, on the CPU; the seed draws its first weights."""
    return KINDS[kind](d_model, torch.Generator().manual_seed(seed))
