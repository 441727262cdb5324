"""Gates: conditions of the specification that decide whether a finished audit passes."""

from dragoman.agent.desk import Desk, Registration
from dragoman.agent.rendering.numbers import phrase
from dragoman.agent.rendering.prose import claim_text
from dragoman.agent.specification import GateRule
from dragoman.core.claims import Claim
from dragoman.core.records import Measurement
from dragoman.core.report import Gate


def judge_gates(desk: Desk) -> tuple[Gate, ...]:
    """Every gate with what was observed; what was not measured does not pass."""
    return tuple(
        _metric_gate(rule, desk) if rule.metric is not None else _claim_gate(rule, desk.claims())
        for rule in desk.specification.gates
    )


def _metric_gate(rule: GateRule, desk: Desk) -> Gate:
    assert rule.metric is not None
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("at least", rule.at_least), ("at most", rule.at_most))
        if bound is not None
    ]
    where = "".join(f", {part}" for part in (rule.tool, rule.relation) if part)
    description = f"{rule.metric} {' and '.join(bounds)}{where}"
    found = _measurements(rule, desk)
    if not found:
        return Gate(description=description, passed=False, observed="not measured")
    passed = all(
        (rule.at_least is None or each.value >= rule.at_least)
        and (rule.at_most is None or each.value <= rule.at_most)
        for each in found
    )
    return Gate(
        description=description, passed=passed, observed="; ".join(phrase(each) for each in found)
    )


def _measurements(rule: GateRule, desk: Desk) -> list[Measurement]:
    found: dict[str, list[Measurement]] = {}
    for registration in desk.kept("registration", Registration):
        experiment = registration.experiment
        if rule.tool not in (None, experiment.tool):
            continue
        if rule.relation not in (None, experiment.arguments.get("relation")):
            continue
        result = desk.result(experiment)
        if result is not None:
            found[experiment.id] = [
                each for each in result.measurements if each.metric == rule.metric
            ]
    return [each for measurements in found.values() for each in measurements]


def _claim_gate(rule: GateRule, claims: list[Claim]) -> Gate:
    assert rule.claim is not None
    wanted = rule.claim.casefold()
    matching = [
        claim
        for claim in claims
        if wanted in claim_text(claim).casefold() or wanted == claim.id.casefold()
    ]
    observed = ", ".join(f"{claim.id} is {claim.status}" for claim in matching)
    return Gate(
        description=f"claims with {rule.claim!r} are {rule.status}",
        passed=bool(matching) and all(claim.status == rule.status for claim in matching),
        observed=observed or "no such claim was made",
    )
