"""The check passes the recorded report and names each thing that is wrong with a spoilt one."""

from collections.abc import Callable
from typing import Any

import pytest

from dragoman.agent.rendering.prose import literal
from dragoman.agent.rendering.replay import replay_command
from dragoman.agent.report_check import check_report, holds, require_sound
from dragoman.agent.report_names import numbers_in
from dragoman.core.claims import Prediction
from dragoman.core.errors import IntegrityError
from dragoman.core.records import Experiment, Measurement
from dragoman.core.report import Report

Raw = dict[str, Any]


def spoilt(report: Report, spoil: Callable[[Raw], object]) -> Report:
    raw = report.model_dump(mode="json")
    spoil(raw)
    return Report.model_validate(raw)


def test_recorded_report_is_sound(audit_report: Report) -> None:
    assert check_report(audit_report) == []
    require_sound(audit_report)


def set_at(*path: Any, to: Any) -> Callable[[Raw], object]:
    def spoil(raw: Raw) -> None:
        place: Any = raw
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return spoil


def add_to_text(*path: Any, text: str) -> Callable[[Raw], object]:
    def spoil(raw: Raw) -> None:
        place: Any = raw
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] += text

    return spoil


def concern(severity: str) -> Raw:
    return {"claim_id": "c1", "text": "x", "raised_by": "protocol", "severity": severity}


def twin_effect(raw: Raw) -> None:
    """A second efficacy of the same scope, carried by the evidence like the first."""
    raw["claims"][1]["effects"][1]["scope"] = "seed 0"
    raw["evidence"][5]["measurement"]["scope"] = "seed 0"


