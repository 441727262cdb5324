"""`detect_errors` where the truth is known."""

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dragoman.core.errors import Interrupted, ToolError
from dragoman.core.files import write_atomic
from dragoman.core.records import ToolResult
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection import detector_store, editors, faults, study
from dragoman.tools.editing.detection.detector_store import FOLDER, load_detector, save_detector
from dragoman.tools.editing.detection.methods import ANOTHER_ENTITY, STATED_OBJECT
from dragoman.tools.editing.detection.reading import read
from dragoman.tools.editing.detection.shelf import shelved
from dragoman.tools.editing.detection.study import DETECTION_PLANS
from dragoman.tools.editing.detection.tool import detect_errors
from dragoman.tools.editing.placing import shared_token
from dragoman.tools.subjects.language import Batch, LanguageSubject
from dragoman.tools.subjects.planted import Planted

Detect = Callable[..., ToolResult]


class Trained(NamedTuple):
    """One detector, trained once for the tests that only look at it or use it again."""

    home: Path
    relation: Path
    given: list[dict[str, str]]
    result: ToolResult
    again: Detect
    """`detect_errors` of the same relation in the same data folder."""


@pytest.fixture(scope="module")
def trained(
    planted: Planted,
    make_half: Callable[[Path, Path], Path],
    detect_in: Detect,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    home = tmp_path_factory.mktemp("trained")
    relation = make_half(planted.write_relations(home / "relations")["linear"], home)
    samples = json.loads(relation.read_text())["samples"]
    given = [{"entity": each["subject"], "object": each["object"]} for each in samples]
    given.insert(3, {"entity": samples[0]["subject"], "object": "Atlantis"})
    facts = home / "facts.jsonl"
    facts.write_text("".join(json.dumps(row) + "\n" for row in given))
    again = functools.partial(detect_in, home, planted.subject, relation)
    return Trained(home, relation, given, again(facts=str(facts)), again)


def test_errors_that_stand_at_the_entity_are_foreseen_scored_and_corrected(
    trained: Trained,
) -> None:
    result, given = trained.result, trained.given
    assert result.error is None
    assert result.output["reused"] is False
    assert (result.output["facts_scored"], result.output["facts_unscored"]) == (60, 1)
    assert any("1 of 61 facts could not be scored" in caveat for caveat in result.caveats)

    found = result.measurement("phi")
    assert found is not None
    assert found.value > 0.7
    assert found.n == 36
    lead = result.measurement("phi_above_confidence")
    assert lead is not None
    assert lead.value == pytest.approx(found.value - found.baseline)
    by_scope = {each.scope: each for each in result.controls if each.metric == "phi"}
    for control in (STATED_OBJECT, ANOTHER_ENTITY):
        assert by_scope[control].value < 0.5
    assert by_scope[""].baseline < 0.3  # the control task

    after = result.measurement("corrected_accuracy")
    assert after is not None
    assert after.value > after.baseline + 0.2
    beside = {each.scope: each.value for each in result.controls if each.metric == after.metric}
    assert beside["random direction where an error is foreseen"] < after.value

    files = {each.name: trained.home / each.path for each in result.artifacts}
    rows = json.loads(files["risks.json"].read_text())
    assert len(rows) == 36
    assert [each["risk"] for each in rows] == sorted((e["risk"] for e in rows), reverse=True)
    # The probe names what the subject will say, before it is asked.
    assert sum(each["expected"] == each["answered"] for each in rows) > 18

    scored = json.loads(files["facts.json"].read_text())
    assert [each["entity"] for each in scored] == [row["entity"] for row in given]
    assert scored[3]["risk"] is None
    assert "'Atlantis' is not among" in scored[3]["reason"]
    judged = [each for each in scored if each["risk"] is not None]
    assert len(judged) == 60
    assert sum(each["error_foreseen"] == each["error"] for each in judged) > 48


def test_a_relation_that_is_known_in_full_is_refused(
    planted: Planted, files: dict[str, Path], detect: Detect
) -> None:
    result = detect(planted.subject, files["linear"])
    assert result.error is not None
    assert "at least 6 right and 6 wrong" in result.error


def test_a_layer_out_of_range_is_named(planted: Planted, half: Path, detect: Detect) -> None:
    result = detect(planted.subject, half, layer=40)
    assert result.error is not None
    assert "layer 40 is outside 0..5" in result.error


def test_a_trained_detector_judges_one_fact_in_one_pass(
    planted: Planted, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    forward = type(planted.subject).forward

    def counted(self: LanguageSubject, batch: Batch, *args: Any, **options: Any) -> Any:
        passes.append(len(batch.ids))
        return forward(self, batch, *args, **options)

    def never(*args: Any, **options: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr(type(planted.subject), "forward", counted)
    monkeypatch.setattr(editors, "train_editor", never)
    samples = json.loads(trained.relation.read_text())["samples"]
    asked = {"entity": samples[7]["subject"], "object": samples[7]["object"]}
    again = trained.again(**asked)
    assert again.error is None
    assert passes == [1]
    assert again.output["reused"] is True
    assert again.measurements == trained.result.measurements
    assert again.controls == trained.result.controls
    assert isinstance(again.output["facts"], list)
    (single,) = again.output["facts"]

    # A thousand facts share their passes, and each is judged as it is alone.
    passes.clear()
    many = [samples[place % len(samples)] for place in range(1000)]
    lines = [json.dumps({"entity": each["subject"], "object": each["object"]}) for each in many]
    facts = trained.home / "many.jsonl"
    facts.write_text("\n".join(lines))
    whole = trained.again(facts=str(facts))
    assert len(passes) <= 1000 / 64 + 1
    assert sum(passes) == 1000
    (written,) = [each for each in whole.artifacts if each.name == "facts.json"]
    rows = json.loads((trained.home / written.path).read_text())
    assert isinstance(single, dict)
    risk = single.pop("risk")
    assert rows[7].pop("risk") == pytest.approx(risk, rel=1e-4)
    assert rows[7] == single


def test_a_detector_comes_back_whole_or_not_at_all(trained: Trained, tmp_path: Path) -> None:
    (folder,) = (trained.home / "cache" / FOLDER).iterdir()
    assert folder.name == trained.result.output["detector"]
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["detector.json", "detector.safetensors"]
    inputs = json.loads((folder / "detector.json").read_text())["inputs"]
    kept = load_detector(folder, inputs)
    assert kept is not None
    assert kept.figures.measurements == trained.result.measurements
    save_detector(tmp_path / "copy", kept, inputs)
    for name in names:
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()
    assert load_detector(folder, {**inputs, "seed": 1}) is None
    assert load_detector(tmp_path / "nowhere", inputs) is None

    def harmed(name: str, content: bytes | None) -> Path:
        copy = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folder, copy)
        if content is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(content)
        return copy

    for name in names:
        whole = (folder / name).read_bytes()
        for content in (None, b"", whole[:-200]):
            assert load_detector(harmed(name, content), inputs) is None
    flipped = bytearray((folder / names[1]).read_bytes())
    flipped[-1] ^= 1
    assert load_detector(harmed(names[1], bytes(flipped)), inputs) is None


def test_a_kept_detector_is_listed_with_what_it_is_worth(trained: Trained, tmp_path: Path) -> None:
    (folder,) = (trained.home / "cache" / FOLDER).iterdir()
    (listed,) = (each for each in shelved(trained.home / "cache") if each.kind == "detector")
    assert listed.id == folder.name
    assert listed.metric == "phi (prior)"
    assert listed.value == trained.result.measurements[0].value
    copied = tmp_path / FOLDER / "copy"
    shutil.copytree(folder, copied)
    (copied / "detector.safetensors").unlink()
    assert not shelved(tmp_path)
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    assert [each.kind for each in shelved(tmp_path)] == ["detector"]
    (copied / "detector.json").write_text("[]")
    assert not shelved(tmp_path)


def test_a_kill_between_the_two_files_keeps_no_detector(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = (trained.home / "cache" / FOLDER).iterdir()
    inputs = json.loads((folder / "detector.json").read_text())["inputs"]
    kept = load_detector(folder, inputs)
    assert kept is not None
    write = write_atomic

    def killed(target: Path, content: str | bytes) -> None:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        write(target, content)

    monkeypatch.setattr(detector_store, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        save_detector(tmp_path / "new", kept, inputs)
    assert load_detector(tmp_path / "new", inputs) is None


def test_a_stop_while_training_keeps_no_detector(
    planted: Planted, half: Path, context: Callable[[LanguageSubject], ToolContext], tmp_path: Path
) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if "epoch 1" in text:
            raise Interrupted

    ctx = replace(context(planted.subject), progress=stop)
    given = detect_errors.parse({"relation": str(half), "effort": "quick"})
    with pytest.raises(Interrupted):
        detect_errors.function(ctx, **given)
    assert not (tmp_path / "home" / "cache" / FOLDER).exists()


def test_facts_that_cannot_be_asked_or_read_are_counted_apart(
    planted: Planted, half: Path, detect: Detect, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = DETECTION_PLANS["quick"].model_copy(update={"deals": 2})
    monkeypatch.setitem(DETECTION_PLANS, "quick", few)
    document = json.loads(half.read_text())
    names = [each["subject"] for each in document["samples"]]
    no_tokens, shared, infinite = names[5], names[8], names[11]
    document["samples"][5]["object"] = "unspeakable"
    half.write_text(json.dumps(document))
    subject = planted.subject
    first_token = subject.first_token

    def speak(text: str) -> int:
        if text == "unspeakable":
            raise ToolError("no tokens")
        return first_token(text)

    monkeypatch.setattr(subject, "first_token", speak)
    reaches = shared_token

    def reach(subject: LanguageSubject, text: str, start: int, end: int) -> str | None:
        return "xy" if text[start:end] == shared else reaches(subject, text, start, end)

    monkeypatch.setattr(faults, "shared_token", reach)
    really = read

    def spoil(network: LanguageSubject, prompts: Any, *args: Any, **options: Any) -> Any:
        readings = really(network, prompts, *args, **options)
        for at, prompt in enumerate(prompts):
            if prompt.text[: prompt.entity_end].endswith(infinite):
                readings.entity[at, 0, 0] = float("nan")
        return readings

    monkeypatch.setattr(study, "read", spoil)
    result = detect(subject, half)
    assert result.error is None
    failures = result.output["facts_failed"]
    assert isinstance(failures, list)
    said = {each["entity"]: str(each["reason"]) for each in failures if isinstance(each, dict)}
    assert set(said) == {no_tokens, shared, infinite}
    assert "has no tokens" in said[no_tokens]
    assert "shares the token 'xy'" in said[shared]
    assert "not a finite number" in said[infinite]
    for measured in (*result.measurements, *result.controls):
        assert measured.n_failed == 3
    assert any("3 facts of the relation could not be" in caveat for caveat in result.caveats)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"entity": "x"}, "'object' is missing"),
        ({"object": "x"}, "'entity' is missing"),
        ({"entity": "x", "object": "y", "question": "contextual"}, "'new_object' is missing"),
        ({"entity": "x", "object": "y", "facts": "a.jsonl"}, "exclude"),
        ({"entity": "a\u202eb", "object": "y"}, "hidden character"),
    ],
)
def test_half_a_fact_is_refused(
    planted: Planted, half: Path, detect: Detect, arguments: dict[str, str], told: str
) -> None:
    result = detect(planted.subject, half, **arguments)
    assert result.error is not None
    assert told in result.error
