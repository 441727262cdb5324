"""`score_caption` on vision subjects: how well anybody's caption of a channel holds."""

from dragoman.core.errors import ToolError
from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, ToolSuccess
from dragoman.tools.captioning.examination import NO_TWIN
from dragoman.tools.captioning.meanings import embedder
from dragoman.tools.captioning.scoring import MIN_ACTIVE
from dragoman.tools.captioning.vision.bench import DECOYS, images_of, lay_out
from dragoman.tools.captioning.vision.captioner import Candidate
from dragoman.tools.captioning.vision.causal import with_causes
from dragoman.tools.captioning.vision.concepts import CONCEPT, phrase
from dragoman.tools.captioning.vision.describing import choose_twin
from dragoman.tools.captioning.vision.reading import read
from dragoman.tools.captioning.vision.scores import assess_bench
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort


def score_channel(
    context: ToolContext,
    layer: int,
    unit: int,
    caption: str,
    *,
    images: str | None,
    effort: Effort,
) -> ToolSuccess:
    """All scores of a caption that was given; at full effort beside a random twin.

    Raises:
        ToolError: no such unit; a caption that names nothing which patches of images are checked
            for; a dead unit, or one with too few held-out images.
    """
    context.vision.check_units(layer, [unit])
    concept = read(caption)
    if concept is None:
        raise ToolError(
            f"caption {visible(caption, one_line=True)!r} cannot be checked: say it in colours, "
            "textures, shapes, kinds of things or classes of ImageNet, such as: red circles; "
            "vertical stripes or checks; dogs that are not white"
        )
    shown = images_of(images, effort, context.seed)
    bench = lay_out(context, layer, [unit], shown, n_decoys=DECOYS[effort], twin=effort == "full")
    if bench.captioner.dead(0):
        raise ToolError(
            f"neuron {unit} of layer {layer} is dead on these images: never above zero, or always "
            "the same; other images may rouse it"
        )
    chosen = bench.captioner.choose(0, [Candidate(caption, concept, "given")])
    scored = assess_bench(
        bench,
        [chosen],
        choose_twin(bench),
        effort=effort,
        seed=context.seed,
        vectors=embedder(context),
    )
    (found,) = with_causes(context, bench, [chosen], scored, effort=effort)
    if found is None or chosen is None:
        raise ToolError(
            f"neuron {unit} of layer {layer} has fewer than {MIN_ACTIVE} active or silent held-out "
            "images, so no caption of it can be scored; give more images"
        )
    described: JsonObject = {
        "unit": bench.unit_names[0],
        "caption": visible(caption),
        "holds": found.holds,
        "predicate": CONCEPT.dump_python(concept, mode="json"),
        "read_as": phrase(concept),
        "patches_needed": chosen.extent,
        "images": bench.images.description,
        "n_images_failed": bench.n_failed,
        "scores": found.output,
        **({} if found.causes is None else {"causal": found.causes}),
    }
    detection = found.measurements[0]
    return ToolSuccess(
        summary=(
            f"the caption {'beats' if found.holds else 'does not beat'} its floor on unit "
            f"{bench.unit_names[0]}: detection {detection.value:.2f}, floor "
            f"{detection.baseline:.2f}"
        ),
        measurements=found.measurements,
        controls=found.controls,
        output=described,
        caveats=(
            "All scores but causal_effect are correlational: it alone says what the unit causes.",
            *((NO_TWIN,) if bench.twin is None else ()),
        ),
    )