VIOLATIONS: dict[str, tuple[Callable[[Raw], object], str]] = {
    "report id with a separator": (set_at("id", to="../evil"), "cannot name a folder"),
    "report id with a leading dot": (set_at("id", to=".hidden"), "cannot name a folder"),
    "claim id twice": (set_at("claims", 1, "id", to="c1"), "claim id 'c1' is given to 2"),
    "evidence id twice": (set_at("evidence", 1, "id", to="e1"), "evidence id 'e1' is given to 2"),
    "hypothesis id twice": (set_at("hypotheses", 1, "id", to="h1"), "hypothesis id 'h1' is given"),
    "claim id with a dot": (set_at("claims", 0, "id", to="c.1"), "a claim id holds no dot"),
    "unknown hypothesis": (
        set_at("claims", 0, "hypothesis_id", to="h9"),
        "claim 'c1' names hypothesis 'h9', which is not there",
    ),
    "unknown evidence": (
        set_at("claims", 0, "evidence_ids", to=["e1", "e2", "e99"]),
        "claim 'c1' names evidence 'e99', which is not there",
    ),
    "unknown control of a claim": (
        set_at("claims", 0, "control_ids", to=["e99"]),
        "claim 'c1' names control 'e99'",
    ),
    "unknown control of evidence": (
        set_at("evidence", 0, "control_ids", to=["e99"]),
        "evidence 'e1' names control 'e99'",
    ),
    "concern about an unknown claim": (
        set_at("concerns", 0, "claim_id", to="c99"),
        "a concern names claim 'c99'",
    ),
    "negative result about an unknown claim": (
        set_at("negative_results", 0, "claim_ids", to=["c99"]),
        "a negative result names claim 'c99'",
    ),
    "artifact outside the data folder": (
        set_at("evidence", 0, "artifacts", 0, "path", to="artifacts/../../etc/passwd"),
        "leaves the data folder",
    ),
    "artifact with an absolute path": (
        set_at("evidence", 0, "artifacts", 0, "path", to="/etc/passwd"),
        "leaves the data folder",
    ),
    "claim without evidence": (set_at("claims", 3, "evidence_ids", to=[]), "has no evidence"),
    "effect that no evidence holds": (
        set_at("claims", 0, "effects", 0, "value", to=0.65),
        "claim 'c1': effect 'faithfulness' is in none of its evidence",
    ),
    "effect with a larger n than its evidence": (
        set_at("claims", 0, "effects", 0, "n", to=2200),
        "is in none of its evidence",
    ),
    "effect held only by another claim's evidence": (
        set_at("claims", 0, "evidence_ids", to=["e2"]),
        "effect 'faithfulness' is in none of its evidence",
    ),
    "measurement without a control": (
        set_at("controls", 0, "control", to=" "),
        "names no control",
    ),
    "experiment without a replay command": (
        lambda raw: raw["replay"].pop(),
        "evidence 'e10': experiment",
    ),
    "replay command of another tool": (
        lambda raw: raw["replay"].__setitem__(
            0, raw["replay"][0].replace("approximate_relation", "caption_neurons")
        ),
        "but its replay command runs 'caption_neurons'",
    ),
    "replay command with a second command": (
        lambda raw: raw["replay"].__setitem__(
            0, raw["replay"][0].replace("--seed 0", "--seed 0; rm -rf x")
        ),
        "is not quoted word by word",
    ),
    "replay command of another program": (
        lambda raw: raw["replay"].__setitem__(
            0, raw["replay"][0].replace("dragoman tool run", "curl -o run")
        ),
        "does not begin with",
    ),
    "replay command of two lines": (
        lambda raw: raw["replay"].__setitem__(0, "ls\n" + raw["replay"][0]),
        "is not one line",
    ),
    "hole of an unknown metric": (
        add_to_text("claims", 0, "text", text=" {specificity}"),
        "claim 'c1' has no effect 'specificity' (it has: faithfulness, causality)",
    ),
    "hole of an unknown scope": (
        add_to_text("claims", 1, "text", text=" {efficacy#seed 7}"),
        "has no effect 'efficacy#seed 7'",
    ),
    "ambiguous hole": (
        add_to_text("claims", 1, "text", text=" {efficacy}"),
        "has several effects 'efficacy'",
    ),
    "two effects of one name and scope": (twin_effect, "has several effects 'efficacy#seed 0'"),
    "lone brace": (add_to_text("claims", 0, "text", text=" }"), "a lone '}'"),
    "empty hole": (add_to_text("claims", 0, "text", text=" {}"), "is not of the form {metric}"),
    "sentence hole without a claim": (
        add_to_text("verdict", 0, "text", text=" {faithfulness}"),
        "is not of the form {claim_id.metric}",
    ),
    "sentence hole of a claim that is not cited": (
        add_to_text("verdict", 0, "text", text=" {c3.detection}"),
        "hole {c3.detection} is of a claim that is not cited",
    ),
    "sentence that cites nothing": (
        set_at("narrative", 0, "claim_ids", to=[]),
        "narrative sentence 1 cites no claim",
    ),
    "sentence that cites an unknown claim": (
        set_at("narrative", 0, "claim_ids", to=["c99"]),
        "narrative sentence 1 names claim 'c99'",
    ),
    "typed number in a claim": (
        add_to_text("claims", 0, "text", text=" That is 0.91 of them."),
        "claim 'c1': the number '0.91' stands there without a measurement",
    ),
    "typed number in the verdict": (
        add_to_text("verdict", 0, "text", text=" It holds 9 times of ten."),
        "verdict sentence 1: the number '9'",
    ),
    "typed number in the narrative": (
        add_to_text("narrative", 1, "text", text=" At layer 12."),
        "narrative sentence 2: the number '12.'",
    ),
    "number glued to a hole": (
        add_to_text("claims", 0, "text", text=" {faithfulness}99"),
        "without a measurement",
    ),
    "share in words": (
        add_to_text("narrative", 0, "text", text=" It is right ninety-one percent of the time."),
        "the number 'ninety-one percent'",
    ),
    "name of a claim that is not cited": (
        add_to_text("narrative", 0, "text", text=" So does unit 12.77."),
        "the number '12.77.'",
    ),
    "supported by intervention without a prediction of that rung": (
        set_at("hypotheses", 0, "predictions", 1, "rung", to="correlated"),
        "claim 'c1' is 'intervention-supported', but no evidence bears out",
    ),
    "supported by intervention below the threshold": (
        set_at("hypotheses", 0, "predictions", 1, "threshold", to=0.5),
        "claim 'c1' is 'intervention-supported', but no evidence bears out",
    ),
    "supported by evidence that is neutral": (
        set_at("evidence", 7, "bearing", to="neutral"),
        "claim 'c3' is 'correlated', but no evidence bears out",
    ),
    "replicated within one experiment": (
        lambda raw: raw["evidence"][5].update(experiment_id=raw["evidence"][2]["experiment_id"]),
        "claim 'c2' is 'replicated', but rests on one experiment",
    ),
    "refuted without refuting evidence": (
        set_at("evidence", 9, "bearing", to="neutral"),
        "claim 'c5' is 'refuted', but none of its evidence refutes it",
    ),
    "supported though voided": (
        lambda raw: raw["concerns"].append(concern("voids")),
        "claim 'c1' is 'intervention-supported', though a concern voids it",
    ),
    "observed without an effect": (
        lambda raw: raw["claims"][3].update(status="observed", effects=[], text="Nothing."),
        "claim 'c4' is 'observed', but nothing was measured for it",
    ),
    "refuted claim told as a finding": (
        set_at("verdict", 1, "text", to="The past tense is read by a map; a unit is inconclusive."),
        "verdict sentence 2 cites a claim that is refuted and does not say so",
    ),
    "inconclusive claim told as a finding": (
        set_at("verdict", 1, "text", to="The past tense is refuted; a unit responds to names."),
        "verdict sentence 2 cites a claim that is inconclusive and does not say so",
    ),
    "done without a verdict": (
        lambda raw: raw.update(verdict=[], negative_results=[]),
        "there is neither a verdict nor a negative result",
    ),
    "done with a failed gate": (set_at("gates", 0, "passed", to=False), "gate 'efficacy of c2"),
    "partial without a reason": (
        lambda raw: raw.update(outcome="limit reached", outcome_reason=" "),
        "the outcome is 'limit reached', and no reason is given",
    ),
    "gate failed without a failed gate": (
        set_at("outcome", to="gate failed"),
        "the outcome is 'gate failed', but no gate did",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation_is_named(name: str, audit_report: Report) -> None:
    spoil, complaint = VIOLATIONS[name]
    report = spoilt(audit_report, spoil)
    assert any(complaint in violation for violation in check_report(report)), check_report(report)
    with pytest.raises(IntegrityError) as caught:
        require_sound(report)
    assert "\n" not in str(caught.value)


def test_partial_report_without_claims_is_sound(audit_report: Report) -> None:
    fields = (
        "verdict",
        "narrative",
        "claims",
        "evidence",
        "concerns",
        "negative_results",
        "replay",
    )
    nothing: Raw = {field: [] for field in fields}
    report = spoilt(
        audit_report,
        lambda raw: raw.update(nothing, outcome="interrupted", outcome_reason="Ctrl-C"),
    )
    assert check_report(report) == []


NAMES = frozenset(
    {"smollm2", "layer 12", "unit 12.77", "1945", "words of the 1990s", "faithfulness"}
)


@pytest.mark.parametrize(
    "prose",
    [
        "smollm2 does so at layer 12, in unit 12.77.",
        "Layer 12 does.",
        'It fires on "1945" and on “words of the 1990s”.',
        "It fires on words of the 1990s",
        "One map serves both; a second and a third do not.",
        "Two groups are treated alike.",
    ],
)
def test_digits_of_names_may_stand(prose: str) -> None:
    assert numbers_in(prose, NAMES) == []


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("at layer 123", "123"),
        ("at layer 12.5", "12.5"),
        ("at flayer 12", "12"),
        ("in 1945", "1945"),
        ('about "0.93"', '"0.93"'),
        ("٩٣ of them", "٩٣"),
        ("½ of them", "½"),
        ("x² of them", "x²"),
        ("93", "93"),
        ("many %", "%"),
        ("twenty-five per cent", "twenty-five per cent"),
        ("nine out of ten", "nine out of"),
        ("three times as often", "three times"),
        ("zero point nine", "zero point nine"),
    ],
)
def test_numbers_that_nobody_measured_are_found(prose: str, found: str) -> None:
    assert found in numbers_in(prose, NAMES)


