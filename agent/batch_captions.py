"""`dragoman caption` without its terminal: what is asked for, run, and left behind."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from dragoman.agent.workbench import Workbench
from dragoman.core.errors import Interrupted, ToolError, UserError
from dragoman.core.protocols import Cancelled, Progress
from dragoman.core.records import Record

if TYPE_CHECKING:
    from dragoman.tools.captioning.batch import BatchSettings, Describe, Group, Pace
    from dragoman.tools.captioning.dictionaries import SparseDictionary
    from dragoman.tools.captioning.units import UnitLayer
    from dragoman.tools.captioning.whole import Texts
    from dragoman.tools.context import ToolContext

Kind: TypeAlias = Literal["mlp", "resid", "head", "latent"]

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_MOST_NUMBERS = 10_000_000


@dataclass(frozen=True)
class BatchRequest:
    """What a person asks for; None stands for a default that depends on the subject."""

    layers: str | None = None
    """Such as '3-8' or '0,4'; by default the one in the middle, of a dictionary its own."""
    units: str | None = None
    """Such as '0-31,77'; by default all of each layer."""
    kind: Kind = "mlp"
    dictionary: Path | None = None
    """A sparse autoencoder as safetensors; implies kind `latent`."""
    corpus: Path | None = None
    """A person's own texts; by default the subject writes them."""
    exemplars: Path | None = None
    """In place of a corpus: what a pass over one left, a store of exemplars."""
    images: Path | None = None
    """For a vision subject: a person's folder of images; by default the probe set."""
    captioner: Path | None = None
    """For a vision subject: a folder with an image-to-text model that proposes captions too."""
    quick: bool = False
    pmi: bool = True
    thorough: bool = False
    """Also the random twin, the causal check and the slow judges."""
    seed: int = 0
    out: Path | None = None
    resume: bool = False


class BatchOutcome(Record):
    """How a run ended, and where its files are."""

    outcome: Literal["done", "interrupted"]
    folder: str
    n_units: int
    """Units that were asked for."""
    n_done: int
    n_new: int
    """Units that this very run captioned."""
    n_captioned: int
    """Units with a caption that beats its floor."""
    n_images_failed: int = 0
    """Picture files that do not decode and were left out."""
    seconds: float
    files: tuple[str, ...]


class _Work(NamedTuple):
    """A batch that is ready to run."""

    settings: "BatchSettings"
    groups: "Sequence[Group]"
    describing: "Callable[[Path], Describe]"
    """Given the run's folder."""


def numbers(text: str, option: str) -> tuple[int, ...]:
    """'3-5,9' as 3, 4, 5, 9, each once and in order; `UserError` names the option."""
    chosen: dict[int, None] = {}
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise UserError(f"{option} {text!r}: give numbers and ranges, such as 3-8 or 0,4,7")
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low or high - low >= _MOST_NUMBERS:
            raise UserError(f"{option} {text!r}: {part.strip()} is no range of numbers")
        chosen |= dict.fromkeys(range(low, high + 1))
    return tuple(sorted(chosen))


def caption_all(
    bench: Workbench,
    request: BatchRequest,
    *,
    on_pace: "Callable[[Pace], None]",
    progress: Progress,
    cancelled: Cancelled,
) -> BatchOutcome:
    """Caption every unit that is asked for, or go on with a run that was.

    Rows, table, page and atlas are written also when the run is interrupted, as far as it came.

    Raises:
        UserError: a wrong option, a folder that holds another run, a full disk.
    """
    from dragoman.tools.captioning import batch

    settings = bench.settings
    context = context_of(bench, request, progress=progress, cancelled=cancelled)
    try:
        with batch.room(settings.home):
            run_settings, groups, describing = _units(context, request)
        folder = request.out or _default_folder(settings.home, run_settings)
        n_units = sum(len(group.names) for group in groups)
        last: list[Pace] = []

        def paced(pace: "Pace") -> None:
            last[:] = [pace]
            on_pace(pace)

        outcome: Literal["done", "interrupted"] = "done"
        try:
            batch.run(
                folder,
                run_settings,
                groups,
                describing(folder),
                resume=request.resume,
                on_pace=paced,
            )
        except Interrupted:
            outcome = "interrupted"
            if not last:
                raise
        files = _leave_behind(context, folder, run_settings, n_units)
        n_captioned = n_images_failed = 0
        for row in batch.read_rows(folder):
            n_captioned += row.caption is not None
            n_images_failed = max(n_images_failed, row.n_images_failed)
    except ToolError as error:  # here it is a person who named the layer
        raise UserError(str(error)) from None
    return BatchOutcome(
        outcome=outcome,
        folder=str(folder),
        n_units=n_units,
        n_done=last[0].done,
        n_new=last[0].new,
        n_captioned=n_captioned,
        n_images_failed=n_images_failed,
        seconds=last[0].seconds,
        files=tuple(map(str, files)),
    )


