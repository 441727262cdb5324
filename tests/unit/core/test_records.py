"""Records: frozen, closed, equal content under equal ids."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dragoman.core.records import (
    Experiment,
    Measurement,
    Site,
    ToolResult,
    ToolSuccess,
    canonical_json,
    content_id,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def measurement(**changes: object) -> Measurement:
    values = {
        "metric": "efficacy",
        "value": 0.5,
        "unit": "fraction",
        "baseline": 0.1,
        "control": "no edit",
        "ci95": (0.4, 0.6),
        "n": 20,
        **changes,
    }
    return Measurement.model_validate(values)


def experiment(**changes: object) -> Experiment:
    values = {"tool": "t", "arguments": {"b": 1, "a": 2}, "subject_digest": "d", "seed": 0}
    return Experiment.model_validate({**values, **changes})


@given(st.dictionaries(st.text(), VALUES))
def test_the_order_of_keys_does_not_change_an_id(value: dict[str, object]) -> None:
    assert content_id(value) == content_id(dict(reversed(value.items())))


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": math.nan})
    with pytest.raises(ValidationError):
        measurement(value=math.nan)


@pytest.mark.parametrize(
    "change",
    [{"tool": "u"}, {"arguments": {"a": 2}}, {"subject_digest": "e"}, {"seed": 1}, {"code": "x"}],
)
def test_every_part_of_an_experiment_is_in_its_id(change: dict[str, object]) -> None:
    assert experiment(**change).id != experiment().id


def test_argument_order_is_no_part_of_an_experiment() -> None:
    assert experiment(arguments={"a": 2, "b": 1}).id == experiment().id


def test_a_value_outside_its_interval_is_refused() -> None:
    with pytest.raises(ValidationError, match="outside its interval"):
        measurement(value=0.7)


def test_records_are_frozen_and_closed() -> None:
    site = Site(layer=3)
    with pytest.raises(ValidationError):
        site.layer = 4  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Site.model_validate({"layer": 3, "head": 1})


def test_a_result_keeps_what_the_tool_returned_and_reads_back() -> None:
    success = ToolSuccess(
        summary="s", measurements=(measurement(), measurement(scope="unit 1.2", value=0.6))
    )
    result = ToolResult.success(experiment(), success)
    assert ToolResult.model_validate_json(result.model_dump_json()) == result
    found = result.measurement("efficacy", "unit 1.2")
    assert found is not None
    assert found.value == 0.6
    assert result.measurement("efficacy", "unit 9.9") is None


def test_a_failure_is_a_result_with_its_reason() -> None:
    result = ToolResult.failure(experiment(), "layer 41 is outside 0..29")
    assert (result.status, result.error) == ("error", "layer 41 is outside 0..29")
