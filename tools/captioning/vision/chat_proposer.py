"""Captions from a chat model that sees: shown each unit's masked exemplars, several a call."""

import base64
from collections.abc import Sequence

from dragoman.core.errors import ImagesRefused
from dragoman.core.protocols import ChatImage, ChatMessage, ChatModel, ChatRequest
from dragoman.prompts import render
from dragoman.tools.captioning.chat_calls import CountedChat
from dragoman.tools.captioning.chat_proposer import ChatCaptions, cleaned
from dragoman.tools.captioning.vision.bench import VisionBench, shown_exemplars
from dragoman.tools.captioning.vision.describing import Proposer, Suggestions
from dragoman.tools.captioning.vision.pictures import grid, masked_views
from dragoman.tools.context import ToolContext

UNITS_A_CALL = 4
_TOKENS_A_UNIT = 56


def proposers_of(context: ToolContext) -> list[Proposer]:
    """The context's chat model, if it may be able to see; the one on this machine reads text."""
    chat = context.chat
    return [] if chat is None or chat.identity.kind == "local" else [ChatEye(chat)]


class ChatEye:
    """Asks a chat model what masked exemplars have in common; replies are cached by content."""

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat
        self._blind = False

    @property
    def name(self) -> str:
        """The chat model's."""
        return self._chat.identity.model

    def suggest(
        self, context: ToolContext, bench: VisionBench, units: Sequence[int]
    ) -> Suggestions:
        """Captions of the units; none, and all of them failed, from a model that cannot see.

        `ChatError` for a chat model that cannot be reached, as everywhere.
        """
        captions: list[tuple[str, ...]] = []
        calls = CountedChat(context, self._chat)
        exemplars, images = shown_exemplars(context, bench.images, [bench.layer])
        for start in range(0, len(units), UNITS_A_CALL):
            batch = units[start : start + UNITS_A_CALL]
            context.step(start, len(units), f"showing exemplars to {self.name}")
            pictures = [
                grid(masked_views(context.vision, images, exemplars, bench.layer, bench.units[row]))
                for row in batch
            ]
            request = _request(pictures, context.seed)
            reply = calls.kept(request, ChatCaptions)
            if reply is None and not self._blind:
                reply = self._asked(calls, request)
            captions += cleaned(reply, len(batch))
        n_failed = sum(not each for each in captions)
        return Suggestions(captions, calls.n_calls, calls.n_cached, n_failed)

    def _asked(self, calls: CountedChat, request: ChatRequest) -> ChatCaptions | None:
        try:
            return calls.fresh(request, ChatCaptions)
        except ImagesRefused:
            # It will not see the next one either.
            self._blind = True
            return None


def _request(pictures: Sequence[bytes], seed: int) -> ChatRequest:
    n = len(pictures)
    return ChatRequest(
        purpose="caption",
        messages=(
            ChatMessage(
                role="user",
                content=render("caption_images", n_units=str(n)),
                images=tuple(
                    ChatImage(
                        media_type="image/jpeg", base64=base64.b64encode(picture).decode("ascii")
                    )
                    for picture in pictures
                ),
            ),
        ),
        json_schema=ChatCaptions.schema_for(n),
        max_tokens=_TOKENS_A_UNIT * n + 16,
        seed=seed,
    )
