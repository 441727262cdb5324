import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dragoman.core.protocols import ChatReply, ChatRequest
from dragoman.core.records import ChatIdentity
from dragoman.evals.captions import WITH_CHAT, WITHOUT_CHAT, Study, Unit, draw, rows_made, run
from dragoman.evals.captions_table import Row, Value, Variant, column, difference, measured, render
from dragoman.tools.captioning import readings
from dragoman.tools.captioning.corpus import Corpus
from dragoman.tools.context import ToolContext

NAMES = ["France", "Japan", "a dog", "an animal", "Paris", "Tokyo"]
CORPUS = Corpus(
    id="x",
    description="90 texts",
    documents=tuple(
        f"The capital of {NAMES[n % 6]} is {NAMES[(n * 5 + 1) % 6]}, {n} said. A dog is "
        f"{NAMES[(n // 6) % 6]}. The {NAMES[(n * 7) % 6]} of {n * 13 % 97} is here, said a dog."
        for n in range(90)
    ),
)


def _value(value, floor=0.5, low=0.6):
    return Value(value=value, floor=floor, low=low, n=100)


def _row(unit, variant, value=None, **more):
    scores = {} if value is None else {"detection": _value(value, **more)}
    return Row(made="m", code="c", unit=unit, variant=variant, caption="numbers", scores=scores)


def test_more_of_the_same_draw_begins_with_fewer():
    assert draw(30, 1536, 60, 0) == draw(30, 1536, 200, 0)[:60]
    assert len(set(draw(30, 1536, 200, 0))) == 200
    assert draw(30, 1536, 60, 0) != draw(30, 1536, 60, 1)


@pytest.fixture(scope="module")
def study(make_tiny, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    context = ToolContext(make_tiny(), 0, home, home / "artifacts", home / "cache")
    return Study(context, CORPUS, [Unit(0, 3), Unit(1, 7), Unit(1, 9)], 4)


def test_every_neuron_gets_a_row_a_variant_and_none_is_made_twice(study, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    said: list[str] = []
    run(study, path, said.append, until=-1.0, variants=WITHOUT_CHAT)
    assert rows_made(path, study.made) == []
    rows = run(study, path, said.append, until=math.inf, variants=WITHOUT_CHAT)
    assert {(row.unit, row.variant) for row in rows} == {
        (unit, variant) for unit in ("0.3", "1.7", "1.9") for variant in WITHOUT_CHAT
    }
    assert any(row.scores for row in rows)
    written = path.read_bytes()
    path.write_bytes(written + b'{"made": "cut o')
    n_said = len(said)
    assert run(study, path, said.append, until=math.inf, variants=WITHOUT_CHAT) == rows
    assert (path.read_bytes(), len(said)) == (written, n_said)
    assert not {row.variant for row in rows} & set(WITH_CHAT)
    assert rows_made(path, "another study") == []


class Says:
    """A chat model that says the same of every neuron."""

    def __init__(self) -> None:
        self.n_calls = 0

    @property
    def identity(self) -> ChatIdentity:
        return ChatIdentity(kind="scripted", model="scripted")

    def complete(self, request: ChatRequest, **options: Any) -> ChatReply:
        self.n_calls += 1
        schema: Any = request.json_schema
        n = schema["properties"]["neurons"]["minItems"]
        text = json.dumps({"neurons": [{"captions": ['the word "Paris"']}] * n})
        return ChatReply(text=text, finish_reason="stop", prompt_tokens=9, completion_tokens=9)

    def close(self) -> None:
        pass


def test_replies_of_the_chat_model_are_counted_for_each_neuron(study, tmp_path):
    chat = Says()
    asked = Study(replace(study.context, chat=chat), CORPUS, [Unit(1, 7), Unit(1, 9)], 4)
    variants: tuple[Variant, ...] = ("search", "chat", "both")
    rows = run(asked, tmp_path / "rows", lambda _: None, until=math.inf, variants=variants)
    assert chat.n_calls == 1
    replies = {row.variant: row.chat_replies for row in rows}
    assert replies == {"search": None, "chat": 0.5, "both": 0.5}
    page = render(rows, "90 texts", 2, [])
    assert "took 0.50 replies a neuron (n = 2; not counted for 0)" in page
    assert "replies a neuron" not in render(
        [row for row in rows if row.variant == "search"], "90 texts", 2, []
    )
    again = run(asked, tmp_path / "more", lambda _: None, until=math.inf, variants=variants)
    assert chat.n_calls == 1
    assert again == rows


def test_activations_are_read_once(study, monkeypatch):
    def never(*arguments, **more):
        raise AssertionError("read again")

    for name in ("bench.scan_layers", "readings.read_layers"):
        monkeypatch.setattr(f"dragoman.tools.captioning.{name}", never)
    again = Study(study.context, CORPUS, [Unit(1, 9), Unit(0, 3), Unit(1, 7)], 4)
    for bench, other in zip(study.benches, again.benches, strict=True):
        assert np.array_equal(bench.scan.correlation, other.scan.correlation)
        assert bench.neighbours.of == other.neighbours.of


def test_damaged_columns_are_read_anew(tmp_path):
    from dragoman.tools.captioning.units import UnitLayer

    where, asked = UnitLayer(layer=1), []

    def read(wanted):
        asked.append(wanted)
        return {
            where: np.array([[unit, unit + 1] for unit in units], np.float32).T
            for where, units in wanted.items()
        }

    first = readings.cached_columns(tmp_path, 2, {where: [4, 2]}, read)[where]
    assert first.tolist() == [[4, 2], [5, 3]]
    (tmp_path / "mlp.1" / "2.npy").write_bytes(b"nonsense")
    again = readings.cached_columns(tmp_path, 2, {where: [2, 4, 9]}, read)[where]
    assert again.tolist() == [[2, 4, 9], [3, 5, 10]]
    assert asked == [{where: [4, 2]}, {where: [2, 9]}]


def test_units_without_a_score_count_as_failed():
    rows = [_row("1.1", "search", 0.7), _row("1.2", "search", 0.6), _row("1.3", "search")]
    found = measured(column(rows, "search", "detection"), "detection")
    assert found is not None
    assert found.value == pytest.approx(0.65)
    assert (found.n, found.n_failed) == (2, 1)
    assert measured(column(rows, "chat", "detection"), "detection") is None


def test_variants_are_compared_on_the_units_that_both_have():
    rows = [_row(f"1.{n}", "search", 0.6 + n / 100) for n in range(6)]
    rows += [_row(f"1.{n}", "both", 0.65 + n / 100) for n in range(2, 9)]
    gap = difference(rows, "both", "search", "detection")
    assert gap is not None
    value, low, high, n = gap
    assert n == 4
    assert [value, low, high] == pytest.approx([0.05] * 3)


def test_the_page_states_means_floors_and_failures():
    rows = [
        _row("1.1", "search", 0.7, floor=0.52),
        _row("9.2", "search", 0.6, floor=0.5, low=0.45),
        _row("9.3", "search"),
    ]
    page = render(rows, "90 texts", 3, ["no calls"])
    assert "| detection | 0.650 [0.600, 0.700] | 0.510 | 2 | 1 |" in page
    assert "predicate search, no chat model: 1 of 3" in page
    assert "| 6 to 11 | 0.600 | none | 1 |" in page
    assert "no calls" in page
