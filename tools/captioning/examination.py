"""All that is measured of a caption: its scores, the random twin's, and what the unit causes."""

from collections.abc import Sequence
from typing import NamedTuple

from dragoman.core.records import JsonObject, Measurement
from dragoman.tools.captioning.assessment import Assessment, Assessor, judges_for, summary_of
from dragoman.tools.captioning.bar import Bar, random_bar
from dragoman.tools.captioning.bench import Bench, looked_over
from dragoman.tools.captioning.captioner import Chosen
from dragoman.tools.captioning.causal import N_MATCHED, CausalCheck, Causes
from dragoman.tools.captioning.chat_judge import ChatJudge
from dragoman.tools.captioning.entries import BELOW_TWIN, NO_CAPTION, entry_of
from dragoman.tools.captioning.hearing import Said
from dragoman.tools.captioning.peers import peers_of
from dragoman.tools.captioning.rows import TextExemplar, UnitCaption, row_of_entry, unit_name
from dragoman.tools.captioning.twin import SUFFIX, assess_twin
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort

NO_TWIN = "No network with random weights was captioned beside this one: effort full does that."


class Examination(NamedTuple):
    """What was measured of one unit's caption."""

    assessment: Assessment
    causes: Causes | None
    """None where the caption does not hold, or texts, like units or other words are too few."""
    twin: tuple[Measurement, ...]
    bar: Bar | None = None
    """What captions of the random twin's units reach; None where none was captioned."""

    @property
    def above_twin(self) -> bool:
        """The caption says more of its unit than captions of a random network say of theirs."""
        scores = {each.metric: each.value for each in self.assessment.measurements}
        return self.bar is None or self.bar.passed_by(scores)

    @property
    def holds(self) -> bool:
        """The caption beats its floor, and the random twin where there is one."""
        return self.assessment.holds and self.above_twin

    @property
    def rejection(self) -> str:
        """Why the caption does not hold, where it does not."""
        return BELOW_TWIN if self.assessment.holds else NO_CAPTION

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Detection first; `causal_effect` last, where the caption holds."""
        effect = () if self.causes is None else (self.causes.effect,)
        return (*self.assessment.measurements, *effect)

    @property
    def controls(self) -> tuple[Measurement, ...]:
        """Hard negatives, the twin, other interventions."""
        further = () if self.causes is None else self.causes.controls
        return (*self.assessment.controls, *self.twin, *further)

    @property
    def output(self) -> JsonObject:
        """The same for the entry of the unit: scores by metric, and the causal check."""
        found: JsonObject = {"scores": self.assessment.output}
        if self.twin:
            found["random_twin"] = {
                each.metric.removesuffix(SUFFIX): summary_of(each) for each in self.twin
            }
        if self.bar is not None:
            found["random_twin_bar"] = {
                **{metric: round(value, 4) for metric, value in self.bar.values().items()},
                "n": self.bar.n,
                "passed": self.above_twin,
            }
        if self.causes is not None:
            found["causal"] = self.causes.output
        return found


def examine(
    context: ToolContext,
    bench: Bench,
    said: Sequence[Said | None],
    names: Sequence[str],
    *,
    effort: Effort,
    pmi: bool = True,
    chat: ChatJudge | None = None,
) -> list[Examination | None]:
    """One entry a unit of the bench; None where there is no caption, or nothing to score it on.

    The random twin takes as long again as finding the captions did: effort full only.
    """
    assessor = Assessor(
        context,
        bench.captioner,
        said,
        effort=effort,
        judges=judges_for(context, effort),
        neighbours=bench.neighbours,
        chat=chat,
    )
    found: list[Assessment | None] = []
    for unit, name in enumerate(names):
        context.step(unit, len(names), f"scoring the caption of unit {name}")
        found.append(assessor.assess(unit, name))
    twins: list[tuple[Measurement, ...]] = [() for _ in names]
    bar: Bar | None = None
    if effort == "full" and bench.where.kind != "latent" and any(found):
        twins = assess_twin(context, bench, names, effort=effort, pmi=pmi)
        bar = random_bar(context, bench, pmi=pmi)
    check: CausalCheck | None = None
    examinations: list[Examination | None] = []
    for unit, (assessment, claim, twin) in enumerate(zip(found, said, twins, strict=True)):
        if assessment is None or claim is None:
            examinations.append(None)
            continue
        examined = Examination(assessment, None, twin, bar)
        if examined.holds:
            check = check or causal_check(context, bench, effort)
            causes = check.check(unit, bench.units[unit], claim.predicate)
            examined = examined._replace(causes=causes)
        examinations.append(examined)
    return examinations


def causal_check(context: ToolContext, bench: Bench, effort: Effort) -> CausalCheck:
    """The causal check of the units of a bench."""
    peers = peers_of(
        context,
        looked_over(bench.corpus),
        bench.where,
        bench.scan,
        bench.dictionary,
        least=1 + N_MATCHED[effort],
    )
    return CausalCheck(context, bench.captioner, bench.corpus.documents, peers, effort=effort)


def described(
    bench: Bench,
    column: int,
    chosen: Chosen | None,
    found: Assessment | Examination | None,
    tau: float,
) -> JsonObject:
    """The entry of the bench's unit number `column`, with what an examination adds."""
    where = bench.where
    examined = found if isinstance(found, Examination) else None
    entry = entry_of(
        bench.captioner,
        column,
        unit_name(where.kind, where.layer, bench.units[column]),
        chosen,
        found is not None and found.holds,
        scored=found is not None,
        tau=tau,
        reason=NO_CAPTION if examined is None else examined.rejection,
    )
    return entry if examined is None else {**entry, **examined.output}


def row_of(
    bench: Bench,
    column: int,
    entry: JsonObject,
    found: Assessment | Examination | None,
    exemplars: Sequence[TextExemplar] = (),
) -> UnitCaption:
    """The row of the bench's unit number `column`, of which its entry says the same."""
    return row_of_entry(
        bench.where.kind,
        bench.where.layer,
        bench.units[column],
        entry,
        () if found is None else found.measurements,
        () if found is None else found.controls,
        exemplars=exemplars,
        dictionary="" if bench.dictionary is None else bench.dictionary.short_digest,
    )
