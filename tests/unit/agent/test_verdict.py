"""A caption's claim is raised by what the unit causes, and by nothing else."""

from types import SimpleNamespace
from typing import Any

import pytest

from dragoman.agent.nodes.critique import critique
from dragoman.agent.nodes.verdict import verdict
from dragoman.agent.templates import TEMPLATES
from dragoman.core.claims import Claim, Hypothesis
from dragoman.core.records import Experiment, JsonObject, Measurement, ToolResult

SCOPE = "unit 1.3"
ARGUMENTS: JsonObject = {"layer": 1, "neurons": [3], "effort": "full"}


def _measured(metric: str, value: float, low: float, baseline: float) -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        unit="nat" if metric == "causal_effect" else "fraction",
        baseline=baseline,
        control="like units",
        ci95=(low, value + 0.1),
        n=40,
        scope=SCOPE,
    )


DETECTION = _measured("detection", 0.8, 0.7, 0.5)
CAUSE = _measured("causal_effect", 0.4, 0.3, 0.1)
NO_CAUSE = _measured("causal_effect", 0.05, 0.01, 0.1)


def _result(*measurements: Measurement, seed: int = 0, caption: str | None = "numbers") -> Any:
    experiment = Experiment(
        tool="caption_neurons", arguments=ARGUMENTS, subject_digest="s", seed=seed
    )
    return ToolResult(
        status="ok",
        experiment_id=experiment.content_id(),
        experiment=experiment,
        summary="",
        measurements=measurements,
        output={"captions": [{"unit": "1.3", "caption": caption, "best_rejected": "numbers"}]},
    )


class _Desk:
    def __init__(self, result: ToolResult, repeated: ToolResult | None = None) -> None:
        template = TEMPLATES["unit_responds"]
        self.hypothesis = Hypothesis(
            id="h1",
            template="unit_responds",
            slots={"layer": 1, "neurons": [3]},
            statement="neuron 3 responds",
            predictions=template.predictions(ARGUMENTS),
            refuted_by="x",
            rivals=template.rivals,
            tool="caption_neurons",
            arguments=ARGUMENTS,
            controls=template.controls,
            proposed_by="protocol",
        )
        self._result, self._repeated = result, repeated
        self.kept: list[tuple[str, str, Any]] = []
        self.missed: list[Any] = []
        self.chat, self.audit_id = None, "a"
        self.specification = SimpleNamespace(quick=True)
        self.scene = SimpleNamespace(subject=SimpleNamespace(name="s", digest="d"))
        self.bench = SimpleNamespace(memory=None)
        self.ledger = SimpleNamespace(audit=lambda audit: SimpleNamespace(started="now"))

    def tested(self, hypotheses: Any) -> Any:
        return [(self.hypothesis, self._result.experiment, self._result)]

    def result(self, experiment: Any) -> Any:
        return self._repeated

    def keep(self, kind: str, name: str, record: Any) -> None:
        self.kept.append((kind, name, record))

    def miss(self, negative: Any) -> None:
        self.missed.append(negative)

    def concerns(self) -> list[Any]:
        return [record for kind, _, record in self.kept if kind == "concern"]

    def on_event(self, event: Any) -> None:
        pass

    def phase(self, name: str, text: str) -> None:
        pass

    def claim(self) -> Claim:
        state: Any = {"hypotheses": ["h1"], "round": 0, "question": 0}
        verdict(state, self)  # type: ignore[arg-type]
        (claim,) = [record for kind, _, record in self.kept if kind == "claim"]
        assert isinstance(claim, Claim)
        return claim


def test_a_caption_that_only_detects_is_correlated():
    claim = _Desk(_result(DETECTION)).claim()
    assert claim.status == "correlated"
    assert [each.metric for each in claim.effects] == ["detection"]


def test_what_the_unit_causes_takes_the_same_claim_to_the_next_rung():
    claim = _Desk(_result(DETECTION, CAUSE)).claim()
    assert claim.status == "intervention-supported"
    assert [each.metric for each in claim.effects] == ["detection", "causal_effect"]
    assert len(claim.evidence_ids) == 2
    assert "{causal_effect#unit 1.3}" in claim.text


def test_a_unit_that_causes_no_more_than_others_stays_and_the_report_says_so():
    desk = _Desk(_result(DETECTION, NO_CAUSE))
    claim = desk.claim()
    assert claim.status == "correlated"
    assert [each.kind for each in desk.missed] == ["nothing found"]
    assert desk.missed[0].claim_ids == (claim.id,)
    assert "no more than like units" in desk.missed[0].text


@pytest.mark.parametrize("again", [(DETECTION, CAUSE), (DETECTION, NO_CAUSE), (DETECTION,)])
def test_only_what_comes_back_in_both_is_replicated(again):
    claim = _Desk(_result(DETECTION, CAUSE), _result(*again, seed=9)).claim()
    whole = CAUSE in again
    assert claim.status == ("replicated" if whole else "intervention-supported")
    assert len(claim.effects) == (4 if whole else 3)


def test_a_cause_without_a_caption_that_holds_raises_nothing():
    claim = _Desk(_result(DETECTION, CAUSE, caption=None)).claim()
    assert claim.status == "inconclusive"
    assert [each.metric for each in claim.effects] == ["detection"]


def test_concerns_are_raised_about_claims_alone():
    desk = _Desk(_result(DETECTION, CAUSE))
    critique({"hypotheses": ["h1"]}, desk)  # type: ignore[arg-type,typeddict-item]
    assert {each.claim_id for each in desk.concerns()} == {"h1c1"}
