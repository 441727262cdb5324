"""No request follows a limit, and a resumed audit goes on counting where it stopped."""

from pathlib import Path

import pytest

from dragoman.agent.budget import FREE, Budget, Budgets, Price, price_of, prompt_tokens_max
from dragoman.agent.ledger import Ledger
from dragoman.core.errors import LimitReached, UserError
from dragoman.core.protocols import ChatMessage, ChatReply, ChatRequest
from dragoman.core.records import ChatIdentity, Experiment
from dragoman.core.settings import Settings

REQUEST = ChatRequest(
    purpose="plan", messages=(ChatMessage(role="user", content="x" * 100),), max_tokens=36
)
MOST = 100 + 2 * 32 + 36
PRICE = Price(usd_per_million_prompt_tokens=1e6, usd_per_million_completion_tokens=2e6)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite3")


def spend(ledger: Ledger, name: str, tokens: int, usd: float | None = 0.0) -> None:
    ledger.chat_reserved("a", name, REQUEST, 1000, 1000, usd)
    reply = ChatReply(
        text="", finish_reason="stop", prompt_tokens=tokens, completion_tokens=0, usd=usd
    )
    ledger.chat_settled("a", name, reply)


def test_the_bound_on_prompt_tokens_counts_bytes_templates_and_schema() -> None:
    assert prompt_tokens_max(REQUEST) == 100 + 2 * 32
    accents = ChatRequest(purpose="p", messages=(ChatMessage(role="user", content="é\ud800"),))
    assert prompt_tokens_max(accents) == 5 + 2 * 32
    with_schema = REQUEST.model_copy(update={"json_schema": {"type": "object"}})
    assert prompt_tokens_max(with_schema) == 100 + 17 + 3 * 32


def test_tokens_are_reserved_to_the_last_one(ledger: Ledger) -> None:
    budget = Budget(Budgets(tokens=500), ledger, "a")
    spend(ledger, "one", 500 - MOST)
    assert budget.call(REQUEST) == (MOST - 36, 36, 0.0)
    spend(ledger, "two", 1)
    with pytest.raises(LimitReached, match=rf"token budget: {501 - MOST} of 500.*--max-tokens"):
        budget.call(REQUEST)
    assert Budget(Budgets(), ledger, "a").call(REQUEST)
    assert Budget(Budgets(tokens=500), ledger, "b").call(REQUEST), "audits do not share budgets"


def test_a_call_in_doubt_counts_at_its_reserve(ledger: Ledger) -> None:
    ledger.chat_reserved("a", "one", REQUEST, 400, 0, 0.0)
    with pytest.raises(LimitReached, match="token budget: 400 of 500"):
        Budget(Budgets(tokens=500), ledger, "a").call(REQUEST)
    ledger.chat_released("a", "one", "401")
    assert Budget(Budgets(tokens=500), ledger, "a").call(REQUEST)


def test_dollars(ledger: Ledger) -> None:
    most = (MOST - 36) * 1.0 + 36 * 2.0
    budget = Budget(Budgets(usd=most + 10), ledger, "a", price=PRICE)
    spend(ledger, "one", 1, 10.0)
    assert budget.call(REQUEST)[2] == most
    spend(ledger, "two", 1, 0.5)
    with pytest.raises(LimitReached, match=r"cost budget: 10.5000 of.*--max-cost"):
        budget.call(REQUEST)
    spend(ledger, "three", 1, None)
    with pytest.raises(LimitReached, match="no known price"):
        budget.call(REQUEST)


def test_dollars_without_a_price_are_refused_before_the_start(ledger: Ledger) -> None:
    with pytest.raises(UserError, match="DRAGOMAN_USD_PER_MILLION_PROMPT_TOKENS"):
        Budget(Budgets(usd=1.0), ledger, "a", price=None)
    assert Budget(Budgets(tokens=1000), ledger, "a", price=None).call(REQUEST)[2] is None


def test_steps_count_experiments_once_and_survive_a_resume(ledger: Ledger) -> None:
    one, two, three = (
        Experiment(tool="t", arguments={}, subject_digest="d", seed=seed) for seed in range(3)
    )
    budget = Budget(Budgets(steps=2), ledger, "a")
    for experiment in (one, one, two):
        budget.step(experiment.id)
        ledger.experiment_started("a", experiment)
    resumed = Budget(Budgets(steps=2), ledger, "a")
    resumed.step(two.id)
    with pytest.raises(LimitReached, match=r"2 of 2 experiments.*budgets\.steps"):
        resumed.step(three.id)


def test_minutes_add_up_over_sessions(ledger: Ledger) -> None:
    clock = Clock()
    first = Budget(Budgets(minutes=2), ledger, "a", clock=clock)
    clock.now += 50
    first.call(REQUEST)
    clock.now += 20
    first.step("x")
    clock.now += 1_000_000  # the process was killed and the machine slept
    second = Budget(Budgets(minutes=2), ledger, "a", clock=clock)
    assert second.seconds == 70
    clock.now += 49
    second.check_time()
    clock.now += 1
    for act in (second.check_time, lambda: second.call(REQUEST), lambda: second.step("y")):
        with pytest.raises(LimitReached, match=r"2\.0 of 2 minutes are used.*--max-minutes"):
            act()
    assert ledger.seconds_used("a") == 120
    assert Budget(Budgets(minutes=2), ledger, "b", clock=clock).seconds == 0


def test_prices_come_from_the_settings_for_endpoints_alone() -> None:
    local = ChatIdentity(kind="local", model="m")
    remote = ChatIdentity(kind="openai", model="m", endpoint="h")
    both = Settings(usd_per_million_prompt_tokens=0.4, usd_per_million_completion_tokens=1.6)
    one = Settings(usd_per_million_prompt_tokens=0.4)
    assert price_of(local, both) == FREE
    assert price_of(remote, one) is None
    price = price_of(remote, both)
    assert price is not None
    assert price.usd(1_000_000, 500_000) == pytest.approx(1.2)
