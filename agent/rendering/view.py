"""The report as its renderings read it: labels given, ids followed, prose filled.

Labels ('C1', 'E3') and anchors are counted, never taken from an id: ids are foreign text.
"""

import json
from contextlib import suppress
from typing import NamedTuple

from dragoman.agent.rendering.intervals import Panel, panels
from dragoman.agent.rendering.prose import Filled, filled_claim, filled_sentence
from dragoman.agent.rendering.replay import parse_replay
from dragoman.core.claims import Claim, Concern, Hypothesis
from dragoman.core.records import Artifact, Evidence, Measurement
from dragoman.core.report import Report, Sentence


class EvidenceView(NamedTuple):
    """A piece of evidence under its label, with its controls and what repeats it."""

    label: str
    anchor: str
    evidence: Evidence
    controls: tuple["ControlView", ...]
    replay: int | None
    """Which of the report's replay commands repeats its experiment, from 1."""


class ControlView(NamedTuple):
    """A control: its measurement, and the evidence that holds it, if one does."""

    measurement: Measurement
    label: str
    anchor: str


class ClaimView(NamedTuple):
    """A claim under its label, with all that hangs on it."""

    label: str
    anchor: str
    claim: Claim
    text: tuple[Filled, ...]
    hypothesis: Hypothesis | None
    evidence: tuple[EvidenceView, ...]
    controls: tuple[ControlView, ...]
    concerns: tuple[Concern, ...]
    panels: tuple[Panel, ...]

    def holder(self, measurement: Measurement) -> EvidenceView | None:
        """The evidence that holds an effect of this claim."""
        return next(
            (each for each in self.evidence if each.evidence.measurement == measurement), None
        )


class SentenceView(NamedTuple):
    """A sentence with its numbers and the claims that it cites."""

    pieces: tuple[Filled, ...]
    citations: tuple[ClaimView, ...]


class ReportView(NamedTuple):
    """Everything that a template needs."""

    report: Report
    verdict: tuple[SentenceView, ...]
    narrative: tuple[SentenceView, ...]
    claims: tuple[ClaimView, ...]
    evidence: tuple[EvidenceView, ...]
    """All of it, in the order of the page: claim by claim, then what no claim rests on."""
    loose_evidence: tuple[EvidenceView, ...]
    """Evidence that no claim rests on; shown all the same."""
    loose_hypotheses: tuple[Hypothesis, ...]
    """Hypotheses that led to no claim."""
    specification: str

    def claim(self, claim_id: str) -> ClaimView | None:
        """The claim of that id."""
        return next((each for each in self.claims if each.claim.id == claim_id), None)

    def first_claim(self, evidence: EvidenceView) -> ClaimView:
        """The claim with which `evidence` is shown: the first that rests on it."""
        return next(each for each in self.claims if evidence in each.evidence)

    def first_holder(self, artifact: Artifact) -> EvidenceView:
        """The evidence with which `artifact` is shown: the first on the page that has it."""
        return next(each for each in self.evidence if artifact in each.evidence.artifacts)


def view(report: Report) -> ReportView:
    """The view of a report whose references resolve; `ProseError` for a hole that does not."""
    evidence = _evidence(report)
    hypotheses = {hypothesis.id: hypothesis for hypothesis in report.hypotheses}
    claims = tuple(
        _claim(place, claim, report, hypotheses, evidence)
        for place, claim in enumerate(report.claims, start=1)
    )
    by_id = {each.claim.id: each for each in claims}
    used = {each for claim in report.claims for each in claim.evidence_ids}
    loose = tuple(each for id_, each in evidence.items() if id_ not in used)
    claimed = {claim.hypothesis_id for claim in report.claims}
    return ReportView(
        report=report,
        verdict=tuple(_sentence(each, by_id) for each in report.verdict),
        narrative=tuple(_sentence(each, by_id) for each in report.narrative),
        claims=claims,
        evidence=(*(one for each in claims for one in each.evidence), *loose),
        loose_evidence=loose,
        loose_hypotheses=tuple(each for each in report.hypotheses if each.id not in claimed),
        specification=json.dumps(report.specification, indent=2, ensure_ascii=False),
    )


def _evidence(report: Report) -> dict[str, EvidenceView]:
    places: dict[str, int] = {}
    for at, command in enumerate(report.replay, start=1):
        # A report from elsewhere may hold commands that nobody checked: they are shown in the
        # list of all commands, and stand beside no evidence.
        with suppress(ValueError):
            places[parse_replay(command).experiment_id] = at
    return {
        each.id: EvidenceView(
            label=f"E{place}",
            anchor=f"evidence-{place}",
            evidence=each,
            controls=_controls(each.control_ids, report),
            replay=places.get(each.experiment_id),
        )
        for place, each in enumerate(report.evidence, start=1)
    }


def _controls(ids: tuple[str, ...], report: Report) -> tuple[ControlView, ...]:
    known = {each.content_id(): ControlView(each, "", "") for each in report.controls}
    for place, each in enumerate(report.evidence, start=1):
        known[each.id] = ControlView(each.measurement, f"E{place}", f"evidence-{place}")
    return tuple(known[each] for each in ids if each in known)


def _claim(
    place: int,
    claim: Claim,
    report: Report,
    hypotheses: dict[str, Hypothesis],
    evidence: dict[str, EvidenceView],
) -> ClaimView:
    hypothesis = hypotheses.get(claim.hypothesis_id)
    return ClaimView(
        label=f"C{place}",
        anchor=f"claim-{place}",
        claim=claim,
        text=tuple(filled_claim(claim)),
        hypothesis=hypothesis,
        evidence=tuple(evidence[each] for each in claim.evidence_ids if each in evidence),
        controls=_controls(claim.control_ids, report),
        concerns=tuple(each for each in report.concerns if each.claim_id == claim.id),
        panels=panels(claim.effects, hypothesis.predictions if hypothesis else ()),
    )


def _sentence(sentence: Sentence, claims: dict[str, ClaimView]) -> SentenceView:
    plain = {id_: each.claim for id_, each in claims.items()}
    return SentenceView(
        pieces=tuple(filled_sentence(sentence, plain)),
        citations=tuple(claims[each] for each in sentence.claim_ids if each in claims),
    )
