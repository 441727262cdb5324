"""A run's page and table: all of its rows, and nothing of the subject's text as markup."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dragoman.core.records import Measurement
from dragoman.tools.captioning import page
from dragoman.tools.captioning.batch import BatchSettings, Group, run
from dragoman.tools.captioning.batch_table import write_table
from dragoman.tools.captioning.page import write_page
from dragoman.tools.captioning.rows import (
    ImageExemplar,
    TextExemplar,
    UnitCaption,
    row_of_entry,
)

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x1b[31m&<!--"
SETTINGS = BatchSettings(
    subject=f"subject {HOSTILE}",
    subject_digest="d" * 64,
    units=("mlp.3: 0-249",),
    units_digest="u",
    corpus=f"texts of {HOSTILE}",
    corpus_digest="c",
    effort="quick",
    seed=0,
    code="v1",
)


def measured(metric: str, value: float) -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        unit="fraction",
        baseline=0.5,
        control=f"shuffled {HOSTILE}",
        ci95=(value - 0.05, value + 0.05),
        n=40,
        n_failed=2,
    )


def row(unit: int, **images: Any) -> UnitCaption:
    entry: dict[str, Any] = {"caption": f"words like {HOSTILE}", "density": 0.01}
    if unit % 2:
        entry = {"caption": None, "best_rejected": HOSTILE, "reason": "no caption beats its floor"}
    else:
        entry["senses"] = [{"caption": HOSTILE, "share": 0.5, "score": 0.5, "floor": 0.5}]
        entry["senses"][0]["holds"] = False
        entry["predicate"] = {"op": "word", "word": "x"}
    shown = TextExemplar(
        tokens=(" a", HOSTILE, " b"), strengths=(0.0, 1.0, 0.31), peak=1, activation=3.5
    )
    measurements = (measured("detection", 0.8), measured("fuzzing", 0.7)) if unit != 7 else ()
    return row_of_entry("mlp", 3, unit, entry, measurements, (), exemplars=[shown], **images)


def make(folder: Path, rows: list[UnitCaption]) -> str:
    names = tuple(each.name for each in rows)
    run(
        folder,
        SETTINGS,
        [Group(names)],
        lambda index, wanted: iter(rows),
        resume=False,
        on_pace=lambda pace: None,
    )
    return write_page(folder, SETTINGS, len(rows) + 5).read_text("utf-8")


@pytest.fixture
def text(tmp_path: Path) -> str:
    return make(tmp_path, [row(unit) for unit in range(250)])


def data(text: str) -> tuple[Any, list[Any]]:
    index = re.findall(r'<script type="application/json" id="index">(.*?)</script>', text)
    chunks = re.findall(r'<script type="application/json" class="chunk">(.*?)</script>', text)
    return json.loads(index[0]), [json.loads(chunk) for chunk in chunks]


def test_every_unit_is_on_the_page(text: str) -> None:
    index, chunks = data(text)
    assert [unit[0] for unit in index["units"]] == [f"3.{unit}" for unit in range(250)]
    assert [len(chunk) for chunk in chunks] == [100, 100, 50]
    assert "125 of 250 units have a caption" in text
    assert "5 units are left" in text
    first = chunks[0][0]
    assert first["exemplars"][0][3] == "093"
    assert [each["metric"] for each in first["measured"]] == ["detection", "fuzzing"]
    assert chunks[0][7]["measured"] == []


def test_foreign_text_is_never_markup(text: str) -> None:
    assert "<img" not in text
    assert "onerror=alert" in text  # it is there, as text
    assert text.count("<script") == text.count("</script>") == 5
    for hidden in ("\u202e", "\x1b"):
        assert hidden not in text
    assert "\\\\u202e" in text or "\\u202e" in text


def test_the_policy_admits_this_style_and_script_alone(text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert " style=" not in text


def test_the_script_parses_no_markup() -> None:
    script = (Path(page.__file__).parent / "page.js").read_text("utf-8")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "eval(",
        "document.write",
        "fetch(",
    ):
        assert word not in script


def test_same_rows_same_page(text: str, tmp_path: Path) -> None:
    again = make(tmp_path / "again", [row(unit) for unit in range(250)])
    assert again == text


def test_pictures_are_part_of_the_page_or_named(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "0.png").write_bytes(b"a picture")
    (pictures / "1.png").write_bytes(b"x" * (page.MOST_PICTURE_BYTES + 1))
    names = ["pictures/0.png", "pictures/1.png", "pictures/2.png", "../outside.png", "a.svg"]
    (tmp_path.parent / "outside.png").write_bytes(b"secret")
    rows = [
        row(unit, images=ImageExemplar(picture=name, activations=(2.0,), labels=(HOSTILE,)))
        for unit, name in enumerate(names)
    ]
    text = make(tmp_path, rows)
    shown = [each["images"] for each in data(text)[1][0]]
    encoded = base64.b64encode(b"a picture").decode()
    assert shown[0]["uri"] == f"data:image/png;base64,{encoded}"
    assert [each["uri"] for each in shown[1:]] == [""] * 4
    told = ["larger than", "cannot be read", "outside", "another kind"]
    for each, why in zip(shown[1:], told, strict=True):
        assert why in each["note"]
    assert base64.b64encode(b"secret").decode() not in text


def test_the_table_holds_each_score_with_its_floor(tmp_path: Path) -> None:
    make(tmp_path, [row(unit) for unit in range(9)])
    table = pq.read_table(write_table(tmp_path)).to_pylist()
    assert [each["name"] for each in table] == [f"3.{unit}" for unit in range(9)]
    first = table[0]
    assert (first["detection"], first["detection_floor"]) == (0.8, 0.5)
    assert (first["detection_low"], first["detection_n"]) == (0.75, 40)
    assert first["fuzzing_n_failed"] == 2
    assert json.loads(first["predicate"]) == {"op": "word", "word": "x"}
    assert first["senses"][0]["share"] == 0.5
    assert first["senses"][0]["holds"] is False
    assert first["exemplars"][0]["tokens"][1] == HOSTILE
    assert first["images"] is None
    assert table[7]["detection"] is None
    assert table[1]["caption"] is None
