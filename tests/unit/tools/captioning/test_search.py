"""The atlas keeps captions by subject; `search_neurons` finds them, or says that it did not."""

from pathlib import Path
from typing import Any

import pytest

from dragoman.core.records import Measurement
from dragoman.tools.captioning import search as searching
from dragoman.tools.captioning.ablation import ablate_neurons
from dragoman.tools.captioning.atlas import Atlas
from dragoman.tools.captioning.rows import RowKind, UnitCaption, row_of_entry
from dragoman.tools.captioning.search import search_neurons
from dragoman.tools.context import ToolContext

_AXES = ("month", "music", "number", "river", "animal")


def embed(texts: list[str]) -> list[list[float]]:
    """A direction for each subject of talk, and one of its own for each other word."""
    vectors = []
    for text in texts:
        found = [float(axis in text) for axis in _AXES]
        rest = [0.0] * 97
        for word in text.split():
            if not any(axis in word for axis in _AXES):
                rest[sum(map(ord, word)) % 97] += 1.0
        vector = [*found, *rest]
        length = sum(value * value for value in vector) ** 0.5
        vectors.append([value / length for value in vector])
    return vectors


def row(
    unit: int,
    caption: str | None,
    *,
    layer: int = 3,
    kind: RowKind = "mlp",
    n: int = 100,
    value: float = 0.8,
    senses: tuple[str, ...] = (),
) -> UnitCaption:
    entry: dict[str, Any] = {"caption": caption}
    entry["senses"] = [{"caption": sense, "share": 0.5} for sense in senses]
    measured = Measurement(
        metric="detection",
        value=value,
        unit="fraction",
        baseline=0.5,
        control="shuffled captions",
        ci95=(value - 0.1, value + 0.1),
        n=n,
    )
    return row_of_entry(kind, layer, unit, entry, (measured,), ())


