"""What is installed, reachable and configured, what is missing, and how to get it.

Nothing heavy is imported: packages are looked up in their metadata, weights by size and stamp.
"""

import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from dragoman.core.records import Record
from dragoman.core.settings import Settings, config_file
from dragoman.tools.weights import CHAT, EMBEDDINGS, LABELLER, SUBJECT, VISION, status

CheckState: TypeAlias = Literal["ok", "missing", "optional"]
"""`missing` keeps audits from running; `optional` takes away a possibility, named in the remedy."""

_PACKAGES = ("torch", "transformers", "langgraph", "chromadb", "openai", "textual")
_ROOM_BYTES = 500_000_000
_TIMEOUT_SECONDS = 3.0
_PUBLIC_ENDPOINT = "https://api.openai.com/v1"


class Check(Record):
    """One thing that was looked at."""

    name: str
    state: CheckState
    detail: str
    remedy: str = ""
    """What to do about it; empty when nothing needs to be done."""


class Diagnosis(Record):
    """All checks, and whether audits can run."""

    checks: tuple[Check, ...]

    @property
    def can_audit(self) -> bool:
        """Whether nothing that an audit needs is missing."""
        return all(check.state != "missing" for check in self.checks)


def diagnose(settings: Settings) -> Diagnosis:
    """Look at everything; takes at most a few seconds, and touches only the data folder."""
    return Diagnosis(
        checks=(
            _python(),
            *_packages(),
            _configuration(),
            _data_folder(settings),
            *_weights(settings),
            _endpoint(settings),
            _local_chat(settings),
        )
    )


def _python() -> Check:
    release = ".".join(map(str, sys.version_info[:3]))
    return Check(name="python", state="ok", detail=f"{release}, {os.cpu_count()} CPU cores")


def _packages() -> Iterator[Check]:
    for package in _PACKAGES:
        try:
            yield Check(name=package, state="ok", detail=version(package))
        except PackageNotFoundError:
            yield Check(
                name=package,
                state="missing",
                detail="not installed",
                remedy="install Dragoman again: python -m pip install -c constraints.txt -e .",
            )


def _configuration() -> Check:
    path = config_file()
    detail = str(path) if path.is_file() else f"none ({path} is optional)"
    return Check(name="configuration file", state="ok", detail=detail)


def _data_folder(settings: Settings) -> Check:
    name = "data folder"
    remedy = "set DRAGOMAN_HOME to a folder that can be written to"
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.home):
            free = shutil.disk_usage(settings.home).free
    except OSError as error:
        detail = f"{settings.home}: {error.strerror}"
        return Check(name=name, state="missing", detail=detail, remedy=remedy)
    detail = f"{settings.home}, {free / 1e9:.1f} GB free"
    if free < _ROOM_BYTES:
        remedy = "make room: an audit with its subject needs about 0.5 GB"
        return Check(name=name, state="missing", detail=detail, remedy=remedy)
    return Check(name=name, state="ok", detail=detail)


def _weights(settings: Settings) -> Iterator[Check]:
    without = {
        CHAT: " (without it: an endpoint, or --chat none)",
        EMBEDDINGS: " (without it: no memory of earlier findings)",
        VISION: " (without it: no vision subject but those of your own)",
        LABELLER: " (without it: no labels in the captions of vision units)",
    }
    for row in status(settings.weights_folder):
        name = f"weights {row.name}"
        detail = f"{row.state}: {row.role}"
        if row.state in {"verified", "unverified"}:
            yield Check(name=name, state="ok", detail=detail)
            continue
        yield Check(
            name=name,
            state="missing" if row.name == SUBJECT else "optional",
            detail=detail,
            remedy=f"dragoman weights pull {row.name}{without.get(row.name, '')}",
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key must not travel to wherever an endpoint points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow nothing."""


def _endpoint(settings: Settings) -> Check:
    name = "chat endpoint"
    if not settings.endpoint_configured:
        remedy = "set OPENAI_API_KEY, and OPENAI_BASE_URL for another server, to use one"
        return Check(name=name, state="optional", detail="not configured", remedy=remedy)
    base = (settings.openai_base_url or _PUBLIC_ENDPOINT).rstrip("/")
    parts = urlsplit(base)
    host = parts.hostname or base
    remedy = "check OPENAI_BASE_URL, OPENAI_API_KEY and the network, or use --chat local"

    def trouble(reason: str) -> Check:
        return Check(name=name, state="optional", detail=f"{host}: {reason}", remedy=remedy)

    if parts.scheme not in {"http", "https"}:
        return trouble("not an http(s) address")
    key = settings.openai_api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    request = urllib.request.Request(f"{base}/models", headers=headers)
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in {401, 403}:
            return trouble(f"the key is refused (HTTP {error.code})")
        if error.code != 404:  # many servers speak chat without listing models
            return trouble(f"answers HTTP {error.code}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return trouble(f"cannot be reached ({getattr(reason, 'strerror', None) or reason})")
    return Check(name=name, state="ok", detail=f"{host}, model {settings.chat_model}")


def _local_chat(settings: Settings) -> Check:
    name = "local chat server"
    if find_spec("xllamacpp") is None:
        return Check(
            name=name,
            state="optional",
            detail="xllamacpp is not installed",
            remedy="python -m pip install xllamacpp",
        )
    return Check(name=name, state="ok", detail=f"xllamacpp, {settings.chat_threads} threads")
