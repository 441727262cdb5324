"""The table of the detection eval: relation by relation, with every control beside the probe."""

from collections.abc import Sequence
from statistics import fmean, median

from dragoman.core.escaping import visible
from dragoman.core.records import Measurement, ToolResult
from dragoman.evals.cells import line, plain, ranged
from dragoman.tools.editing.detection.methods import (
    ANOTHER_ENTITY,
    COMBINED,
    CONFIDENCE,
    STATED_OBJECT,
    TWIN,
    UNTRAINED,
)
from dragoman.tools.statistics import bootstrap

GOAL = 8
_INTRODUCTION = """# Foreseeing errors of {subject}, question: {question}

`detect_errors` on entities that neither editor nor probe saw. *phi*: Matthews correlation of
foreseen and real errors, with a bootstrap interval over entities. *Confidence*: the subject's own,
the best of three forms, calibrated on the same entities as the probe. *Difference*: of the two,
on the same resampled entities. *Control task*: the mean over labels dealt out anew. *Object alone*:
no entity is looked at. *Another entity*: the whole procedure on exchanged representations. *No
editor*: raw attribute vectors for directions. *Twin*: a network with freshly drawn weights. *Both*:
probe and confidence together, for whoever wants the best forecast; it is no pure probe.
*Corrected*: accuracy before, and after facts at risk were edited.

| relation | n | errors | phi [95%] | confidence [95%] | difference [95%] | control task | object \
alone | another entity | no editor | twin | both | AUROC | corrected | entity layers |
|---|---:|---:|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|
"""


def render(
    rows: Sequence[tuple[str, ToolResult]],
    *,
    subject: str,
    question: str,
    command: str,
    seconds: float,
    n_codes: int,
) -> str:
    """The whole page in Markdown."""
    judged = [(name, result) for name, result in rows if result.status == "ok"]
    lines = [_line(name, result) for name, result in judged]
    lines += ["", *_counts(judged), "", *_sweeps(judged)]
    refused = [(name, result) for name, result in rows if result.status != "ok"]
    lines += ["", *_refused(refused)] if refused else []
    lines += [
        "",
        f"Made by `{command}`: {len(rows)} relations, {seconds / 60:.0f} minutes of CPU time.",
    ]
    if n_codes > 1:
        lines += ["", f"The rows were counted by {n_codes} versions of the tools."]
    name = visible(subject, one_line=True)
    return _INTRODUCTION.format(subject=name, question=question) + "\n".join(lines) + "\n"


def beats(result: ToolResult) -> bool:
    """Whether phi is above the subject's confidence and above the control task."""
    found, control = result.measurement("phi"), _control(result, "phi", "")
    assert found is not None
    assert control is not None
    return found.value > found.baseline and found.value > control.baseline


def _line(name: str, result: ToolResult) -> str:
    found, lead = result.measurement("phi"), result.measurement("phi_above_confidence")
    after, roc = result.measurement("corrected_accuracy"), result.measurement("auroc")
    task = _control(result, "phi", "")
    assert found is not None
    assert lead is not None
    cells = (
        f"`{name}`",
        str(found.n),
        str(result.output["errors_tested"]),
        ranged(found),
        ranged(_control(result, "phi", CONFIDENCE)),
        ranged(lead),
        "" if task is None else f"{task.baseline:.2f}",
        *(
            plain(_control(result, "phi", scope))
            for scope in (STATED_OBJECT, ANOTHER_ENTITY, UNTRAINED, TWIN, COMBINED)
        ),
        plain(roc),
        "" if after is None else f"{after.baseline:.2f} → {after.value:.2f}",
        str(result.output["entity_layers"]),
    )
    return line(cells)


def _counts(judged: Sequence[tuple[str, ToolResult]]) -> list[str]:
    above = [name for name, result in judged if beats(result)]
    surely = [name for name, result in judged if _lead(result).ci95[0] > 0]
    below = [f"`{name}`" for name, result in judged if not beats(result)]
    lines = [
        f"- phi above the subject's confidence and above the control task on {len(above)} of "
        f"{len(judged)} relations (goal: {GOAL}); the interval of the difference lies above 0 on "
        f"{len(surely)}: {', '.join(f'`{name}`' for name in surely) or 'none'}.",
    ]
    if below:
        lines.append(f"- Not above: {', '.join(below)}.")
    alone = sum(
        _value(result, STATED_OBJECT) < _lead(result).value + _baseline(result)
        for _, result in judged
    )
    lines.append(
        f"- phi above that of the stated object alone on {alone} of {len(judged)}: there the "
        "entity's representation adds to what is told by the object."
    )
    if judged:
        lines += _over_relations([result for _, result in judged])
    return lines


def _over_relations(results: Sequence[ToolResult]) -> list[str]:
    """Differences as means over relations, and why one relation alone decides little."""
    phis = [_lead(result).value + _baseline(result) for result in results]
    rivals = {
        "its own confidence": [_baseline(result) for result in results],
        "the stated object alone": [_value(result, STATED_OBJECT) for result in results],
        "another entity's representation": [_value(result, ANOTHER_ENTITY) for result in results],
    }
    shown = []
    for name, theirs in rivals.items():
        differences = [ours - other for ours, other in zip(phis, theirs, strict=True)]
        low, high = bootstrap(differences, 0)
        shown.append(f"{name} {fmean(differences):+.2f} [{low:+.2f}, {high:+.2f}]")
    errors = median(float(str(result.output["errors_tested"])) for result in results)
    width = median(_lead(result).ci95[1] - _lead(result).ci95[0] for result in results)
    return [
        f"- Mean of phi over relations: {fmean(phis):.2f}; above that of {', '.join(shown)} "
        "(95%, bootstrap over relations).",
        f"- One relation decides little: the median one has {errors:g} errors among its test "
        f"facts, and the interval of its difference is {width:.2f} wide.",
    ]


def _sweeps(judged: Sequence[tuple[str, ToolResult]]) -> list[str]:
    lines = [
        "AUROC within the fitting split by entity layer, mean over folds; it makes the choice:",
        "",
    ]
    for name, result in judged:
        tried = result.output["layers_tried"]
        assert isinstance(tried, list)
        shown = []
        for one in tried:
            assert isinstance(one, dict)
            layers, reached = one["layers"], one["auroc_on_fitting_split"]
            assert isinstance(layers, list)
            assert isinstance(reached, float)
            label = str(layers[0]) if len(layers) == 1 else "all"
            shown.append(f"{label}: {reached:.2f}")
        lines.append(f"- `{visible(name, one_line=True)}`: {', '.join(shown)}")
    return lines


def _refused(rows: Sequence[tuple[str, ToolResult]]) -> list[str]:
    lines = ["No figure:", ""]
    return lines + [
        f"- {visible(result.error or result.summary, one_line=True)}" for _, result in rows
    ]


def _control(result: ToolResult, metric: str, scope: str) -> Measurement | None:
    found = (each for each in result.controls if (each.metric, each.scope) == (metric, scope))
    return next(found, None)


def _lead(result: ToolResult) -> Measurement:
    found = result.measurement("phi_above_confidence")
    assert found is not None
    return found


def _baseline(result: ToolResult) -> float:
    found = result.measurement("phi")
    assert found is not None
    return found.baseline


def _value(result: ToolResult, scope: str) -> float:
    found = _control(result, "phi", scope)
    assert found is not None
    return found.value