def context_of(
    bench: Workbench, request: BatchRequest, *, progress: Progress, cancelled: Cancelled
) -> "ToolContext":
    """What work on units is given, outside of any experiment."""
    from dragoman.tools.context import ToolContext

    settings = bench.settings
    return ToolContext(
        network=bench.subject,
        seed=request.seed,
        home=settings.home,
        artifacts=settings.artifacts_folder / "captions",
        cache=settings.cache_folder,
        weights=settings.weights_folder,
        chat=bench.chat,
        progress=progress,
        cancelled=cancelled,
    )


def _units(context: "ToolContext", request: BatchRequest) -> "_Work":
    if context.network.kind == "vision":
        return _vision_units(context, request)
    if request.images is not None:
        raise UserError("--images: a language subject reads texts; name them with --corpus")
    if request.captioner is not None:
        raise UserError("--captioner: it describes images, and a language subject reads texts")
    return _language_units(context, request)


def _vision_units(context: "ToolContext", request: BatchRequest) -> "_Work":
    from dragoman.tools.captioning.vision.batch import VisionUnits
    from dragoman.tools.captioning.vision.bench import images_of
    from dragoman.tools.captioning.vision.chat_proposer import proposers_of
    from dragoman.tools.captioning.vision.local_proposer import local_proposers

    if request.corpus is not None or request.exemplars is not None:
        raise UserError(
            "--corpus, --exemplars: a vision subject looks at images; name a folder with --images"
        )
    if request.dictionary is not None or request.kind != "mlp":
        raise UserError("--kind, --dictionary: a vision subject's units are its layers' channels")
    effort: Literal["quick", "full"] = "quick" if request.quick else "full"
    subject = context.vision
    requests = {
        layer: _named_units(request, subject.n_units(layer), f"layer {layer}")
        for layer in layers_of(request.layers, subject.n_layers) or (subject.n_layers // 2,)
    }
    images = images_of(
        None if request.images is None else str(request.images), effort, request.seed
    )
    units = VisionUnits(
        context,
        requests,
        images,
        effort=effort,
        pmi=request.pmi,
        thorough=request.thorough,
        proposers=[
            *proposers_of(context),
            *local_proposers(None if request.captioner is None else str(request.captioner)),
        ],
    )
    return _Work(units.settings, units.groups, lambda folder: partial(units.describe, folder))


def _language_units(context: "ToolContext", request: BatchRequest) -> "_Work":
    from dragoman.tools.captioning.batch_language import LanguageUnits

    effort: Literal["quick", "full"] = "quick" if request.quick else "full"
    context.subject.check_wide("caption")
    n_layers = context.subject.n_layers
    layers = layers_of(request.layers, n_layers) or (n_layers // 2,)
    kind, dictionary = kind_and_dictionary(context, request, layers)
    requests = _requests(context, request, kind, layers, dictionary)
    texts = _texts(context, request, tuple(requests), effort, dictionary)
    units = LanguageUnits(
        context,
        requests,
        texts.corpus,
        effort=effort,
        pmi=request.pmi,
        thorough=request.thorough,
        whole=texts.whole,
        dictionary=dictionary,
    )
    return _Work(units.settings, units.groups, lambda folder: units.describe)


def _texts(
    context: "ToolContext",
    request: BatchRequest,
    wheres: "Sequence[UnitLayer]",
    effort: Literal["quick", "full"],
    dictionary: "SparseDictionary | None",
) -> "Texts":
    """What the units are watched on; a larger corpus of a person's is read whole, unless quick."""
    from dragoman.tools.captioning.tool import DOCUMENTS
    from dragoman.tools.captioning.whole import read_store, texts_of

    n_documents = DOCUMENTS[effort]
    if request.exemplars is not None:
        if request.corpus is not None:
            raise UserError("--exemplars brings its own texts: leave --corpus out")
        store = request.exemplars.expanduser()
        return read_store(context, store, wheres, n_documents, dictionary=dictionary)
    return texts_of(
        context,
        request.corpus,
        wheres,
        n_documents,
        entire=effort == "full",
        dictionary=dictionary,
    )


def kind_and_dictionary(
    context: "ToolContext", request: BatchRequest, layers: Sequence[int]
) -> "tuple[Kind, SparseDictionary | None]":
    """What units a person asks for; `UserError` where an autoencoder is lacking or out of place."""
    from dragoman.tools.captioning.dictionaries import load_dictionary

    if request.dictionary is None:
        if request.kind == "latent":
            raise UserError("--kind latent needs the autoencoder: --dictionary FILE.safetensors")
        return request.kind, None
    if request.kind not in ("mlp", "latent"):
        raise UserError(f"--dictionary gives latents, and --kind is {request.kind}")
    if len(layers) != 1:
        raise UserError("--dictionary reads one layer: name it with --layers")
    context.subject.check_layer(layers[0])
    return "latent", load_dictionary(request.dictionary.expanduser(), layers[0])


def _requests(
    context: "ToolContext",
    request: BatchRequest,
    kind: Kind,
    layers: tuple[int, ...],
    dictionary: "SparseDictionary | None",
) -> "Mapping[UnitLayer, tuple[int, ...]]":
    """The units of each layer; a layer that has fewer than were named is told."""
    from dragoman.tools.captioning.units import UnitLayer, n_units

    requests = {}
    for layer in layers:
        where = UnitLayer(kind=kind, layer=layer)
        every = n_units(context.subject, where, dictionary)
        requests[where] = _named_units(request, every, str(where))
    return requests


def _named_units(request: BatchRequest, every: int, where: str) -> tuple[int, ...]:
    """The units that are named, all of the layer's `every` by default."""
    if request.units is None:
        return tuple(range(every))
    named = numbers(request.units, "--units")
    if named[-1] >= every:
        raise UserError(f"--units {request.units}: {where} has units 0 to {every - 1}")
    return named


def layers_of(named: str | None, n_layers: int) -> tuple[int, ...]:
    """The layers that are named, such as '3-8'; empty where none are.

    `UserError` names a layer that is not there.
    """
    layers = () if named is None else numbers(named, "--layers")
    if layers and layers[-1] >= n_layers:
        raise UserError(f"--layers {named}: the subject has layers 0 to {n_layers - 1}")
    return layers


def _default_folder(home: Path, settings: "BatchSettings") -> Path:
    """One folder a run and its settings, so that the same command finds it again."""
    name = re.sub(r"[^\w.-]+", "-", settings.subject).strip("-.") or "subject"
    return home / "captions" / f"{name[:40]}-{settings.digest[:12]}"


def _leave_behind(
    context: "ToolContext", folder: Path, settings: "BatchSettings", n_units: int
) -> list[Path]:
    """Table, page and atlas from the rows; the files that a person opens."""
    from dragoman.tools.captioning import batch
    from dragoman.tools.captioning.atlas import Atlas
    from dragoman.tools.captioning.batch_table import write_table
    from dragoman.tools.captioning.page import write_page

    with batch.room(folder):
        page, table = write_page(folder, settings, n_units), write_table(folder)
        atlas = Atlas(context.home, settings.subject_digest)
        atlas.store(settings.digest, batch.read_rows(folder))
    return [page, folder / batch.ROWS_FILE, table]