def test_slots_and_scopes_are_names_of_their_claim(audit_report: Report) -> None:
    report = spoilt(
        audit_report,
        add_to_text("claims", 2, "text", text=" It is neuron 77 of layer 12, beside neuron 301."),
    )
    assert check_report(report) == []


def test_a_caption_with_braces_goes_in_as_a_name(audit_report: Report) -> None:
    caption = "f-strings like {x:3}"

    def spoil(raw: Raw) -> None:
        raw["claims"][2]["scope"] = f"unit 12.77; {caption}"
        raw["claims"][2]["text"] = f"Unit 12.77 responds to “{literal(caption)}”: {{detection}}."
        raw["narrative"].pop(3)

    assert check_report(spoilt(audit_report, spoil)) == []


def test_a_bare_hole_is_the_effect_without_a_scope(audit_report: Report) -> None:
    def spoil(raw: Raw) -> None:
        raw["claims"][1]["effects"][0]["scope"] = ""
        raw["evidence"][2]["measurement"]["scope"] = ""
        for holder in (raw["claims"][1], raw["verdict"][0]):
            holder["text"] = holder["text"].replace("efficacy#seed 0", "efficacy")

    assert check_report(spoilt(audit_report, spoil)) == []


def measured(low: float, baseline: float) -> Measurement:
    return Measurement(
        metric="efficacy",
        value=low + 0.1,
        unit="fraction",
        baseline=baseline,
        control="no edit",
        ci95=(low, low + 0.2),
        n=20,
    )


@pytest.mark.parametrize(
    ("low", "baseline", "expected"),
    [(0.51, 0.1, True), (0.5, 0.1, False), (0.6, 0.6, False), (0.6, 0.7, False)],
)
def test_a_prediction_holds_above_threshold_and_control(
    low: float, baseline: float, expected: bool
) -> None:
    prediction = Prediction(metric="efficacy", threshold=0.5, rung="intervention-supported")
    assert holds(prediction, measured(low, baseline)) is expected
    other = prediction.model_copy(update={"scope": "unit 1.2"})
    assert not holds(other, measured(0.6, 0.1))


def test_replay_command_quotes_what_a_relation_path_may_hold(audit_report: Report) -> None:
    experiment = Experiment(
        tool="approximate_relation",
        arguments={"relation": "it's; $(touch x) `y`\n\u202e.json"},
        subject_digest="d",
        seed=3,
    )
    command = replay_command(experiment, "./models/my model")
    assert command.isascii()
    assert "\n" not in command

    def spoil(raw: Raw) -> None:
        raw["evidence"][0]["experiment_id"] = experiment.id
        raw["replay"].append(command)

    assert check_report(spoilt(audit_report, spoil)) == []
