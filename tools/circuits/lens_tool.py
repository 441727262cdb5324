"""The tool `attribute_lens`: a relation read at every layer and token, also under distraction."""

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dragoman.core.errors import ToolError
from dragoman.core.escaping import well_formed
from dragoman.core.records import Artifact, Measurement, ToolSuccess
from dragoman.tools.circuits.distraction import (
    PLAIN,
    Reading,
    Recall,
    choose_reading,
    examples_of,
    measure_recall,
    recall_all,
)
from dragoman.tools.circuits.fitted import Reader, fit_reader
from dragoman.tools.circuits.heat_plot import draw_heat
from dragoman.tools.circuits.lens import LensMap, distract, false_objects, read_text
from dragoman.tools.circuits.study import (
    PLANS,
    Facts,
    gather_facts,
)
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import (
    MINIMUM_SAMPLES,
    Relation,
    RelationName,
    Sample,
    load_relation,
    relation_caveats,
)

MAXIMUM_TOKENS = 96
"""Of a text that is read: its heat map has a column for each."""
_EXAMPLES = 4
_PUBLISHED = {"repetition": (0.02, 0.54), "instruction": (0.03, 0.63)}


@tool(method="circuits", narrow=True)
def attribute_lens(
    ctx: ToolContext,
    relation: RelationName,
    text: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=2000,
            description=f"Any text of at most {MAXIMUM_TOKENS} tokens; "
            "left out, a known fact's question after a false statement is read",
        ),
    ] = None,
    effort: Annotated[
        Effort, Field(description="'quick' takes about a minute, 'full' several")
    ] = "full",
) -> ToolSuccess:
    """Read a relation's object from every layer and token of a text, through the relation's map.

    The heat map shows what each hidden state would say if it were asked for the object. Measured on
    test facts that the subject knows, asked after a false statement (told twice, or with the
    demand to repeat it): `lens_recall_at_1` to 3 and `output_recall_at_1` to 3, the fraction whose
    object is among the best tokens of the lens at the entity or of the subject's own output;
    `lens_lead_at_1`, the former minus the latter. Where the lead is above 0 and its control, the
    subject holds the truth while it says otherwise. Controls: shuffled relation, logit lens, bias.
    """
    loaded = load_relation(relation)
    subject = ctx.subject
    asked: Sample | None = None
    if text is not None:
        text = well_formed(text)
        n_tokens = len(subject.token_ids(text))
        if n_tokens > MAXIMUM_TOKENS:
            raise ToolError(
                f"text has {n_tokens} tokens; a lens reads texts of 1..{MAXIMUM_TOKENS} tokens"
            )
        asked = mentioned(loaded, text)
    # The map must not have been estimated from the fact that it is to read.
    kept = _without(loaded, asked)
    ctx.step(0, 0, f"asking {len(kept.samples)} facts of {kept.name}")
    facts = gather_facts(subject, kept, PLANS[effort], ctx.seed)
    caveats = relation_caveats(loaded)
    tested, tried = facts.known_among(facts.test), facts.known_among(facts.validation)
    if not facts.judgeable:
        return ToolSuccess(
            summary=f"{loaded.name}: the lens cannot be judged: {facts.lacking}",
            output={"relation": loaded.name, "effort": effort, "n_known_test": len(tested)},
            caveats=tuple(caveats),
        )
    template = loaded.prompt_templates[0]
    reader = fit_reader(ctx, template, facts)
    reading = choose_reading(subject, template, facts.of(tried), reader)
    ctx.step(0, 0, "asking after false statements")
    found = recall_all(subject, template, facts.of(tested), kept.objects, reader, reading, ctx.seed)
    n_failed = len(facts.test) - len(tested)
    headlines, controls = measure_recall(found, n_failed, ctx.seed)

    if text is None:
        text, asked = _distracted_text(ctx, template, facts, tested, kept)
    read = read_text(
        subject, reader.maps, _betas(reader, reading), text, relation=loaded.name, fact=asked
    )
    caveats.append("one split of the facts: another seed may choose another layer")
    if asked in facts.estimation:
        caveats.append("too few facts to leave this one out: the map was estimated from it too")
    if asked is None:
        caveats.append("the text names no entity of the relation: the map shows no known object")
    return ToolSuccess(
        summary=_summary(loaded.name, reading, headlines),
        measurements=tuple(headlines),
        controls=tuple(controls),
        output={
            "relation": loaded.name,
            "template": template,
            "effort": effort,
            "layer": reading.layer,
            "beta": reading.beta,
            "published": {name: list(pair) for name, pair in _PUBLISHED.items()},
            "lens": read.row(reading.layer),
            "heat": read.heat(),
            "examples": examples_of(found, _EXAMPLES),
        },
        artifacts=_artifacts(ctx, loaded.name, found, read),
        caveats=tuple(caveats),
    )


