"""Files are whole or absent; settings come from one place and name what is wrong."""

from pathlib import Path

import pytest

from dragoman.core.errors import UserError
from dragoman.core.files import atomic_path, file_sha256, write_atomic
from dragoman.core.settings import load_settings


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    write_atomic(target, "old")

    def interrupted() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_replaces_and_makes_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    write_atomic(target, "one")
    write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    expected = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    assert file_sha256(target) == expected


def test_the_data_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path / "mine"))
    settings = load_settings()
    assert settings.ledger_file == tmp_path / "mine" / "ledger.sqlite3"
    assert not settings.endpoint_configured


def test_a_key_or_an_address_configures_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    settings = load_settings()
    assert settings.endpoint_configured
    assert "sk-canary" not in repr(settings)


def test_a_malformed_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_CHAT_TIMEOUT_SECONDS", "soon")
    with pytest.raises(UserError, match="chat_timeout_seconds"):
        load_settings()
