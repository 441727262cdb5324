"""`dragoman doctor`: what is missing is named with the way to get it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from dragoman.agent.doctor import Check, diagnose
from dragoman.core.settings import load_settings
from dragoman.tui.cli import run

KEY = "sk-canary-0123456789"


def check(name: str) -> Check:
    return next(each for each in diagnose(load_settings()).checks if each.name == name)


def test_a_bare_machine_is_told_what_to_pull(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 2
    out = capsys.readouterr().out
    assert "dragoman weights pull smollm2" in out
    assert "audits cannot run yet" in out


def test_json_has_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert printed["can_audit"] is False
    missing = [each["name"] for each in printed["checks"] if each["state"] == "missing"]
    assert missing == ["weights smollm2"]


@pytest.mark.weights
def test_with_the_subject_audits_can_run(
    weights_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRAGOMAN_WEIGHTS", str(weights_home / "weights"))
    assert run(["doctor"]) == 0
    assert "audits can run" in capsys.readouterr().out


def test_a_data_folder_that_cannot_be_written_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path / "file"))
    found = check("data folder")
    assert found.state == "missing"
    assert "DRAGOMAN_HOME" in found.remedy


def test_too_little_room_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    assert check("data folder").remedy.startswith("make room")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer) -> Callable[[Any], Check]:
    def answering(response: Response) -> Check:
        httpserver.expect_request("/v1/models").respond_with_response(response)
        monkeypatch.setenv("OPENAI_BASE_URL", httpserver.url_for("/v1"))
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        return check("chat endpoint")

    return answering


@pytest.mark.parametrize(
    ("status", "state", "detail"),
    [
        (200, "ok", "127.0.0.1"),
        (404, "ok", "127.0.0.1"),
        (401, "optional", "the key is refused (HTTP 401)"),
        (500, "optional", "answers HTTP 500"),
        (307, "optional", "answers HTTP 307"),
    ],
)
def test_the_endpoint_is_asked_once_and_the_key_goes_nowhere_else(
    endpoint: Callable[[Any], Check],
    httpserver: HTTPServer,
    status: int,
    state: str,
    detail: str,
) -> None:
    location = {"Location": httpserver.url_for("/elsewhere")} if status == 307 else {}
    found = endpoint(Response("", status=status, headers=location))
    assert found.state == state
    assert detail.replace("127.0.0.1", httpserver.host) in found.detail
    assert [request.path for request, _ in httpserver.log] == ["/v1/models"]
    assert KEY not in found.model_dump_json()


@pytest.mark.parametrize(
    ("base", "detail"),
    [
        ("http://127.0.0.1:9/v1", "cannot be reached"),
        ("ftp://127.0.0.1/v1", "not an http(s) address"),
        ("not an address", "not an http(s) address"),
    ],
)
def test_an_endpoint_that_is_none(monkeypatch: pytest.MonkeyPatch, base: str, detail: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    found = check("chat endpoint")
    assert found.state == "optional"
    assert detail in found.detail
    assert "--chat local" in found.remedy
