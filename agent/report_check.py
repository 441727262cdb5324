"""What must hold before a report is shown: every claim carried, every number measured.

The checks read the report alone, never the ledger, so that anybody who holds a `report.json` can
repeat them. Each is a necessary condition that does not depend on how the report was made:

- *references*: ids are unique; every id that is mentioned exists; artifact paths stay inside the
  data folder;
- *evidence*: a claim has evidence; each of its effects is, figure by figure, the measurement of a
  piece of its evidence; each evidence's experiment has a replay command for the same tool;
- *prose*: holes resolve (`agent/rendering/prose.py`); outside holes a digit stands only in a name
  that the report itself carries (see `report_names`), and no share is spelled out in words;
- *status*: no claim stands higher on the ladder than its preregistered predictions allow; a
  refuted or inconclusive claim is called so wherever the verdict cites it;
- *outcome*: a partial report says why, a failed gate is shown.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from dragoman.agent.judgement import bearing_of
from dragoman.agent.rendering.prose import (
    Filled,
    ProseError,
    Words,
    claims_by_id,
    filled_claim,
    filled_sentence,
)
from dragoman.agent.rendering.replay import parse_replay
from dragoman.agent.report_names import Names, claim_names, numbers_in, report_names
from dragoman.core.claims import Claim, ClaimStatus, Hypothesis, Prediction
from dragoman.core.errors import IntegrityError
from dragoman.core.records import Artifact, Evidence, Measurement
from dragoman.core.report import Report, Sentence

REPORT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""A report's id names its folder: no separator, no leading dot, nothing from outside."""

_LADDER: tuple[ClaimStatus, ...] = (
    "observed",
    "correlated",
    "intervention-supported",
    "replicated",
)
_FALLEN: frozenset[ClaimStatus] = frozenset({"refuted", "inconclusive"})


def require_sound(report: Report) -> None:
    """`IntegrityError` with every violation, on one line, if there is any."""
    violations = check_report(report)
    if violations:
        raise IntegrityError(f"report {report.id!r} does not hold: {'; '.join(violations)}")


def check_report(report: Report) -> list[str]:
    """Every violation, in the report's order; empty when the report is sound."""
    return [
        *_references(report),
        *_evidence(report),
        *_prose(report),
        *_statuses(report),
        *_outcome(report),
    ]


# --- references ------------------------------------------------------------------------------


def control_ids(report: Report) -> frozenset[str]:
    """What a control id may name: a piece of evidence, or a measurement of `Report.controls`.

    A measurement of `Report.controls` goes by its content id.
    """
    ids = {evidence.id for evidence in report.evidence}
    return frozenset(ids | {measurement.content_id() for measurement in report.controls})


def _references(report: Report) -> Iterator[str]:
    if not REPORT_ID.fullmatch(report.id):
        yield f"report id {report.id!r} cannot name a folder"
    claims = [claim.id for claim in report.claims]
    hypotheses = [hypothesis.id for hypothesis in report.hypotheses]
    evidence = [each.id for each in report.evidence]
    for kind, ids in (("claim", claims), ("hypothesis", hypotheses), ("evidence", evidence)):
        for repeated, times in Counter(ids).items():
            if times > 1:
                yield f"{kind} id {repeated!r} is given to {times} of them"
    controls = control_ids(report)
    for claim in report.claims:
        name = f"claim {claim.id!r}"
        if "." in claim.id:
            yield f"{name}: a claim id holds no dot"
        yield from _missing(name, "hypothesis", [claim.hypothesis_id], hypotheses)
        yield from _missing(name, "evidence", claim.evidence_ids, evidence)
        yield from _missing(name, "control", claim.control_ids, controls)
    for each in report.evidence:
        name = f"evidence {each.id!r}"
        yield from _missing(name, "control", each.control_ids, controls)
        yield from (
            f"{name}: artifact path {artifact.path!r} leaves the data folder"
            for artifact in each.artifacts
            if _leaves(artifact)
        )
    for concern in report.concerns:
        yield from _missing("a concern", "claim", [concern.claim_id], claims)
    for negative in report.negative_results:
        yield from _missing("a negative result", "claim", negative.claim_ids, claims)


