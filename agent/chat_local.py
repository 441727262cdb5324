"""The local chat model: a GGUF file served by llama.cpp in a child process of our own.

A process of its own keeps its crashes and its memory out of ours, and can be ended at once. It is
spoken to through the same wire as any endpoint, on loopback, with a random key.
"""

import json
import os
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dragoman.agent.chat_errors import BrokenReply
from dragoman.agent.chat_openai import EndpointChat
from dragoman.agent.chat_wire import Wire
from dragoman.core.errors import ChatError, UserError
from dragoman.core.escaping import visible
from dragoman.core.protocols import (
    Cancelled,
    ChatReply,
    ChatRequest,
    never,
    stop_if,
)
from dragoman.core.records import ChatIdentity

CONTEXT_TOKENS = 4096
_START_SECONDS = 180.0
_END_SECONDS = 3.0
_DYING_SECONDS = 2.0
"""How long a process that closed its connections may take to be gone."""
_POLL_SECONDS = 0.05
# Threads that wait by spinning make llama.cpp up to twenty times slower on busy cores.
_PASSIVE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
_SECRETS = ("OPENAI_API_KEY", "HF_TOKEN")


def _quiet(text: str) -> None:
    """A `notice` for callers that want none."""


class LocalChat:
    """Starts its server on the first call; the server ends with `close` or with this process."""

    def __init__(
        self,
        weights_file: Path,
        threads: int = 2,
        *,
        context_tokens: int = CONTEXT_TOKENS,
        timeout_seconds: float = 300.0,
        start_seconds: float = _START_SECONDS,
        notice: Callable[[str], None] = _quiet,
    ) -> None:
        """`timeout_seconds`: for one call; `start_seconds`: for loading the weights."""
        if not weights_file.is_file():
            raise UserError(f"{weights_file} is not there; name a GGUF file of a chat model")
        self.identity = ChatIdentity(kind="local", model=weights_file.stem)
        self._weights_file = weights_file
        self._threads = max(1, min(threads, os.cpu_count() or 1))
        self._context_tokens = context_tokens
        self._timeout_seconds = timeout_seconds
        self._start_seconds = start_seconds
        self._notice = notice
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._chat: EndpointChat | None = None

    @property
    def process_id(self) -> int | None:
        """Of the server, while there is one."""
        return None if self._process is None else self._process.pid

    def complete(
        self,
        request: ChatRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancelled = never,
    ) -> ChatReply:
        """One whole reply; a server that has died since the last call is started again.

        A dying server may not be gone yet when it is looked at: then the call breaks off, and is
        made once more if the server has ended.
        """
        if self._ended(within_seconds=0):
            self._bury()
        try:
            return self._running(cancelled).complete(request, on_text=on_text, cancelled=cancelled)
        except BrokenReply:
            if not self._ended(within_seconds=_DYING_SECONDS):
                raise
            self._bury()
        return self._running(cancelled).complete(request, on_text=on_text, cancelled=cancelled)

    def close(self) -> None:
        """End the server; safe to call twice."""
        if self._chat is not None:
            self._chat.close()
        process, self._process, self._chat = self._process, None, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:  # last: a thread may still be reading it
                process.stdout.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _ended(self, *, within_seconds: float) -> bool:
        """Whether there was a server that is no more."""
        if self._process is None:
            return False
        try:
            self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _bury(self) -> None:
        self._notice(f"the local chat model ended by itself ({self._last_words()})")
        self.close()

    def _running(self, cancelled: Cancelled) -> EndpointChat:
        if self._chat is None:
            self._chat = self._start(cancelled)
        return self._chat

    def _start(self, cancelled: Cancelled) -> EndpointChat:
        began = time.monotonic()
        self._notice(f"loading the local chat model {self.identity.model}")
        try:
            key = secrets.token_urlsafe(32)
            address = self._address(self._launch(key), began, cancelled)
        except BaseException:
            self.close()
            raise
        self._notice(f"the local chat model is ready after {time.monotonic() - began:.1f} s")
        return EndpointChat(
            Wire(f"{address}/v1", key, trust_environment=False),
            self.identity,
            None,
            timeout_seconds=self._timeout_seconds,
        )

    def _launch(self, key: str) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in os.environ if name not in _SECRETS}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dragoman.agent.local_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment | _PASSIVE,
            # Ctrl-C is for us; we end the server ourselves.
            start_new_session=True,
        )
        wanted = {
            "weights_file": str(self._weights_file),
            "key": key,
            "threads": self._threads,
            "context_tokens": self._context_tokens,
        }
        if self._process.stdin is not None:
            # Through a pipe: arguments and environment can be read by other users.
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            self._process.stdin.flush()
        return self._process

    def _address(self, process: subprocess.Popen[bytes], began: float, cancelled: Cancelled) -> str:
        answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        output = process.stdout
        if output is not None:
            threading.Thread(
                target=lambda: answers.put(output.readline()), name="chat start", daemon=True
            ).start()
        while time.monotonic() - began < self._start_seconds:
            stop_if(cancelled)
            try:
                answer = answers.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if not answer:
                process.wait(_END_SECONDS)
                raise ChatError(
                    f"the local chat model did not start ({self._last_words()}); check "
                    "`dragoman weights verify`, or use --chat none"
                )
            return str(json.loads(answer)["address"])
        raise ChatError(
            f"the local chat model did not start in {self._start_seconds:.0f} s; close other "
            "programs, or use --chat none"
        )

    def _last_words(self) -> str:
        words = ""
        if self._log is not None:
            self._log.seek(0)
            lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
            words = lines[-1][:200] if lines else ""
        code = None if self._process is None else self._process.poll()
        return visible(words, one_line=True) or f"exit status {code}"
