"""Verdict: turn measurements into evidence and evidence into claims, by rule."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from dragoman.agent.desk import Desk
from dragoman.agent.judgement import bearing_of, measured, status_of
from dragoman.agent.nodes.controls import replication
from dragoman.agent.rendering.prose import claim_text, literal
from dragoman.agent.state import AuditState
from dragoman.agent.templates import TEMPLATES
from dragoman.core.claims import Claim, ClaimStatus, Finding, Hypothesis, Prediction
from dragoman.core.events import ClaimMade
from dragoman.core.records import Bearing, Evidence, JsonObject, Measurement, ToolResult, content_id
from dragoman.core.report import NegativeResult

ROUNDS = 2
_FALLEN: Mapping[Bearing, ClaimStatus] = {"refutes": "refuted", "neutral": "inconclusive"}
_METRIC_HOLE = re.compile(r"<(\w+)>")


def verdict(state: AuditState, desk: Desk) -> dict[str, Any]:
    """Make this round's claims, remember them, and decide what is planned next."""
    made: list[Claim] = []
    for hypothesis, experiment, result in desk.tested(state["hypotheses"]):
        repeated = desk.result(replication(experiment))
        for index, prediction in enumerate(hypothesis.predictions, start=1):
            if prediction.metric in TEMPLATES[hypothesis.template].raises:
                continue
            claim = _judge(
                desk, hypothesis, prediction, f"{hypothesis.id}c{index}", result, repeated
            )
            if claim is not None:
                made.append(claim)
    for claim in made:
        desk.keep("claim", claim.id, claim)
        rendered = claim_text(claim)
        _remember(desk, claim, rendered)
        desk.on_event(ClaimMade(claim=claim, rendered=rendered))
    again = bool(state["hypotheses"]) and state["round"] + 1 < ROUNDS and _may_go_on(desk)
    if again:
        return {"round": state["round"] + 1, "hypotheses": []}
    return {"question": state["question"] + 1, "round": 0, "hypotheses": []}


def _may_go_on(desk: Desk) -> bool:
    return desk.chat is not None and not desk.specification.quick


def _judge(
    desk: Desk,
    hypothesis: Hypothesis,
    prediction: Prediction,
    claim_id: str,
    result: ToolResult,
    repeated: ToolResult | None,
) -> Claim | None:
    measurement = measured(prediction, result)
    if measurement is None:
        about = prediction.scope or hypothesis.statement
        reason = "; ".join(result.caveats) or "the experiment did not yield it"
        desk.miss(
            NegativeResult(
                kind="not searched", text=f"{prediction.metric} of {about} is not judged: {reason}"
            )
        )
        return None
    effects = [measurement]
    pieces = [_evidence(desk, claim_id, prediction, measurement, result)]
    second = None if repeated is None else measured(prediction, repeated)
    if repeated is not None and second is not None:
        pieces.append(_evidence(desk, f"{claim_id}-again", prediction, second, repeated))
    bearing = bearing_of(prediction, measurement)
    entry = _caption_entry(result, prediction)
    if entry and entry.get("caption") is None and bearing == "supports":
        # The captioner's own floor is the stricter one: what it rejects is no finding.
        bearing = "neutral"
    held_twice = second is not None and bearing_of(prediction, second) == "supports"
    if second is not None and (held_twice or bearing == "supports"):
        effects.append(second.model_copy(update={"scope": _again(second.scope)}))
        pieces[-1] = pieces[-1].model_copy(update={"measurement": effects[-1]})
        if not held_twice:
            # A result that does not come back is not carried by its first appearance.
            bearing = "neutral"
    status = status_of(prediction, bearing, replicated=held_twice)
    text = _text(hypothesis, prediction, status, measurement, result)
    if bearing == "supports":
        for higher in _raising(hypothesis, prediction):
            raised = _raised(desk, hypothesis, higher, claim_id, result, repeated)
            if raised is not None:
                effects += [piece.measurement for piece in raised]
                pieces += raised
                status = status_of(higher, "supports", replicated=held_twice and len(raised) > 1)
                text = f"{text} {_text(hypothesis, higher, status, raised[0].measurement, result)}"
    for piece in pieces:
        desk.keep("evidence", piece.id, piece)
    claim = Claim(
        id=claim_id,
        text=text,
        status=status,
        effects=tuple(effects),
        evidence_ids=tuple(piece.id for piece in pieces),
        control_ids=tuple(_control_ids(result, prediction)),
        scope=_scope(hypothesis, prediction, result),
        hypothesis_id=hypothesis.id,
        confounds=tuple(
            dict.fromkeys(each.text for each in desk.concerns() if each.claim_id == claim_id)
        ),
    )
    if status == "refuted":
        desk.miss(
            NegativeResult(
                kind="nothing found",
                text=f"not borne out: {hypothesis.statement} ({prediction.metric})",
                claim_ids=(claim_id,),
            )
        )
    return claim


