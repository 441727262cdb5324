"""Which chat model takes part: an endpoint if one is configured, else the local one, else none."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, TypeAlias

from dragoman.core.errors import UserError
from dragoman.core.protocols import ChatModel
from dragoman.core.settings import Settings

ChatMode: TypeAlias = Literal["auto", "local", "none", "endpoint"]

LOCAL_MODEL = "qwen2.5-coder-1.5b"
"""As `dragoman weights` names it."""
_LOCAL_FILE = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"


def choose_chat(
    mode: ChatMode, settings: Settings, notice: Callable[[str], None]
) -> ChatModel | None:
    """The chat model for `mode`; None where none takes part.

    Raises:
        ChatError: an endpoint was asked for and none is configured.
        UserError: the local model was asked for and is not installed.
    """
    if mode == "none":
        return None
    if mode == "endpoint" or (mode == "auto" and settings.endpoint_configured):
        from dragoman.agent.chat_openai import OpenAIChat

        return OpenAIChat(settings)
    lacking = _what_local_lacks(settings)
    if lacking is None:
        from dragoman.agent.chat_local import LocalChat

        return LocalChat(
            settings.weights_folder / LOCAL_MODEL / _LOCAL_FILE,
            settings.chat_threads,
            timeout_seconds=settings.chat_timeout_seconds,
            notice=notice,
        )
    if mode == "local":
        raise UserError(lacking)
    notice(f"no chat model takes part: no endpoint is configured, and {lacking}")
    return None


def _what_local_lacks(settings: Settings) -> str | None:
    if find_spec("xllamacpp") is None:
        return "the local chat model needs the package xllamacpp: `pip install xllamacpp`"
    if not (settings.weights_folder / LOCAL_MODEL / _LOCAL_FILE).is_file():
        return (
            "the local chat model is not installed: "
            f"`dragoman weights pull {LOCAL_MODEL}` brings it (1.1 GB)"
        )
    return None
