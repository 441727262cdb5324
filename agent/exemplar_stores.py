"""`dragoman exemplars` without its terminal: one pass for all layers, merging, units to read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.agent.batch_captions import (
    BatchRequest,
    context_of,
    kind_and_dictionary,
    layers_of,
)
from dragoman.agent.workbench import Workbench
from dragoman.core.errors import ToolError, UserError
from dragoman.core.protocols import Cancelled, Progress
from dragoman.core.records import JsonObject, Record

if TYPE_CHECKING:
    from dragoman.tools.captioning.store import ExemplarStore
    from dragoman.tools.captioning.units import UnitLayer


class StoreOutcome(Record):
    """A finished store."""

    folder: str
    layers: tuple[str, ...]
    """Such as `mlp.12`."""
    n_units: int
    n_dead: int
    """Never above zero on these texts, or always the same."""
    n_documents: int
    n_tokens: int
    corpus: str


def collect_exemplars(
    bench: Workbench, request: BatchRequest, *, progress: Progress, cancelled: Cancelled
) -> StoreOutcome:
    """One pass over the texts for every unit of the layers asked for, by default of all layers.

    A pass that was stopped goes on after its last finished shard. `UserError` for a wrong option,
    an empty corpus, a full disk; `Interrupted` when asked to stop.
    """
    from dragoman.tools.captioning.find import streamed
    from dragoman.tools.captioning.passes import collect
    from dragoman.tools.captioning.units import UnitLayer

    if bench.subject.kind == "vision":
        raise UserError(
            "exemplars of a vision subject's units come with `dragoman caption` and the tool "
            "find_exemplars"
        )
    context = context_of(bench, request, progress=progress, cancelled=cancelled)
    context.subject.check_wide("exemplars")
    n_layers = context.subject.n_layers
    layers = layers_of(request.layers, n_layers) or tuple(range(n_layers))
    kind, dictionary = kind_and_dictionary(context, request, layers)
    corpus = None if request.corpus is None else str(request.corpus)
    try:
        store = collect(
            context,
            streamed(context, corpus, "quick" if request.quick else "full"),
            [UnitLayer(kind=kind, layer=layer) for layer in layers],
            dictionary=dictionary,
            folder=None if request.out is None else request.out.expanduser(),
        )
    except ToolError as error:  # here it is a person who named the corpus
        raise UserError(str(error)) from None
    return _outcome(store)


def merge_exemplars(folders: Sequence[Path], out: Path) -> StoreOutcome:
    """One store of several finished ones: to the bit that of one pass over all their texts."""
    from dragoman.tools.captioning.store import merge

    target = out.expanduser()
    if target.exists():
        raise UserError(f"{target}: is there already; name a new folder with --out")
    return _outcome(merge([folder.expanduser() for folder in folders], target))


def units_of_store(folder: Path, units: Sequence[str]) -> list[JsonObject]:
    """Exemplars and silent contexts of units by name: '12.77' or 'mlp.12.77'."""
    from dragoman.tools.captioning.find import entry_of
    from dragoman.tools.captioning.store import ExemplarStore

    store = ExemplarStore.open(folder.expanduser())
    return [entry_of(store, *_place(store, unit)) for unit in units]


def _place(store: "ExemplarStore", name: str) -> "tuple[UnitLayer, int]":
    """The layer and index of a unit of the store; `UserError` says which units it has."""
    layer, _, unit = name.rpartition(".")
    known = {str(where): where for where in store.manifest.question.wheres}
    where = known.get(layer) or known.get(f"mlp.{layer}")
    if where is None or not unit.isdecimal():
        raise UserError(
            f"unit {name!r}: the store has units of {', '.join(known)}; write for example "
            f"{next(iter(known))}.0"
        )
    n_units = store.summaries[where].n_units
    if int(unit) >= n_units:
        raise UserError(f"unit {name!r}: {where} has units 0 to {n_units - 1}")
    return where, int(unit)


def _outcome(store: "ExemplarStore") -> StoreOutcome:
    return StoreOutcome(
        folder=str(store.folder),
        layers=tuple(str(where) for where in store.summaries),
        n_units=sum(each.n_units for each in store.summaries.values()),
        n_dead=sum(int(each.dead().sum()) for each in store.summaries.values()),
        n_documents=store.manifest.n_documents,
        n_tokens=store.n_positions,
        corpus=store.manifest.description,
    )