def _raising(hypothesis: Hypothesis, prediction: Prediction) -> list[Prediction]:
    """Predictions of the same scope whose outcome takes this one's claim to a higher rung."""
    raises = TEMPLATES[hypothesis.template].raises
    return [
        each
        for each in hypothesis.predictions
        if raises.get(each.metric) == prediction.metric and each.scope == prediction.scope
    ]


def _raised(
    desk: Desk,
    hypothesis: Hypothesis,
    higher: Prediction,
    claim_id: str,
    result: ToolResult,
    repeated: ToolResult | None,
) -> list[Evidence] | None:
    """What takes a claim to a higher rung, second where it came back; None where nothing does."""
    measurement = measured(higher, result)
    if measurement is None:
        return None
    bearing = bearing_of(higher, measurement)
    if bearing != "supports":
        # The claim stays on its rung, and the report says what was tried.
        told = _text(hypothesis, higher, _FALLEN[bearing], measurement, result)
        text = f"{higher.metric} of {higher.scope}: {told}"
        desk.miss(NegativeResult(kind="nothing found", text=text, claim_ids=(claim_id,)))
        return None
    name = f"{claim_id}-{higher.metric}"
    pieces = [_evidence(desk, name, higher, measurement, result)]
    second = None if repeated is None else measured(higher, repeated)
    if second is not None and repeated is not None and bearing_of(higher, second) == "supports":
        again = second.model_copy(update={"scope": _again(second.scope)})
        piece = _evidence(desk, f"{name}-again", higher, second, repeated)
        pieces.append(piece.model_copy(update={"measurement": again}))
    return pieces


def _evidence(
    desk: Desk, name: str, prediction: Prediction, measurement: Measurement, result: ToolResult
) -> Evidence:
    return Evidence(
        id=f"e-{name}",
        experiment_id=result.experiment_id,
        tool=result.experiment.tool,
        measurement=measurement,
        bearing=bearing_of(prediction, measurement),
        artifacts=result.artifacts,
        control_ids=tuple(_control_ids(result, prediction)),
    )


def _control_ids(result: ToolResult, prediction: Prediction) -> list[str]:
    """The further controls of a result that are about the prediction's own scope, or about all."""
    return list(
        dict.fromkeys(
            each.content_id()
            for each in result.controls
            if prediction.scope is None or prediction.scope in each.scope
        )
    )


def _again(scope: str) -> str:
    return f"{scope}, repeated".removeprefix(", ")


def _text(
    hypothesis: Hypothesis,
    prediction: Prediction,
    status: str,
    measurement: Measurement,
    result: ToolResult,
) -> str:
    """The claim's sentence: names filled in and quoted, the number left as a hole."""
    wording = TEMPLATES[hypothesis.template].wordings[prediction.metric]
    sentence = {"refuted": wording.refuted, "inconclusive": wording.inconclusive}.get(
        status, wording.held
    )
    names = {key: literal(_spoken(key, value)) for key, value in hypothesis.slots.items()}
    # Where no scope was predicted, the result says what was measured: the token that came first.
    names["scope"] = literal(prediction.scope or measurement.scope)
    names["caption"] = literal(caption_of(result, prediction) or "nothing nameable")
    filled = sentence.format_map(names)
    filled = filled[:1].upper() + filled[1:]
    hole = (
        prediction.metric if not measurement.scope else f"{prediction.metric}#{measurement.scope}"
    )
    return _METRIC_HOLE.sub("{" + hole.replace("\\", "\\\\") + "}", filled)


def _spoken(key: str, value: JsonValue) -> str:
    """A slot in a sentence: each number of a list says what it numbers, as the check demands."""
    if not isinstance(value, list):
        return str(value)
    noun = key.removesuffix("s")
    return ", ".join(f"{noun} {each}" if isinstance(each, int) else str(each) for each in value)


def _scope(hypothesis: Hypothesis, prediction: Prediction, result: ToolResult) -> str:
    caption = caption_of(result, prediction)
    parts = [prediction.scope, caption] if caption else [prediction.scope]
    return "; ".join(part for part in parts if part) or hypothesis.statement


def caption_of(result: ToolResult, prediction: Prediction) -> str | None:
    """What a captioning result says of the unit that the prediction is about."""
    entry = _caption_entry(result, prediction)
    text = entry.get("caption") or entry.get("best_rejected")
    return text if isinstance(text, str) else None


def _caption_entry(result: ToolResult, prediction: Prediction) -> JsonObject:
    captions = result.output.get("captions")
    for entry in captions if isinstance(captions, list) else []:
        if isinstance(entry, dict) and f"unit {entry.get('unit')}" == prediction.scope:
            return entry
    return {}


def _remember(desk: Desk, claim: Claim, rendered: str) -> None:
    subject = desk.scene.subject
    finding = Finding(
        id=content_id([desk.audit_id, claim.id]),
        text=rendered,
        status=claim.status,
        subject_name=subject.name,
        subject_digest=subject.digest,
        audit_id=desk.audit_id,
        created=desk.ledger.audit(desk.audit_id).started,
        source="claim",
    )
    desk.keep("finding", claim.id, finding)
    if desk.bench.memory is not None:
        desk.bench.memory.add([finding])