@pytest.fixture
def context(tiny_subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToolContext:
    monkeypatch.setattr(searching, "_embedder", lambda context: embed)
    return ToolContext(
        network=tiny_subject,
        seed=0,
        home=tmp_path,
        artifacts=tmp_path / "artifacts" / "x",
        cache=tmp_path / "cache",
    )


@pytest.fixture
def atlas(context: ToolContext) -> Atlas:
    return Atlas(context.home, context.subject.identity.digest)


def find(context: ToolContext, concept: str, **options: Any) -> Any:
    experiment = search_neurons.experiment(
        search_neurons.parse({"concept": concept, **options}), subject_digest="", seed=0
    )
    return search_neurons.run(context, experiment)


def test_units_are_found_by_their_captions(context: ToolContext, atlas: Atlas) -> None:
    atlas.store("run", [row(1, "months"), row(2, "numbers"), row(3, None), row(4, "months music")])
    result = find(context, "month")
    assert [unit["unit"] for unit in result.output["units"]] == ["3.1", "3.4"]
    assert result.output["outcome"] == "found"
    assert (result.output["n_units_searched"], result.output["n_captions_searched"]) == (4, 3)
    measured = result.measurement("similarity")
    assert measured.value > 0.8
    assert measured.baseline < 0.2
    assert measured.n == 2


@pytest.mark.parametrize(
    ("caption", "gist"),
    [
        ("words about food and drink", "food and drink"),
        ("tokens right after words that have to do with months", "months"),
        ('the words "gold" or "tin" or text about money', "gold or tin or money"),
        ("numbers of two digits", "numbers of two digits"),
        ("a chat model's own words", "a chat model's own words"),
        ('the token "\'"', "'"),
        ('the token """', 'the token """'),
    ],
)
def test_the_gist_of_a_caption_leaves_out_what_templates_add(caption: str, gist: str) -> None:
    assert searching.gist(caption) == gist


def test_random_words_beside_a_concept_never_hold_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_words", lambda: ("river", "lake", "sea"))
    phrases = searching._shuffled("River", 0)
    assert len(phrases) == 100
    assert set(phrases) == {"lake", "sea"}


def test_nothing_stored_is_not_nothing_found(context: ToolContext, atlas: Atlas) -> None:
    assert find(context, "months").summary.startswith("not searched")
    atlas.store("run", [row(1, "numbers"), row(2, "rivers")])
    other = find(context, "months")
    assert other.summary.startswith("nothing found: no caption is near 'months'")
    assert other.output["units"] == []
    assert other.output["nearest_rejected"]
    assert other.measurements == ()
    assert find(context, "months", layer=2).output["outcome"] == "not searched"
    atlas.store("run", [row(1, None)])
    assert find(context, "months").summary == "nothing found: none of 1 units has a caption"


def test_a_unit_is_found_by_one_of_its_senses(context: ToolContext, atlas: Atlas) -> None:
    atlas.store("run", [row(1, "things or others", senses=("rivers", "animals"))])
    unit = find(context, "animal").output["units"][0]
    assert unit["matched"] == "animals"
    assert unit["caption"] == "things or others"


def test_kind_and_layer_narrow_the_search(context: ToolContext, atlas: Atlas) -> None:
    atlas.store("run", [row(1, "months"), row(1, "months", layer=4), row(2, "months", kind="head")])
    names = [
        [unit["unit"] for unit in find(context, "months", **only).output["units"]]
        for only in ({}, {"layer": 4}, {"kind": "head"}, {"k": 1})
    ]
    assert names == [["head.3.2", "3.1", "4.1"], ["4.1"], ["head.3.2"], ["head.3.2"]]


def test_the_source_with_most_contexts_speaks_for_a_unit(atlas: Atlas) -> None:
    atlas.store("b", [row(1, "numbers", n=300)])
    atlas.store("a", [row(1, "months", n=100), row(2, "rivers")])
    entries = {entry.name: entry.caption for entry in atlas.holdings().entries}
    assert entries == {"3.1": "numbers", "3.2": "rivers"}
    atlas.store("b", [row(1, None, n=300)])
    assert [entry.name for entry in atlas.holdings().captioned] == ["3.2"]


def test_another_subject_has_an_atlas_of_its_own(context: ToolContext) -> None:
    Atlas(context.home, "another digest").store("run", [row(1, "months")])
    assert find(context, "months").output["outcome"] == "not searched"


def test_a_search_is_another_experiment_once_more_is_stored(
    context: ToolContext, atlas: Atlas
) -> None:
    def asked(tool: Any, **arguments: Any) -> str:
        digest = context.subject.identity.digest
        parsed = tool.parse(arguments)
        experiment = tool.experiment(parsed, subject_digest=digest, seed=0, home=context.home)
        found: str = experiment.id
        return found

    def all_three() -> tuple[str, str, str]:
        return (
            asked(search_neurons, concept="months"),
            asked(ablate_neurons, layer=1, concept="months"),
            asked(ablate_neurons, layer=1, neurons=[2]),
        )

    before = all_three()
    assert all_three() == before
    atlas.store("run", [row(2, "words about months", layer=1)])
    after = all_three()
    assert [left == right for left, right in zip(before, after, strict=True)] == [
        False,
        False,
        True,
    ]
    # The same once more is the same.
    atlas.store("run", [row(2, "words about months", layer=1)])
    assert all_three() == after


def test_damage_costs_time_and_never_an_answer(context: ToolContext, atlas: Atlas) -> None:
    atlas.store("run", [row(1, "months")])
    before = find(context, "months")
    (atlas.folder / "vectors.safetensors").write_bytes(b"nonsense")
    assert find(context, "months").output == before.output
    (atlas.folder / "broken.jsonl").write_text("nonsense\n")
    result = find(context, "months")
    assert result.output["units"] == before.output["units"]
    assert any("broken.jsonl" in caveat for caveat in result.caveats)


def test_stored_vectors_are_not_made_again(atlas: Atlas) -> None:
    atlas.vectors(["months", "rivers"], embed)
    asked: list[str] = []

    def watching(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return embed(texts)

    again = atlas.vectors(["rivers", "numbers", "months"], watching)
    assert asked == ["numbers"]
    assert again.shape[0] == 3


def test_without_the_embedder_the_error_says_how_to_get_it(
    tiny_subject: Any, tmp_path: Path
) -> None:
    context = ToolContext(tiny_subject, 0, tmp_path, tmp_path / "a", tmp_path / "c")
    Atlas(tmp_path, tiny_subject.identity.digest).store("run", [row(1, "months")])
    result = find(context, "months")
    assert result.status == "error"
    assert "dragoman weights pull minilm" in result.error


@pytest.mark.weights
@pytest.mark.parametrize(
    ("concept", "caption"),
    [
        ("musical instruments", "words about music"),
        ("digits", "numbers of two digits"),
        ("dogs", "words about animals"),
        ("-ing forms of verbs", 'words ending in "-ing"'),
    ],
)
def test_real_embeddings_find_what_is_meant(
    context: ToolContext,
    atlas: Atlas,
    weights_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    concept: str,
    caption: str,
) -> None:
    from dragoman.tools.embedding import Embedder

    embedder = Embedder(weights_home / "weights" / "minilm")
    monkeypatch.setattr(searching, "_embedder", lambda context: embedder)
    captions = [
        "words about music",
        "numbers of two digits",
        "words about animals",
        'words ending in "-ing"',
        "first words of a sentence",
        "opening brackets",
    ]
    atlas.store("run", [row(unit, each) for unit, each in enumerate(captions)])
    assert [unit["caption"] for unit in find(context, concept).output["units"]] == [caption]
    assert find(context, "quantum chromodynamics").output["outcome"] == "nothing found"
