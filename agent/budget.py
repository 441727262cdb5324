"""Budgets of an audit: reserved before each call, never overrun by one that was foreseeable.

What is used is read from the ledger, so that a resumed audit goes on where it stopped. A limit
ends the run in front of the call that might pass it: no request follows.
"""

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from dragoman.agent.ledger import Ledger
from dragoman.agent.specification import Budgets
from dragoman.core.errors import LimitReached, UserError
from dragoman.core.protocols import ChatRequest
from dragoman.core.records import ChatIdentity, Record, canonical_json

if TYPE_CHECKING:
    from dragoman.core.settings import Settings

__all__ = ["FREE", "Budget", "Budgets", "Price", "price_of", "prompt_tokens_max"]

_IMAGE_TOKENS = 26_000
"""Of an image of 1024 pixels a side in the dearest tariff known, gpt-4o-mini's."""
_TEMPLATE_TOKENS = 32
"""What a chat template adds to a message, and once to the conversation, at most."""


class Price(Record):
    """What an endpoint takes, in US dollars per million tokens."""

    usd_per_million_prompt_tokens: float
    usd_per_million_completion_tokens: float

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of one call."""
        return (
            prompt_tokens * self.usd_per_million_prompt_tokens
            + completion_tokens * self.usd_per_million_completion_tokens
        ) / 1e6


FREE = Price(usd_per_million_prompt_tokens=0.0, usd_per_million_completion_tokens=0.0)


def price_of(chat: ChatIdentity, settings: "Settings") -> Price | None:
    """The price of a chat model's tokens; None for an endpoint whose price was not configured."""
    if chat.kind != "openai":
        return FREE
    prompt = settings.usd_per_million_prompt_tokens
    completion = settings.usd_per_million_completion_tokens
    if prompt is None or completion is None:
        return None
    return Price(usd_per_million_prompt_tokens=prompt, usd_per_million_completion_tokens=completion)


def prompt_tokens_max(request: ChatRequest) -> int:
    """An upper bound on a request's prompt tokens: a byte-level token is a byte at least.

    The schema counts, since some endpoints write it into the prompt.
    """
    parts = [message.content for message in request.messages]
    if request.json_schema is not None:
        parts.append(canonical_json(request.json_schema))
    written = sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)
    n_images = sum(len(message.images) for message in request.messages)
    return written + _IMAGE_TOKENS * n_images + _TEMPLATE_TOKENS * (len(parts) + 1)


class Budget:
    """The limits of one audit, and what is used of them."""

    def __init__(
        self,
        budgets: Budgets,
        ledger: Ledger,
        audit_id: str,
        *,
        price: Price | None = FREE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock of this session; `UserError` where dollars cannot be counted."""
        if budgets.usd is not None and price is None:
            raise UserError(
                "a budget in dollars needs prices; set DRAGOMAN_USD_PER_MILLION_PROMPT_TOKENS and "
                "DRAGOMAN_USD_PER_MILLION_COMPLETION_TOKENS, or leave --max-cost out"
            )
        self.budgets = budgets
        self.price = price
        self._ledger = ledger
        self._audit_id = audit_id
        self._clock = clock
        self._session = uuid.uuid4().hex
        self._seconds_before = ledger.seconds_used(audit_id)
        self._began = clock()

    @property
    def seconds(self) -> float:
        """Time at work in all sessions of this audit."""
        return self._seconds_before + self._clock() - self._began

    def note_time(self) -> None:
        """Write the time used into the ledger, for a later session to count on."""
        self._ledger.clock(self._audit_id, self._session, self._clock() - self._began)

    def check_time(self) -> None:
        """`LimitReached` once the minutes are used up."""
        limit = self.budgets.minutes
        if limit is not None and self.seconds >= limit * 60:
            raise LimitReached(
                f"time budget: {self.seconds / 60:.1f} of {limit:g} minutes are used; "
                "raise it with --max-minutes"
            )

    def step(self, experiment_id: str) -> None:
        """Reserve an experiment; one that this audit has begun before is no new step."""
        self.note_time()
        self.check_time()
        limit = self.budgets.steps
        begun = self._ledger.steps(self._audit_id)
        if limit is not None and experiment_id not in begun and len(begun) >= limit:
            raise LimitReached(
                f"step budget: {len(begun)} of {limit} experiments are used; raise budgets.steps"
            )

    def call(self, request: ChatRequest) -> tuple[int, int, float | None]:
        """The most that a chat call can take: prompt tokens, completion tokens, dollars.

        Raises:
            LimitReached: with what is spent already, this would pass a budget.
        """
        self.note_time()
        self.check_time()
        prompt, completion = prompt_tokens_max(request), request.max_tokens
        usd = None if self.price is None else self.price.usd(prompt, completion)
        spent = self._ledger.spent(self._audit_id)
        tokens = self.budgets.tokens
        if tokens is not None and spent.tokens + prompt + completion > tokens:
            raise LimitReached(
                f"token budget: {spent.tokens} of {tokens} are spent and the next call may take "
                f"{prompt + completion}; raise it with --max-tokens"
            )
        limit = self.budgets.usd
        if limit is None:
            return prompt, completion, usd
        if usd is None or spent.usd is None:
            raise LimitReached(
                "cost budget: an earlier call of this audit has no known price; start a new audit"
            )
        if spent.usd + usd > limit:
            raise LimitReached(
                f"cost budget: {spent.usd:.4f} of {limit:.4f} USD are spent and the next call may "
                f"take {usd:.4f}; raise it with --max-cost"
            )
        return prompt, completion, usd