def _missing(holder: str, kind: str, ids: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    there = frozenset(known)
    yield from (
        f"{holder} names {kind} {each!r}, which is not there" for each in ids if each not in there
    )


def _leaves(artifact: Artifact) -> bool:
    path = PurePosixPath(artifact.path)
    return path.is_absolute() or ".." in path.parts or "\\" in artifact.path


# --- evidence --------------------------------------------------------------------------------


def _evidence(report: Report) -> Iterator[str]:
    by_id = {each.id: each for each in report.evidence}
    for claim in report.claims:
        if not claim.evidence_ids:
            yield f"claim {claim.id!r} has no evidence"
        measured = [each.measurement for each in _of(claim, by_id)]
        for effect in claim.effects:
            if effect not in measured:
                yield f"claim {claim.id!r}: effect {_named(effect)} is in none of its evidence"
    for measurement in (*(each.measurement for each in report.evidence), *report.controls):
        if not measurement.control.strip():
            yield f"measurement {_named(measurement)} names no control"
    tools: dict[str, str] = {}
    for command in report.replay:
        try:
            replay = parse_replay(command)
        except ValueError as error:
            yield f"replay command {command!r} {error}"
        else:
            tools[replay.experiment_id] = replay.tool
    for each in report.evidence:
        if each.experiment_id not in tools:
            yield f"evidence {each.id!r}: experiment {each.experiment_id!r} has no replay command"
        elif tools[each.experiment_id] != each.tool:
            yield (
                f"evidence {each.id!r} is of tool {each.tool!r},"
                f" but its replay command runs {tools[each.experiment_id]!r}"
            )


def _of(claim: Claim, by_id: dict[str, Evidence]) -> list[Evidence]:
    return [by_id[each] for each in claim.evidence_ids if each in by_id]


def _named(measurement: Measurement) -> str:
    scope = f" of {measurement.scope!r}" if measurement.scope else ""
    return f"{measurement.metric!r}{scope}"


# --- prose -----------------------------------------------------------------------------------


def _prose(report: Report) -> Iterator[str]:
    claims = claims_by_id(report)
    hypotheses = {hypothesis.id: hypothesis for hypothesis in report.hypotheses}
    shared = report_names(report)
    names = {
        claim.id: shared | claim_names(claim, hypotheses.get(claim.hypothesis_id))
        for claim in report.claims
    }
    for claim in report.claims:
        holder = f"claim {claim.id!r}"
        try:
            yield from _typed_numbers(holder, filled_claim(claim), names[claim.id])
        except ProseError as error:
            yield f"{holder}: {error}"
    for kind, sentences in (("verdict", report.verdict), ("narrative", report.narrative)):
        for place, sentence in enumerate(sentences, start=1):
            yield from _sentence(f"{kind} sentence {place}", sentence, claims, names, shared)


def _sentence(
    holder: str,
    sentence: Sentence,
    claims: dict[str, Claim],
    names: dict[str, Names],
    shared: Names,
) -> Iterator[str]:
    if not sentence.claim_ids:
        yield f"{holder} cites no claim"
    yield from _missing(holder, "claim", sentence.claim_ids, claims)
    cited = [names[each] for each in sentence.claim_ids if each in names]
    try:
        filled = filled_sentence(sentence, claims)
    except ProseError as error:
        yield f"{holder}: {error}"
    else:
        yield from _typed_numbers(holder, filled, shared.union(*cited))


def _typed_numbers(holder: str, filled: list[Filled], names: Names) -> Iterator[str]:
    prose = "\N{OBJECT REPLACEMENT CHARACTER}".join(
        piece.text if isinstance(piece, Words) else "" for piece in filled
    )
    for found in numbers_in(prose, names):
        yield f"{holder}: the number {found!r} stands there without a measurement"


# --- status ----------------------------------------------------------------------------------


def _statuses(report: Report) -> Iterator[str]:
    by_id = {each.id: each for each in report.evidence}
    hypotheses = {hypothesis.id: hypothesis for hypothesis in report.hypotheses}
    voided = {each.claim_id for each in report.concerns if each.severity == "voids"}
    for claim in report.claims:
        hypothesis = hypotheses.get(claim.hypothesis_id)
        if hypothesis is not None:
            yield from _status(claim, hypothesis, _of(claim, by_id))
        if claim.id in voided and claim.status not in _FALLEN:
            yield f"claim {claim.id!r} is {claim.status!r}, though a concern voids it"
    claims = claims_by_id(report)
    for place, sentence in enumerate(report.verdict, start=1):
        fallen = {claims[each].status for each in sentence.claim_ids if each in claims} & _FALLEN
        for status in sorted(fallen):
            if status not in sentence.text.casefold():
                yield f"verdict sentence {place} cites a claim that is {status} and does not say so"


def _status(claim: Claim, hypothesis: Hypothesis, evidence: list[Evidence]) -> Iterator[str]:
    name = f"claim {claim.id!r}"
    if claim.status == "refuted":
        if not any(each.bearing == "refutes" for each in evidence):
            yield f"{name} is 'refuted', but none of its evidence refutes it"
        return
    if claim.status not in _LADDER:
        return
    if not any(effect.n > 0 for effect in claim.effects):
        yield f"{name} is {claim.status!r}, but nothing was measured for it"
    height = _LADDER.index(claim.status)
    needed = min(height, _LADDER.index("intervention-supported"))
    if needed == 0:
        return
    carrying = [
        each
        for each in evidence
        if each.bearing == "supports"
        and each.measurement in claim.effects
        and any(
            _LADDER.index(prediction.rung) >= needed and holds(prediction, each.measurement)
            for prediction in hypothesis.predictions
        )
    ]
    if not carrying:
        yield f"{name} is {claim.status!r}, but no evidence bears out a prediction of that rung"
    elif claim.status == "replicated" and len({each.experiment_id for each in carrying}) < 2:
        yield f"{name} is 'replicated', but rests on one experiment"


def holds(prediction: Prediction, measurement: Measurement) -> bool:
    """Whether the measurement is the one that was predicted, and bears the prediction out."""
    return (
        prediction.metric == measurement.metric
        and prediction.scope in (None, measurement.scope)
        and bearing_of(prediction, measurement) == "supports"
    )


# --- outcome ---------------------------------------------------------------------------------


def _outcome(report: Report) -> Iterator[str]:
    failed = [gate.description for gate in report.gates if not gate.passed]
    if report.outcome == "done":
        if failed:
            yield f"the outcome is 'done', but gate {failed[0]!r} failed"
        if not (report.verdict or report.negative_results):
            yield "the outcome is 'done', but there is neither a verdict nor a negative result"
    else:
        if not report.outcome_reason.strip():
            yield f"the outcome is {report.outcome!r}, and no reason is given"
        if report.outcome == "gate failed" and not failed:
            yield "the outcome is 'gate failed', but no gate did"