def mentioned(relation: Relation, text: str) -> Sample | None:
    """The fact whose entity, as whole words, the text names last; the longest that ends there."""
    found: list[tuple[int, int, Sample]] = []
    for sample in relation.samples:
        whole = re.compile(rf"(?<!\w){re.escape(sample.subject)}(?!\w)")
        ends = [match.end() for match in whole.finditer(text)]
        if ends:
            found.append((ends[-1], len(sample.subject), sample))
    return max(found, key=lambda each: each[:2])[2] if found else None


def _without(relation: Relation, asked: Sample | None) -> Relation:
    samples = tuple(sample for sample in relation.samples if sample != asked)
    if len(samples) < MINIMUM_SAMPLES:
        return relation
    return relation.model_copy(update={"samples": samples})


def _distracted_text(
    ctx: ToolContext, template: str, facts: Facts, tested: list[int], relation: Relation
) -> tuple[str, Sample]:
    """The first known test fact, asked after a false statement told twice."""
    fact = facts.of(tested)[0]
    lie = false_objects(ctx.subject, [fact], relation.objects, ctx.seed)[0]
    return distract("repetition", template, fact.subject, lie).text, fact


def _betas(reader: Reader, reading: Reading) -> dict[int, float]:
    """Each layer's own beta, and at the layer of the lens the one chosen without examples."""
    return {**reader.betas, reading.layer: reading.beta}


def draw_lens(read: LensMap, kind: Literal["svg", "png"] = "svg") -> bytes:
    """The heat map, coloured by the known object's probability, if there is one."""
    known = read.object_probability is not None
    return draw_heat(
        f"{read.relation}, read at every layer and token",
        np.asarray(read.object_probability if known else read.probability, dtype=float),
        read.tokens,
        [str(layer) for layer in read.layers],
        f"probability of {read.object!r}" if known else "probability of the best token",
        words=[[cell[0] for cell in row] for row in read.read],
        kind=kind,
    )


def _artifacts(
    ctx: ToolContext, name: str, found: list[Recall], read: LensMap
) -> tuple[Artifact, ...]:
    shares = np.array(
        [
            [np.mean(recall.hits(reader, k)) for recall in found for k in (1, 2, 3)]
            for reader in ("output", "lens", "logit lens", "bias alone")
        ]
    )
    columns = [
        f"{'plain' if recall.condition == PLAIN else recall.condition} @{k}"
        for recall in found
        for k in (1, 2, 3)
    ]
    recalls = draw_heat(
        f"{name}: recall under distraction",
        shares,
        columns,
        ["output", "lens", "logit lens", "bias alone"],
        "recall (fraction)",
        words=[[f"{cell:.2f}" for cell in row] for row in shares],
    )
    return (
        ctx.save("lens.svg", draw_lens(read), "image/svg+xml"),
        ctx.save("recall.svg", recalls, "image/svg+xml"),
        ctx.save("lens.json", read.model_dump_json(), "application/json"),
    )


def _summary(name: str, reading: Reading, headlines: list[Measurement]) -> str:
    by_name = {(each.metric, each.scope): each for each in headlines}
    parts = []
    for condition in _PUBLISHED:
        lens = by_name["lens_recall_at_1", condition]
        output = by_name["output_recall_at_1", condition]
        parts.append(
            f"under {condition} the lens names {lens.value:.2f} "
            f"({lens.control}: {lens.baseline:.2f}) where the output names {output.value:.2f}"
        )
    n = by_name["lens_recall_at_1", PLAIN].n
    return f"{name} at layer {reading.layer} (n={n}): " + "; ".join(parts)
