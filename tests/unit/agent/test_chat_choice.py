"""The chat model that takes part, and what is said when it cannot."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from dragoman.agent import choose_chat as module
from dragoman.agent.chat_local import LocalChat
from dragoman.agent.chat_openai import OpenAIChat
from dragoman.agent.choose_chat import choose_chat
from dragoman.core.errors import ChatError, UserError
from dragoman.core.settings import Settings


@pytest.fixture
def notices() -> list[str]:
    return []


def installed(home: Path) -> Settings:
    folder = home / "weights" / "qwen2.5-coder-1.5b"
    folder.mkdir(parents=True)
    (folder / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf").write_bytes(b"GGUF")
    return Settings(home=home)


def with_endpoint(settings: Settings) -> Settings:
    return settings.model_copy(update={"openai_api_key": SecretStr("k")})


def test_auto_takes_the_endpoint_then_the_local_model_then_none(
    tmp_path: Path, notices: list[str]
) -> None:
    here = installed(tmp_path)
    endpoint = choose_chat("auto", with_endpoint(here), notices.append)
    assert isinstance(endpoint, OpenAIChat)
    local = choose_chat("auto", here, notices.append)
    assert isinstance(local, LocalChat)
    assert local.process_id is None, "nothing starts before it is needed"
    assert notices == []
    assert choose_chat("auto", Settings(home=tmp_path / "bare"), notices.append) is None
    assert "dragoman weights pull qwen2.5-coder-1.5b" in notices[0]


def test_none_is_none_even_where_all_is_there(tmp_path: Path, notices: list[str]) -> None:
    assert choose_chat("none", with_endpoint(installed(tmp_path)), notices.append) is None
    assert notices == []


def test_local_wins_over_an_endpoint_when_asked_for(tmp_path: Path, notices: list[str]) -> None:
    chat = choose_chat("local", with_endpoint(installed(tmp_path)), notices.append)
    assert isinstance(chat, LocalChat)
    assert chat.identity.kind == "local"
    assert chat.identity.model == "qwen2.5-coder-1.5b-instruct-q4_k_m"


def test_what_is_missing_is_named(
    tmp_path: Path, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChatError, match="OPENAI_API_KEY"):
        choose_chat("endpoint", installed(tmp_path), notices.append)
    with pytest.raises(UserError, match=r"weights pull qwen2\.5-coder-1\.5b"):
        choose_chat("local", Settings(home=tmp_path / "bare"), notices.append)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install xllamacpp"):
        choose_chat("local", Settings(home=tmp_path), notices.append)
