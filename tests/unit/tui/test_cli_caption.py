"""`dragoman caption`: rows, table and page of a tiny subject, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from dragoman.agent.batch_captions import numbers
from dragoman.core.errors import UserError
from dragoman.tools.captioning.atlas import Atlas
from dragoman.tools.captioning.batch import Pace
from dragoman.tools.captioning.vision.drawing import KINDS, draw
from dragoman.tui.cli import run
from dragoman.tui.commands.batch_display import paced

from .conftest import Said

NAMES = ("France", "Japan", "a dog", "an animal", "Paris", "Tokyo")
TEXTS = [
    f"The capital of {NAMES[n % 6]} is {NAMES[(n * 5 + 1) % 6]}, {n} said. "
    f"A dog is {NAMES[(n // 6) % 6]}. The {NAMES[(n * 7) % 6]} of {n * 13 % 97} is here."
    for n in range(90)
]


@pytest.fixture(scope="module")
def folder(tiny_subject: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_subject.model.save_pretrained(path)
    tiny_subject.tokenizer.save_pretrained(path)
    (path / "texts.txt").write_text("\n".join(TEXTS))
    return path


@pytest.fixture
def arguments(folder: Path) -> list[str]:
    corpus = str(folder / "texts.txt")
    return ["caption", str(folder), "--corpus", corpus, "--chat", "none", "--quick"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> Callable[..., Said]:
    def calling(*more: str) -> Said:
        code = run([*arguments, *more])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return calling


def test_a_run_leaves_rows_a_table_a_page_and_an_atlas(
    call: Callable[..., Said], tiny_subject: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = call("--layers", "0-1", "--units", "0-2,7", "--out", str(out), "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert (told["outcome"], told["n_units"], told["n_done"], told["n_new"]) == ("done", 8, 8, 8)
    rows = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == [
        f"{layer}.{unit}" for layer in (0, 1) for unit in (0, 1, 2, 7)
    ]
    assert told["n_captioned"] == sum(row["caption"] is not None for row in rows)
    assert pq.read_table(out / "captions.parquet").num_rows == 8
    assert "8 units have a caption" in (out / "captions.html").read_text()
    home = Path(os.environ["DRAGOMAN_HOME"])
    assert len(Atlas(home, tiny_subject.identity.digest).holdings().entries) == 8
    assert "8 of 8 units" in said.err
    again = call("--layers", "0-1", "--units", "0-2,7", "--out", str(out))
    assert again.code == 2
    assert "--resume goes on" in again.err
    finished = call("--layers", "0-1", "--units", "0-2,7", "--out", str(out), "--resume", "--json")
    assert json.loads(finished.out)["n_new"] == 0


def test_without_out_the_same_command_finds_its_folder_again(call: Callable[..., Said]) -> None:
    first = call("--units", "0-1")
    assert first.code == 0, first.err
    page = Path(first.out.splitlines()[1])
    assert page.is_relative_to(os.environ["DRAGOMAN_HOME"])
    assert call("--units", "0-1", "--resume").out == first.out
    other = call("--units", "0-1", "--resume", "--seed", "1")
    assert other.code == 2
    assert "no caption run to resume" in other.err


@pytest.mark.parametrize("kind", ["resid", "head"])
def test_other_units_than_neurons(call: Callable[..., Said], tmp_path: Path, kind: str) -> None:
    said = call("--kind", kind, "--layers", "2", "--units", "0-1", "--out", str(tmp_path))
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == [f"{kind}.2.0", f"{kind}.2.1"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--layers", "3-x"], "--layers '3-x': give numbers and ranges"),
        (["--layers", "1-7"], "--layers 1-7: the subject has layers 0 to 2"),
        (["--units", "40-48"], "--units 40-48: mlp.1 has units 0 to 47"),
        (["--units", "9-2"], "9-2 is no range"),
        (["--kind", "latent"], "--dictionary FILE.safetensors"),
        (["--dictionary", "sae.safetensors", "--layers", "0-1"], "reads one layer"),
        (["--dictionary", "sae.safetensors", "--kind", "head"], "--kind is head"),
        (["--dictionary", "absent.safetensors"], "absent.safetensors"),
        (["--corpus", "absent.txt"], "absent.txt"),
        (["--exemplars", "stores/both"], "leave --corpus out"),
        (["--images", "photos"], "name them with --corpus"),
    ],
)
def test_a_wrong_option_is_one_line(
    call: Callable[..., Said], options: list[str], told: str
) -> None:
    said = call(*options)
    assert said.code == 2
    complaint = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(complaint) == 1
    assert told in complaint[0]
    assert said.out == ""


def test_a_vision_subject_is_captioned_on_a_folder_of_images(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_labels": 3,
        }
        config = transformers.ViTConfig(
            **options, intermediate_size=48, image_size=32, patch_size=8
        )
        transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "images").mkdir()
    for number in range(30):
        drawing = draw(KINDS[number % len(KINDS)], np.random.default_rng(number))
        drawing.image.resize((32, 32)).save(tmp_path / "images" / f"{number}.png")
    command = ["caption", str(tmp_path / "vit"), "--layers", "1", "--units", "0-3"]
    images, out = str(tmp_path / "images"), tmp_path / "out"
    assert run([*command, "--images", images, "--chat", "none", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["outcome"], told["n_done"]) == ("done", 4)
    rows = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert [(row["name"], row["kind"]) for row in rows] == [(f"1.{n}", "channel") for n in range(4)]
    assert all((out / row["images"]["picture"]).is_file() for row in rows if row["images"])
    for options_, complaint in (
        (["--corpus", images], "name a folder with --images"),
        (["--kind", "resid"], "layers' channels"),
        (["--images", str(tmp_path / "absent")], "no such folder"),
        (["--units", "48"], "layer 1 has units 0 to 47"),
    ):
        assert run([*command, "--chat", "none", *options_]) == 2
        assert complaint in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on_exactly(
    call: Callable[..., Said], arguments: list[str], tmp_path: Path
) -> None:
    options = ["--layers", "0-2", "--units", "0-15", "--out"]
    rows = tmp_path / "stopped" / "captions.jsonl"
    deadline = time.monotonic() + 120
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        running = subprocess.Popen(
            [sys.executable, "-m", "dragoman", *arguments, *options, str(tmp_path / "stopped")],
            stdout=out,
            stderr=err,
            env=os.environ,
        )
        try:
            while not (rows.exists() and b"\n" in rows.read_bytes()):
                assert time.monotonic() < deadline
                assert running.poll() is None, (tmp_path / "err").read_text()
                time.sleep(0.005)
            running.send_signal(signal.SIGINT)
            code = running.wait(timeout=60)
        finally:
            running.kill()
            running.wait()
    said, complained = ((tmp_path / name).read_text() for name in ("out", "err"))
    assert code == 130, complained
    assert "--resume goes on" in complained
    n_done = rows.read_bytes().count(b"\n")
    assert 0 < n_done < 48
    assert f"{48 - n_done} units are left" in said
    assert "the run is not finished" in (tmp_path / "stopped" / "captions.html").read_text()
    assert call(*options, str(tmp_path / "stopped"), "--resume").code == 0
    assert call(*options, str(tmp_path / "whole")).code == 0
    whole = tmp_path / "whole" / "captions.jsonl"
    assert rows.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("3", (3,)), ("3-5", (3, 4, 5)), ("0, 7,4-5", (0, 4, 5, 7)), ("2,2-3", (2, 3))],
)
def test_numbers_are_read_as_people_write_them(text: str, chosen: tuple[int, ...]) -> None:
    assert numbers(text, "--units") == chosen


@pytest.mark.parametrize("text", ["", "-3", "1-", "1,,2", "one", "5-1", "0-99999999999"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--units"):
        numbers(text, "--units")


def test_the_pace_is_told_in_words() -> None:
    assert paced(Pace(done=3, total=10, new=0, seconds=0.1)) == ""
    assert paced(Pace(40, 100, 30, 60.0)) == "30.0 units a minute, 2 min 00 s left"
    assert paced(Pace(1, 1001, 1, 6.0)) == "10.0 units a minute, 1 h 40 min left"
