"""`caption_neurons` and `find_exemplars` on vision subjects: channels, seen on images."""

from collections.abc import Sequence

import numpy as np

from dragoman.core.errors import ToolError
from dragoman.core.escaping import visible
from dragoman.core.records import (
    Artifact,
    JsonObject,
    Measurement,
    ToolSuccess,
    canonical_json,
    content_id,
)
from dragoman.tools.captioning import figures
from dragoman.tools.captioning.atlas import Atlas
from dragoman.tools.captioning.examination import NO_TWIN
from dragoman.tools.captioning.meanings import embedder
from dragoman.tools.captioning.rows import row_of_entry
from dragoman.tools.captioning.vision.bench import (
    DECOYS,
    VisionBench,
    images_of,
    labeller_of,
    lay_out,
    shown_exemplars,
)
from dragoman.tools.captioning.vision.captioner import TAU
from dragoman.tools.captioning.vision.causal import with_causes
from dragoman.tools.captioning.vision.describing import Proposer, choose_all, choose_twin
from dragoman.tools.captioning.vision.entries import entry_of
from dragoman.tools.captioning.vision.exemplars import collect
from dragoman.tools.captioning.vision.images import ImageSet
from dragoman.tools.captioning.vision.pictures import MEDIA_TYPE, grid, masked_views
from dragoman.tools.captioning.vision.scores import VisionAssessment, assess_bench
from dragoman.tools.captioning.vision.store import VisionExemplars
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.statistics import wilson

_FEW_IMAGES = 100


def caption_channels(
    context: ToolContext,
    layer: int,
    units: Sequence[int],
    *,
    images: str | None,
    effort: Effort,
    pmi: bool,
    proposers: Sequence[Proposer] = (),
) -> ToolSuccess:
    """Captions, senses and scores of a layer's channels; at full effort beside a random twin."""
    context.vision.check_units(layer, units)
    bench = lay_out(
        context,
        layer,
        units,
        images_of(images, effort, context.seed),
        n_decoys=DECOYS[effort],
        twin=effort == "full",
    )
    choices = choose_all(context, bench, pmi=pmi, proposers=proposers)
    found = assess_bench(
        bench,
        choices.chosen,
        choose_twin(bench, pmi=pmi),
        effort=effort,
        seed=context.seed,
        vectors=embedder(context),
    )
    found = with_causes(context, bench, choices.chosen, found, effort=effort)
    tau = TAU if pmi else 0.0
    entries = [
        entry_of(bench, unit, chosen, scored, tau=tau)
        for unit, (chosen, scored) in enumerate(zip(choices.chosen, found, strict=True))
    ]
    rows = [
        row_of_entry(
            "channel",
            layer,
            unit,
            entry,
            () if scored is None else scored.measurements,
            () if scored is None else scored.controls,
        )
        for unit, entry, scored in zip(units, entries, found, strict=True)
    ]
    # So that search_neurons finds them.
    atlas = Atlas(context.home, context.vision.identity.digest)
    called = [bench.images.digest, effort, bench.unit_names, tau, context.seed]
    atlas.store(content_id(["caption_neurons", *called]), rows)
    description: JsonObject = {
        "captions": list(entries),
        "images": bench.images.description,
        "n_images": len(bench.images),
        "n_images_failed": bench.n_failed,
        "tau": tau,
        "proposers": choices.cost,
    }
    exemplars, own = shown_exemplars(context, bench.images, [layer])
    artifacts = [
        context.save("captions.json", canonical_json(description), "application/json"),
        *_pictures(context, exemplars, own, layer, units),
    ]
    measurements = [each for scored in found if scored is not None for each in scored.measurements]
    detections = [each for each in measurements if each.metric == "detection"]
    if detections:
        held = [scored.holds for scored in found if scored is not None]
        plot = figures.detection_plot(detections, held)
        artifacts.append(context.save("detection.svg", plot, "image/svg+xml"))
    return ToolSuccess(
        summary=_summary(f"{context.vision.layers[layer]} (layer {layer})", entries),
        measurements=tuple(measurements),
        controls=tuple(each for scored in found if scored is not None for each in scored.controls),
        output=description,
        artifacts=tuple(artifacts),
        caveats=_caveats(context, bench, found, choices.n_failed),
    )


