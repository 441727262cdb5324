"""The relation files we ship, the published format with its faults, and the loader's errors."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import ToolError
from dragoman.tools.relations import (
    KINDS,
    MAXIMUM_BYTES,
    Relation,
    Sample,
    list_relations,
    load_relation,
    relation_caveats,
)

NAMES = list_relations()


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": "river sea",
        "prompt_templates": ["The {} flows into the"],
        "prompt_templates_zs": ["Into which sea does the {} flow? Into the"],
        "properties": {
            "relation_type": "factual",
            "domain_name": "river",
            "range_name": "sea",
            "symmetric": False,
        },
        "samples": [{"subject": f"river {n}", "object": f"sea {n % 3}"} for n in range(9)],
    }
    return made | changes


def write(folder: Path, content: Any) -> str:
    path = folder / "relation.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def complaint(name_or_path: str) -> str:
    with pytest.raises(ToolError) as caught:
        load_relation(name_or_path)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- the files we ship ---------------------------------------------------------------------


def test_there_are_enough_relations_of_every_kind() -> None:
    kinds = Counter(load_relation(name).kind for name in NAMES)
    assert len(NAMES) >= 24
    assert set(kinds) == set(KINDS)
    assert all(count >= 3 for count in kinds.values())


@pytest.mark.parametrize("name", NAMES)
def test_shipped_file_is_clean(name: str) -> None:
    relation = load_relation(name)
    assert relation.notes == (), "a file of ours needs no repair"
    assert 24 <= len(relation.samples) <= 100
    assert len({sample.subject.casefold() for sample in relation.samples}) == len(relation.samples)
    assert all(s.subject.casefold() != s.object.casefold() for s in relation.samples)
    assert len(relation.prompt_templates_zs) >= 2
    assert len(relation.objects) >= 2
    first = [sample.object for sample in relation.samples[: len(relation.objects)]]
    assert len(set(first)) == len(first), "samples go round-robin over the objects"


@pytest.mark.parametrize("name", NAMES)
def test_shipped_file_is_written_as_it_is_read(name: str) -> None:
    path = Path(__file__).parents[3] / "tools" / "data" / "relations" / f"{name}.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    relation = load_relation(name)
    assert relation == load_relation(str(path))
    assert raw["prompt_templates"] == list(relation.prompt_templates)
    assert raw["prompt_templates_zs"] == list(relation.prompt_templates_zs)
    assert [Sample(**sample) for sample in raw["samples"]] == list(relation.samples)


def test_symmetric_relation_does_not_contradict_itself() -> None:
    relation = load_relation("adj_antonym")
    answers = {sample.subject: sample.object for sample in relation.samples}
    assert relation.symmetric
    for sample in relation.samples:
        assert answers.get(sample.object, sample.subject) == sample.subject


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Country Capital", " country-capital ", "COUNTRY_CAPITAL"])
def test_name_is_tolerant(name: str) -> None:
    assert load_relation(name) == load_relation("country_capital")


def test_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    message = complaint("country capitol")
    assert "did you mean 'country_capital'?" in message
    assert all(name in message for name in NAMES)


def test_missing_file_that_is_named_like_ours() -> None:
    message = complaint("data/country_capital.json")
    assert message.startswith("no file 'data/country_capital.json': did you mean")


@pytest.mark.parametrize("name", ["", "   ", "a\0b", "x" * 5000, "~nobody-here/relation.json"])
def test_impossible_name_is_a_clear_error(name: str) -> None:
    assert "known relations:" in complaint(name)


# --- the published format --------------------------------------------------------------------


def test_file_in_published_format(tmp_path: Path) -> None:
    relation = load_relation(write(tmp_path, document()))
    assert relation == Relation(
        name="river sea",
        kind="factual",
        prompt_templates=("The {} flows into the",),
        prompt_templates_zs=("Into which sea does the {} flow? Into the",),
        samples=tuple(Sample(subject=f"river {n}", object=f"sea {n % 3}") for n in range(9)),
        domain_name="river",
        range_name="sea",
        symmetric=False,
    )
    assert relation.objects == ("sea 0", "sea 1", "sea 2")
    assert Relation.model_validate_json(relation.model_dump_json()) == relation


def test_double_escaped_characters_are_decoded(tmp_path: Path) -> None:
    samples = document()["samples"]
    samples[0] = {"subject": "Bras\\u00edlia", "object": "\\ud83c\\udf0a sea"}
    relation = load_relation(write(tmp_path, document(samples=samples)))
    assert relation.samples[0] == Sample(subject="Brasília", object="\U0001f30a sea")


def test_repeats_and_further_objects_are_reported(tmp_path: Path) -> None:
    samples = document()["samples"]
    samples += [samples[2], {"subject": "River 4", "object": "sea 9"}]
    relation = load_relation(write(tmp_path, document(samples=samples)))
    assert len(relation.samples) == 9
    assert relation.notes == (
        "samples[9] repeats samples[2]: left out",
        "samples[10] gives 'River 4' a further object 'sea 9': the first, 'sea 1', is kept",
    )


def test_missing_properties_are_filled_in_and_reported(tmp_path: Path) -> None:
    bare = {key: document()[key] for key in ("prompt_templates", "samples")}
    relation = load_relation(write(tmp_path, bare))
    assert relation.name == "relation"
    assert relation.kind == "factual"
    assert relation.prompt_templates_zs == relation.prompt_templates
    assert [note.split(" ")[0] for note in relation.notes] == [
        "properties.relation_type",
        "prompt_templates_zs",
    ]


def test_space_around_strings_is_dropped(tmp_path: Path) -> None:
    relation = load_relation(
        write(tmp_path, document(prompt_templates=[" The {} flows into the "]))
    )
    assert relation.prompt_templates == ("The {} flows into the",)


def test_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "relation.json"
    path.write_text(json.dumps(document()), encoding="utf-8-sig")
    assert load_relation(str(path)).name == "river sea"


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompt_templates": ["The river flows"]}, "prompt_templates[0] must hold exactly one {}"),
        ({"prompt_templates": ["{} and {}"]}, "prompt_templates[0] must hold exactly one {}"),
        (
            {"prompt_templates": ["{} of {kind}"]},
            "prompt_templates[0] holds a brace besides its {}",
        ),
        ({"prompt_templates": []}, "'prompt_templates' must be a list of at least one"),
        ({"prompt_templates": [7]}, "prompt_templates[0] must be a string, not int"),
        ({"prompt_templates_zs": ["{}", "x"]}, "prompt_templates_zs[1] must hold exactly one {}"),
        ({"properties": {"relation_type": "magic"}}, "properties.relation_type is 'magic'"),
        ({"properties": {"symmetric": "no"}}, "properties.symmetric must be true or false"),
        ({"properties": []}, "'properties' must be an object"),
        ({"samples": {}}, "'samples' must be a list"),
        ({"samples": []}, "0 different subjects; at least 8 samples"),
        ({"name": ""}, "name is empty"),
    ],
)
def test_bad_field_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    assert expected in complaint(write(tmp_path, document(**change)))


def test_every_bad_sample_is_named_with_its_index(tmp_path: Path) -> None:
    samples = document()["samples"]
    samples[1] = "river"
    samples[3] = {"subject": "river 3"}
    samples[4] = {"subject": "  ", "object": "sea"}
    samples[6] = {"subject": "river\n6", "object": "sea"}
    samples[7] = {"subject": "river\u202e7", "object": "sea"}
    samples[8] = {"subject": "river 8", "object": ["sea", "ocean"]}
    message = complaint(write(tmp_path, document(samples=samples)))
    for place in ("[1] must be an object", "[3].object is missing", "[4].subject is empty"):
        assert f"samples{place}" in message
    assert "samples[6].subject holds a control or hidden character" in message
    assert "\u202e" not in message
    assert "samples[8].object must be a string" in message
    assert "more)" not in message


def test_of_a_file_that_is_wrong_throughout_the_first_hundred_are_named(tmp_path: Path) -> None:
    message = complaint(write(tmp_path, document(samples=["river"] * 130)))
    assert "samples[99] must be an object" in message
    assert "samples[100]" not in message
    assert message.endswith("(and 30 more)")


def test_notes_that_are_not_shown_are_counted(tmp_path: Path) -> None:
    samples = document()["samples"]
    relation = load_relation(write(tmp_path, document(samples=[*samples, *samples[:5]])))
    caveats = relation_caveats(relation)
    assert len(relation.notes) == 5
    assert caveats[-1] == ("relation file: 2 more such notes; `dragoman relation list` shows all")
    assert len(caveats) == 4


def test_one_object_for_all_is_no_relation(tmp_path: Path) -> None:
    samples = [{"subject": f"river {n}", "object": "sea"} for n in range(9)]
    assert "share one object" in complaint(write(tmp_path, document(samples=samples)))


def test_lone_surrogate_is_refused(tmp_path: Path) -> None:
    samples = document()["samples"]
    samples[0] = {"subject": "\\ud83c", "object": "sea"}
    assert "hidden character" in complaint(write(tmp_path, document(samples=samples)))


def test_overlong_subject_is_refused(tmp_path: Path) -> None:
    samples = document()["samples"]
    samples[0] = {"subject": "r" * 401, "object": "sea"}
    assert "longer than 400" in complaint(write(tmp_path, document(samples=samples)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not JSON: Expecting value in line 1, column 1"),
        (b'{"name": ', "is not JSON"),
        (b"[1, 2]", "the top level must be an object"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"[" * 200_000, "not usable JSON (RecursionError)"),
        (b"9" * 5000, "not usable JSON (ValueError)"),
        (b" " * (MAXIMUM_BYTES + 1), "larger than 4 MiB"),
    ],
)
def test_content_that_is_no_relation(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "relation.json"
    path.write_bytes(content)
    assert expected in complaint(str(path))


def test_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in complaint(str(tmp_path))


@given(st.text(max_size=30))
def test_any_text_that_is_no_relation_is_explained_in_one_line(text: str) -> None:
    complaint(f"{text} in no relation")
