"""Units of a language subject, and their activations, for many layers in one forward pass.

An MLP neuron is read after the nonlinearity, as in MILAN (Hernandez et al. 2022, arXiv:2201.11114)
and delphi (Paulo et al. 2024, arXiv:2410.13928); a head by how much it writes into the residual
stream; a latent by a `SparseDictionary` at its site.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Record, Site, SiteKind
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.heads import heads_of, n_heads
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import Batch, LanguageSubject

UnitKind: TypeAlias = Literal["mlp", "resid", "head", "latent"]
See: TypeAlias = Callable[["UnitLayer", Float[Tensor, "batch pos units"]], None]
SITES: Mapping[UnitKind, SiteKind] = {"mlp": "mlp_act", "resid": "resid_post", "head": "attn_z"}
"""Where units are read that no dictionary says it of."""
_BATCH_DOCUMENTS = 32


class UnitLayer(Record):
    """All units of one kind in one layer; written `mlp.12`.

    `mlp`: neurons after the nonlinearity. `resid`: components of the residual stream after the
    block. `head`: one unit a head, the L2 norm of what it writes into the residual stream, without
    bias. `latent`: of the sparse dictionary that reads a site of this layer.
    """

    kind: UnitKind = "mlp"
    layer: Annotated[int, Field(ge=0)]

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """The layer that `str` wrote; `ToolError` for anything else."""
        kind, _, layer = name.partition(".")
        if kind not in {"mlp", "resid", "head", "latent"} or not layer.isdecimal():
            raise ToolError(f"{name!r} is no layer of units; write for example 'mlp.12'")
        return cls.model_validate({"kind": kind, "layer": int(layer)})


def n_units(
    subject: LanguageSubject, where: UnitLayer, dictionary: SparseDictionary | None = None
) -> int:
    """How many units are there; `ToolError` where there is no such layer."""
    subject.check_layer(where.layer)
    match where.kind:
        case "mlp":
            return subject.d_mlp
        case "resid":
            return subject.d_model
        case "head":
            return n_heads(subject)
        case "latent":
            return dictionary_of(subject, where, dictionary).n_latents


def check_units(
    subject: LanguageSubject,
    where: UnitLayer | int,
    units: Sequence[int],
    dictionary: SparseDictionary | None = None,
) -> None:
    """`ToolError` unless layer and units exist and no unit is named twice.

    A bare number for `where` means the MLP neurons of that layer.
    """
    if isinstance(where, int):
        subject.check_layer(where)
        where = UnitLayer(layer=where)
    last = n_units(subject, where, dictionary) - 1
    name = _NAMES[where.kind]
    for unit in units:
        if not 0 <= unit <= last:
            raise ToolError(
                f"{name} {unit} is outside 0..{last} of {where} "
                f"of subject {subject.identity.name!r}"
            )
    twice = sorted({unit for unit in units if list(units).count(unit) > 1})
    if twice:
        raise ToolError(f"{name}s: {twice[0]} is named twice; name each {name} once")


_NAMES: dict[UnitKind, str] = {
    "mlp": "neuron",
    "resid": "component",
    "head": "head",
    "latent": "latent",
}


def noun(kind: UnitKind, count: int = 2) -> str:
    """What units of that kind are called: 'neuron' of one, 'neurons' of several."""
    return _NAMES[kind] + ("" if count == 1 else "s")


def read_layers(
    context: ToolContext,
    documents: Sequence[str],
    table: TokenTable,
    units: Mapping[UnitLayer, Sequence[int]],
    *,
    dictionary: SparseDictionary | None = None,
) -> dict[UnitLayer, Float[ndarray, "tokens units"]]:
    """Activations of chosen units of many layers at every token of `table`, float32.

    One forward pass over the documents serves all layers, and it ends at the last of them. The
    document-start token is left out: it is a sink with activations of its own kind.
    """
    for where, chosen in units.items():
        check_units(context.subject, where, chosen, dictionary)
    lengths = np.bincount(table.document, minlength=len(documents))
    ends = np.cumsum(lengths)
    read = {
        where: np.zeros((table.n, len(chosen)), dtype=np.float32) for where, chosen in units.items()
    }
    columns = {where: torch.tensor(list(chosen)) for where, chosen in units.items()}
    # Documents of like length go together, so little of a batch is padding.
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    task = f"reading {sum(map(len, units.values()))} units of {', '.join(map(str, units))}"

    def keep(rows: ndarray, where: UnitLayer, activations: Tensor) -> None:
        picked = activations[..., columns[where].to(activations.device)].cpu().numpy()
        for row, document in enumerate(rows):
            length = lengths[document]
            read[where][ends[document] - length : ends[document]] = picked[row, -length:]

    reader = UnitReader(context.subject, list(units), dictionary)
    for start in range(0, len(order), _BATCH_DOCUMENTS):
        context.step(start, len(order), task)
        rows = order[start : start + _BATCH_DOCUMENTS]
        batch = context.subject.batch([documents[row] for row in rows])
        reader.observe(batch, partial(keep, rows))
    return read


def read_units(
    context: ToolContext,
    documents: Sequence[str],
    table: TokenTable,
    layer: int,
    units: Sequence[int],
) -> Float[ndarray, "tokens units"]:
    """`read_layers` for the MLP neurons of one layer."""
    where = UnitLayer(layer=layer)
    return read_layers(context, documents, table, {where: units})[where]


class UnitReader:
    """Reads all units of some layers of a subject, in one forward pass a batch.

    `ToolError` where the subject has no such layer.
    """

    def __init__(
        self,
        subject: LanguageSubject,
        wheres: Sequence[UnitLayer],
        dictionary: SparseDictionary | None = None,
    ) -> None:
        self.subject = subject
        self.sizes = {where: n_units(subject, where, dictionary) for where in wheres}
        self._dictionary = dictionary
        self._heads = {
            where: heads_of(subject, where.layer) for where in wheres if where.kind == "head"
        }

    @torch.no_grad()
    def observe(self, batch: Batch, see: See) -> None:
        """Show `see` all units of each layer; the pass ends at the last layer.

        What `see` is given may be the subject's own tensor: it must neither change nor keep it.
        """
        waiting = set(self.sizes)

        def seen(where: UnitLayer, activations: Tensor) -> None:
            see(where, activations)
            waiting.discard(where)
            if not waiting:
                raise _AllSeen

        with self._watching(seen):
            try:
                self.subject.forward(batch, logits_to_keep=1)
            except _AllSeen:
                return
        if waiting:
            raise RuntimeError(f"{sorted(map(str, waiting))} took no part in the forward pass")

    @contextmanager
    def _watching(self, see: See) -> Iterator[None]:
        with self.subject.editing([self._edit(where, see) for where in self.sizes]):
            yield

    def _edit(self, where: UnitLayer, see: See) -> Edit:
        change: Callable[[Tensor], Tensor]
        if where.kind == "latent":
            assert self._dictionary is not None
            site, change = self._dictionary.site, self._dictionary.encode
        else:
            site = Site(layer=where.layer, kind=SITES[where.kind])
            change = self._heads[where].norms if where.kind == "head" else _as_it_is

        def apply(activations: Tensor) -> Tensor:
            see(where, change(activations))
            return activations

        return Edit(site, apply)


class _AllSeen(Exception):
    """Ends a forward pass of whose further layers nobody wants to know."""


def _as_it_is(activations: Tensor) -> Tensor:
    """Units that are components of what is read."""
    return activations


def dictionary_of(
    subject: LanguageSubject, where: UnitLayer, dictionary: SparseDictionary | None
) -> SparseDictionary:
    """The dictionary whose latents the units of `where` are; `ToolError` where it does not fit."""
    if dictionary is None:
        raise ToolError(f"{where}: latents need a sparse dictionary; give its safetensors file")
    if where.layer != dictionary.site.layer:
        raise ToolError(
            f"layer {where.layer}: the sparse dictionary reads layer {dictionary.site.layer} only"
        )
    width = subject.site_width(dictionary.site)
    if dictionary.d_in != width:
        raise ToolError(
            f"the sparse dictionary reads vectors of {dictionary.d_in}; {dictionary.site.kind} of "
            f"subject {subject.identity.name!r} has {width}"
        )
    return dictionary
