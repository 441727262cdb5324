"""An editor on entities that it never saw: every probe, every text, every baseline."""

from collections.abc import Sequence
from typing import NamedTuple

from dragoman.core.records import Measurement
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.comparison import (
    Comparison,
    compare,
    compare_methods,
    directions_of,
)
from dragoman.tools.editing.directions import EDITED, NO_EDIT, RANDOM, REPLACED
from dragoman.tools.editing.judging import token_of
from dragoman.tools.editing.material import held_out_template
from dragoman.tools.editing.measuring import (
    measure_collateral,
    measure_efficacy,
    measure_magnitude,
    measure_probability,
    measure_specificity,
)
from dragoman.tools.editing.methods import all_methods
from dragoman.tools.editing.overall import Overall, overall
from dragoman.tools.editing.probes import (
    Kind,
    Probe,
    edit_probes,
    neighbour_probes,
    unrelated_probes,
)
from dragoman.tools.editing.records import EditRecord, swap_objects
from dragoman.tools.editing.study import Study
from dragoman.tools.editing.text_metrics import TextScores, measure_texts, score_texts
from dragoman.tools.editing.writing import Opening, Written, openings_about, write

UNKNOWN = "facts that the subject does not know"
_REFERENCE_SEED = 1


class Outcome(NamedTuple):
    """What an editor and its baselines did on test entities."""

    comparison: Comparison
    answers: list[Written]
    """Texts after the relation's prompt."""
    about: list[Written]
    """Texts about the entities."""
    scores: TextScores
    five: Overall
    measurements: tuple[Measurement, ...]
    """Of the editor; the first is its efficacy."""
    controls: tuple[Measurement, ...]
    """The same of every baseline; the scope is the method."""


def held_out_records(ctx: ToolContext, study: Study) -> list[EditRecord]:
    """Edits of the test entities, several new objects each."""
    knowledge, plan = study.knowledge, study.plan
    return swap_objects(
        study.split.test[: plan.max_test_entities],
        knowledge.objects,
        knowledge.first_tokens,
        ctx.seed + 2,
        per_entity=plan.test_per_entity,
    )


def evaluate(ctx: ToolContext, study: Study, records: Sequence[EditRecord]) -> Outcome:
    """Measure everything on `records`, whose entities training did not see."""
    plan, layer = study.plan, study.fit.layer
    directions = directions_of(ctx, study, records)
    comparison = compare(ctx, study, records, _probes(ctx, study, records), directions)
    methods = comparison.compared
    ctx.step(0, 0, "writing text with and without the edits")
    # One record of each of the first entities: records go round the entities.
    asked = [
        Opening(probe.record, probe.prompt)
        for probe in comparison.probes["rewrite"][: plan.generated_prompts]
    ]
    length = plan.generated_tokens
    answers = write(ctx.subject, asked, layer, methods, length, seed=ctx.seed)
    stand_ins = [method for method in methods if method.name == REPLACED]
    references = (
        write(ctx.subject, asked, layer, stand_ins, length, seed=ctx.seed + _REFERENCE_SEED)
        if stand_ins
        else [Written(opening, {}) for opening in asked]
    )
    ctx.step(0, 0, "writing about the entities with and without the edits")
    openings = openings_about(records, plan.generated_prompts)
    about = write(ctx.subject, openings, layer, methods, length, seed=ctx.seed)
    scores = score_texts(answers, references, about)
    five = overall(comparison, scores, answers, about)
    found = (
        *measure_efficacy(comparison, "rewrite", "efficacy"),
        *measure_specificity(comparison),
        *measure_efficacy(comparison, "paraphrase", "paraphrase_efficacy"),
        *measure_texts(scores, length, ctx.seed),
        *five.measure(ctx.seed),
        *measure_magnitude(comparison, ctx.seed),
        *measure_collateral(comparison, ctx.seed),
        measure_probability(comparison, "rewrite", ctx.seed),
    )
    return Outcome(
        comparison,
        answers,
        about,
        scores,
        five,
        tuple(one for one in found if one.scope not in comparison.methods),
        tuple(one for one in found if one.scope in comparison.methods),
    )


def unknown_facts(ctx: ToolContext, study: Study) -> list[Measurement]:
    """Efficacy where the subject did not know the fact to begin with: no headline number."""
    knowledge, plan = study.knowledge, study.plan
    facts = study.split.test_unknown[: plan.max_test_entities]
    records = swap_objects(
        facts, knowledge.objects, knowledge.first_tokens, ctx.seed + 3, per_entity=1
    )
    if not records:
        return []
    probes = edit_probes(records, knowledge, [knowledge.rewrite], known_only=False)
    methods = all_methods(records, knowledge, directions_of(ctx, study, records))
    # Its efficacy and its control's are all that is wanted here.
    few = [method for method in methods if method.name in (EDITED, NO_EDIT, RANDOM)]
    comparison = compare_methods(ctx, knowledge, records, {"rewrite": probes}, few, study.fit.layer)
    return measure_efficacy(comparison, "rewrite", "efficacy", scope=UNKNOWN)[:1]


def _probes(
    ctx: ToolContext, study: Study, records: Sequence[EditRecord]
) -> dict[Kind, list[Probe]]:
    knowledge, split = study.knowledge, study.split
    paraphrase = held_out_template(knowledge)
    return {
        "rewrite": edit_probes(records, knowledge, [knowledge.rewrite]),
        "paraphrase": edit_probes(records, knowledge, [paraphrase] if paraphrase else []),
        **neighbour_probes(
            records[: study.plan.neighbour_records],
            knowledge,
            token_of(ctx.subject, knowledge),
            (*split.test, *split.validation),
            study.plan.neighbours_per_record,
            ctx.seed,
        ),
        "unrelated": unrelated_probes(records, study.plan.unrelated_per_entity),
    }
