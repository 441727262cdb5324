"""Units of a language subject in the batch: as the tool captions them, and exactly resumable."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Interrupted, ToolError
from dragoman.core.protocols import ChatReply, ChatRequest
from dragoman.core.records import ChatIdentity
from dragoman.tools.captioning import bar, batch, batch_language
from dragoman.tools.captioning.bar import Bar
from dragoman.tools.captioning.batch import Group, Pace
from dragoman.tools.captioning.batch_language import LanguageUnits, ranges
from dragoman.tools.captioning.bench import Bench
from dragoman.tools.captioning.corpus import Corpus, read_corpus
from dragoman.tools.captioning.rows import UnitCaption
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.captioning.units import UnitLayer, read_layers
from dragoman.tools.context import ToolContext

NAMES = ("France", "Japan", "a dog", "an animal", "Paris", "Tokyo")
TEXTS = [
    f"The capital of {NAMES[n % 6]} is {NAMES[(n * 5 + 1) % 6]}, {n} said. "
    f"A dog is {NAMES[(n // 6) % 6]}. The {NAMES[(n * 7) % 6]} of {n * 13 % 97} is here."
    for n in range(90)
]
MLP = UnitLayer(layer=1)


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


@pytest.fixture
def context(make_tiny: Callable[..., Any], tmp_path: Path) -> ToolContext:
    return ToolContext(make_tiny(), 0, tmp_path, tmp_path / "artifacts" / "x", tmp_path / "cache")


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return path


@pytest.fixture
def corpus(context: ToolContext, corpus_file: Path) -> Corpus:
    return read_corpus(corpus_file, context.subject.tokenizer, 200)


def caption(units: LanguageUnits, folder: Path, **options: Any) -> list[UnitCaption]:
    paces: list[Pace] = []
    describe = options.pop("describe", units.describe)
    resume = options.pop("resume", False)
    batch.run(folder, units.settings, units.groups, describe, resume=resume, on_pace=paces.append)
    return list(batch.read_rows(folder))


def test_a_row_says_what_the_tool_says(
    context: ToolContext, corpus: Corpus, corpus_file: Path, tmp_path: Path
) -> None:
    neurons = [3, 7, 20, 40]
    rows = caption(LanguageUnits(context, {MLP: neurons}, corpus, effort="quick"), tmp_path / "out")
    arguments = caption_neurons.parse(
        {"layer": 1, "neurons": [*neurons], "corpus": str(corpus_file), "effort": "quick"}
    )
    experiment = caption_neurons.experiment(arguments, subject_digest="", seed=0)
    result = caption_neurons.run(context, experiment)
    entries: Any = result.output["captions"]
    assert [row.name for row in rows] == [entry["unit"] for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert (row.caption, row.best_rejected) == (entry["caption"], entry.get("best_rejected"))
        assert (row.density, row.threshold) == (entry["density"], entry["threshold"])
        measured = {each.metric: each for each in row.measurements}
        for each in result.measurements:
            if each.scope == f"unit {row.name}" and each.metric == "detection":
                assert measured["detection"] == each
    assert any(row.measurements for row in rows)


def test_exemplars_hold_their_tokens_and_strengths(
    context: ToolContext, corpus: Corpus, tmp_path: Path
) -> None:
    rows = caption(LanguageUnits(context, {MLP: [3, 7]}, corpus, effort="quick"), tmp_path / "out")
    exemplars = [exemplar for row in rows for exemplar in row.exemplars]
    assert exemplars
    for exemplar in exemplars:
        assert len(exemplar.tokens) == len(exemplar.strengths)
        assert "".join(exemplar.tokens) in " ".join(corpus.documents)
        assert all(0 <= each <= 1 for each in exemplar.strengths)
        assert exemplar.strengths[exemplar.peak] == max(exemplar.strengths)
    strongest = [row.exemplars[0] for row in rows if row.exemplars]
    assert all(each.strengths[each.peak] == 1.0 for each in strongest)


@pytest.mark.parametrize("n", [1, 6])
def test_a_run_goes_on_exactly_wherever_it_was_stopped(
    context: ToolContext, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(batch_language, "GROUP_UNITS", 3)
    monkeypatch.setattr(batch_language, "_BLOCK_UNITS", 6)
    requests = {MLP: range(7), UnitLayer(kind="head", layer=2): range(2)}

    def units() -> LanguageUnits:
        return LanguageUnits(context, requests, corpus, effort="quick")

    caption(units(), tmp_path / "whole")
    left, stopped = n, units()

    def stopping(index: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
        nonlocal left
        for row in stopped.describe(index, wanted):
            if not left:
                raise Interrupted("stopped")
            left -= 1
            yield row

    with pytest.raises(Interrupted):
        caption(stopped, tmp_path / "stopped", describe=stopping)
    caption(units(), tmp_path / "stopped", resume=True)
    whole, resumed = (
        (tmp_path / name / batch.ROWS_FILE).read_bytes() for name in ("whole", "stopped")
    )
    assert resumed == whole


def test_one_pass_serves_all_groups_that_memory_has_room_for(
    context: ToolContext, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_language, "GROUP_UNITS", 3)
    passes: list[int] = []
    read = read_layers

    def counting(*args: Any, **options: Any) -> Any:
        passes.append(sum(map(len, args[3].values())))
        return read(*args, **options)

    monkeypatch.setattr(batch_language, "read_layers", counting)
    requests = {UnitLayer(layer=layer): range(4) for layer in range(3)}
    caption(LanguageUnits(context, requests, corpus, effort="quick"), tmp_path / "one")
    assert len(passes) == 1
    n_tokens = sum(len(context.subject.tokenizer(each)["input_ids"]) for each in corpus.documents)
    monkeypatch.setattr(batch_language, "_CHUNK_BYTES", 4 * n_tokens * 20)
    passes.clear()
    caption(LanguageUnits(context, requests, corpus, effort="quick"), tmp_path / "three")
    assert len(passes) == 3
    rows = [(tmp_path / name / batch.ROWS_FILE).read_bytes() for name in ("one", "three")]
    assert rows[0] == rows[1]


def test_the_bar_of_random_units_is_counted_once_for_all_groups(
    context: ToolContext, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_language, "GROUP_UNITS", 1)
    counted: list[str] = []

    def counting(context: ToolContext, bench: Bench, **options: Any) -> Bar:
        counted.append(str(bench.where))
        return Bar({"simulation": 0.5}, {"simulation": 0.25}, 40)

    monkeypatch.setattr(bar, "_counted", counting)
    units = LanguageUnits(context, {MLP: [3, 7]}, corpus, effort="full", thorough=True)
    rows = caption(units, tmp_path / "out")
    assert len(units.groups) == 2
    assert counted == [str(MLP)]
    expected = round(float(np.tanh(0.5 + bar.DEVIATIONS * 0.25)), 4)
    for row in rows:
        told: Any = row.details["random_twin_bar"]
        assert (told["simulation"], told["n"]) == (expected, 40)


def test_a_row_says_how_many_replies_its_caption_took(
    context: ToolContext, corpus: Corpus, tmp_path: Path
) -> None:
    chat = Says()
    rows = []
    for name in ("first", "cached"):
        units = LanguageUnits(replace(context, chat=chat), {MLP: [3, 7]}, corpus, effort="quick")
        rows.append(caption(units, tmp_path / name))
    assert chat.n_calls == 1
    assert [row.details["chat_replies_per_unit"] for row in rows[0]] == [0.5, 0.5]
    assert rows[1] == rows[0]


def test_settings_tell_runs_apart(context: ToolContext, corpus: Corpus) -> None:
    base = LanguageUnits(context, {MLP: range(20)}, corpus, effort="quick")
    assert (
        base.settings == LanguageUnits(context, {MLP: range(20)}, corpus, effort="quick").settings
    )
    assert base.settings.units == ("mlp.1: 0-19",)
    assert base.groups == [
        Group(tuple(f"1.{unit}" for unit in range(16))),
        Group(tuple(f"1.{unit}" for unit in range(16, 20))),
    ]
    others = [
        LanguageUnits(context, {MLP: range(19)}, corpus, effort="quick"),
        LanguageUnits(context, {MLP: range(20)}, corpus, effort="full"),
        LanguageUnits(context, {MLP: range(20)}, corpus, effort="quick", pmi=False),
        LanguageUnits(context, {MLP: range(20)}, corpus, effort="quick", thorough=True),
    ]
    assert len({each.settings.digest for each in (base, *others)}) == 5


def test_units_that_are_not_there_are_refused(context: ToolContext, corpus: Corpus) -> None:
    with pytest.raises(ToolError, match=r"neuron 48 is outside 0\.\.47"):
        LanguageUnits(context, {MLP: [48]}, corpus, effort="quick")
    with pytest.raises(ToolError, match=r"layer 9 is outside 0\.\.2"):
        LanguageUnits(context, {UnitLayer(layer=9): [0]}, corpus, effort="quick")


@pytest.mark.parametrize(
    ("units", "told"), [([], ""), ([4], "4"), ([1, 0, 2, 7, 9, 8], "0-2, 7-9")]
)
def test_ranges_read_as_a_person_writes_them(units: list[int], told: str) -> None:
    assert ranges(units) == told