def find_images(
    context: ToolContext,
    layer: int,
    units: Sequence[int],
    *,
    images: str | None,
    effort: Effort,
) -> ToolSuccess:
    """The images in which channels are most active, with their masks, as `find_exemplars` says."""
    context.vision.check_units(layer, units)
    shown = images_of(images, effort, context.seed)
    found = collect(context, shown, [layer])
    dead, density = found.dead(layer), found.density(layer)
    entries: list[JsonObject] = []
    for unit in units:
        entry: JsonObject = {
            "unit": f"{layer}.{unit}",
            "threshold": round(found.threshold(layer, unit), 4),
            "density": round(float(density[unit]), 4),
            "exemplars": [
                {
                    "image": visible(shown.ids[each.image]),
                    "label": visible(shown.labels[each.image] or ""),
                    "activation": round(each.activation, 4),
                    "share_of_image": round(float(found.mask(layer, unit, each.image).mean()), 4),
                }
                for each in ([] if dead[unit] else found.exemplars(layer, unit))
            ],
        }
        if dead[unit]:
            entry["reason"] = "dead on these images: never above zero, or always the same"
        entries.append(entry)
    n_dead = sum(bool(dead[unit]) for unit in units)
    told = f"; {n_dead} of them dead on these images" if n_dead else ""
    return ToolSuccess(
        summary=(
            f"The strongest images of {len(units)} units of {context.vision.layers[layer]} "
            f"(layer {layer}) among {found.n_images} images{told}."
        ),
        measurements=tuple(_densities(found, layer, units)),
        output={
            "images": shown.description,
            "n_images": found.n_images,
            "n_images_failed": len(found.failed) + len(shown.undecodable),
            "units": list(entries),
        },
        artifacts=tuple(_pictures(context, found, shown, layer, units)),
        caveats=(
            "Exemplars show when a unit is active (correlation), not what it causes.",
            *_few(found.n_images),
        ),
    )


def _densities(found: VisionExemplars, layer: int, units: Sequence[int]) -> list[Measurement]:
    density = found.density(layer)
    return [
        Measurement(
            metric="activation_density",
            value=float(density[unit]),
            unit="fraction",
            baseline=float(np.median(density)),
            control=f"median of the {len(density)} units of layer {layer}",
            # Positions of one image are not independent: the interval counts images.
            ci95=wilson(float(density[unit]) * found.n_images, found.n_images),
            n=found.n_images,
            n_failed=len(found.failed),
            scope=f"unit {layer}.{unit}",
        )
        for unit in units
    ]


def _pictures(
    context: ToolContext,
    exemplars: VisionExemplars,
    images: ImageSet,
    layer: int,
    units: Sequence[int],
) -> list[Artifact]:
    dead = exemplars.dead(layer)
    return [
        context.save(
            f"exemplars-{layer}.{unit}.jpg",
            grid(masked_views(context.vision, images, exemplars, layer, unit)),
            MEDIA_TYPE,
        )
        for unit in units
        if not dead[unit]
    ]


def _summary(where: str, entries: Sequence[JsonObject]) -> str:
    named = [entry for entry in entries if entry["caption"] is not None]
    captions = "; ".join(f"{entry['unit']}: {entry['caption']}" for entry in named[:4])
    more = f"; and {len(named) - 4} more" if len(named) > 4 else ""
    told = f" ({captions}{more})" if named else ""
    return (
        f"{len(named)} of {len(entries)} units of {where} have a caption "
        f"that beats its floor{told}."
    )


def _caveats(
    context: ToolContext,
    bench: VisionBench,
    found: Sequence[VisionAssessment | None],
    n_failed: int,
) -> tuple[str, ...]:
    caveats = [
        "A caption tells when a unit is active (correlation); what it causes is told by "
        "causal_effect alone.",
        *_few(len(bench.images)),
    ]
    if labeller_of(context) is None:
        caveats.append(
            "No kinds of things were looked for: `dragoman weights pull efficientnet-lite2` brings "
            "the labeller."
        )
    unscored = [
        name for name, scored in zip(bench.unit_names, found, strict=True) if scored is None
    ]
    if unscored:
        caveats.append(f"Not scored, for too few held-out images or none: {', '.join(unscored)}.")
    if bench.n_failed:
        caveats.append(f"{bench.n_failed} images did not decode and were left out.")
    if bench.twin is None:
        caveats.append(NO_TWIN)
    if n_failed:
        caveats.append(f"{n_failed} captions or replies of proposers said nothing checkable.")
    return tuple(caveats)


def _few(n_images: int) -> tuple[str, ...]:
    if n_images >= _FEW_IMAGES:
        return ()
    return (f"{n_images} images are few for a 0.99 quantile: thresholds are rough.",)


def only_pictures(**given: object) -> None:
    """`ToolError` for an argument of language subjects that was given for a vision subject."""
    for name, value in given.items():
        if value is not None:
            raise ToolError(
                f"{name}: a vision subject's units are channels seen on images; leave {name} out"
                + (" and name a folder with images" if name == "corpus" else "")
            )
