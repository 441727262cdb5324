"""What became of each planted unit, and the page that tells it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dragoman.evals.cells import cell, line, two_digits
from dragoman.tools.statistics import wilson

GOAL_PLAIN, GOAL_COMPOSED, GOAL_FALSE = 0.9, 0.7, 0.02


class Outcome(NamedTuple):
    """One planted unit's caption and how far it is right."""

    name: str
    composed: bool
    caption: str
    claimed: bool
    """The caption beats its floor, so that it is given."""
    accuracy: float | None
    """Balanced accuracy of the caption's predictions on fresh texts; None without a caption."""
    apart: float | None
    """The same where only the rival's tokens count as silent; None where it has none of its own."""
    detection: float | None
    floor: float | None
    recovered: bool
    n_senses: int


class Run(NamedTuple):
    """All units of one seed, captioned in one way."""

    outcomes: tuple[Outcome, ...]


class Trial(NamedTuple):
    """One seed."""

    seed: int
    with_pmi: Run
    without_pmi: Run | None
    """None where it was left out."""
    shuffled: tuple[str, ...]
    """Captions claimed of units with shuffled activations; '' where none was."""
    random: tuple[str, ...]
    bar: Mapping[str, float]
    """What a caption has to pass, by metric: set by captions of the random twin."""
    senses: Mapping[str, tuple[int, int]]
    """By way of telling senses: two-sense units with both told, and all of them."""
    units_per_second: float
    search_units_per_second: float


_HEAD = """# Planted units

Sixty neurons of a small transformer whose weights were written down
(`tools/subjects/planted_units.py`), each with a rival neuron whose rule is nearly the same,
captioned as `caption_neurons` does it at full effort without a chat model: a caption is claimed if
it beats its floor and says more of its unit than captions of a network with the same weights in
random order say of theirs (simulation, 2.75 standard deviations above theirs). *Recovered*: the
caption is claimed, and on fresh texts its predictions agree with the rule, token by token, with a
balanced accuracy of at least .9 over all tokens and of at least .9 against the tokens of the rival
alone. Wording makes no difference. Of units whose activations were shuffled, and of neurons of the
random network (held against another random one), every claim is a false one.
Intervals are Wilson's, 95%.
"""


def render(trials: Sequence[Trial], n_documents: int, seconds: float) -> tuple[str, bool]:
    """The page, and whether all goals are reached."""
    plain, composed = _units(trials, False), _units(trials, True)
    false = {
        "shuffled activations": [claim for trial in trials for claim in trial.shuffled],
        "random weights": [claim for trial in trials for claim in trial.random],
    }
    rows = [
        _goal(
            "rules without composition, recovered", _n(plain), len(plain), GOAL_PLAIN, least=True
        ),
        _goal("compositions, recovered", _n(composed), len(composed), GOAL_COMPOSED, least=True),
        *(
            _goal(
                f"false claims, {name}",
                sum(map(bool, claims)),
                len(claims),
                GOAL_FALSE,
                least=False,
            )
            for name, claims in false.items()
        ),
    ]
    ablated = [trial for trial in trials if trial.without_pmi is not None]
    without = [o for trial in ablated for o in (trial.without_pmi or Run(())).outcomes]
    every = [*plain, *composed]
    lines = [
        _HEAD,
        "| | share [95%] | n | goal | |",
        "|---|---|---:|---|---|",
        *(row for row, _ in rows),
        "",
        "## The PMI term",
        "",
        "| | recovered | claimed | mean words of a caption | mean detection |",
        "|---|---|---|---|---|",
        _pmi("with -tau log p(d)", every),
        *([_pmi("without (`pmi=False`)", without)] if without else []),
        "",
        "## Senses",
        "",
        "Two-sense units of which both senses are told, each with a balanced accuracy of .9:",
        "",
        *(f"- {name}: {told} of {n}" for name, (told, n) in _senses(trials).items()),
        "",
        "## What was not recovered",
        "",
        *_failures(trials),
        "",
        "## False claims",
        "",
        *_false(false),
        "",
        "## Each unit of the first seed",
        "",
        "| unit | caption | senses | detection | floor | fresh texts | against rival | |",
        "|---|---|---:|---|---|---|---|---|",
        *(_line(outcome) for outcome in trials[0].with_pmi.outcomes),
        "",
        "A caption had to simulate its unit with a correlation above "
        f"{_listed(trials)}, which the random twin of each seed set.",
        "",
        f"Predicate search: {_mean(trials, lambda each: each.search_units_per_second):.0f} units a "
        f"second over {n_documents} texts; proposing, choosing and scoring "
        f"{_mean(trials, lambda each: each.units_per_second):.1f}.",
        "",
        f"Made by `python -m dragoman.evals.planted_units --seeds "
        f"{' '.join(str(trial.seed) for trial in trials)} --documents {n_documents}` in "
        f"{seconds / 60:.1f} minutes.",
        "",
    ]
    return "\n".join(lines), all(reached for _, reached in rows)


def render_tuning(counted: Mapping[float, tuple[int, int, float]], seeds: Sequence[int]) -> str:
    """Units recovered by each tau, as Markdown."""
    lines = [
        f"Seeds {', '.join(map(str, seeds))}.",
        "",
        "| tau | recovered | mean words of a caption |",
        "|---|---|---|",
    ]
    for tau, (recovered, n, words) in counted.items():
        lines.append(f"| {tau:g} | {_share(recovered, n)} of {n} | {words:.1f} |")
    return "\n".join(lines) + "\n"


def _units(trials: Sequence[Trial], composed: bool) -> list[Outcome]:
    return [o for trial in trials for o in trial.with_pmi.outcomes if o.composed is composed]


def _n(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.recovered for outcome in outcomes)


def _goal(name: str, count: int, n: int, goal: float, *, least: bool) -> tuple[str, bool]:
    share = count / n
    reached = share >= goal if least else share <= goal
    said = f"at {'least' if least else 'most'} {goal:.0%}"
    return (
        f"| {name} | {_share(count, n)} | {n} | {said} | {'reached' if reached else 'MISSED'} |",
        reached,
    )


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count / n:.1%} [{low:.1%}, {high:.1%}]"


def _pmi(name: str, outcomes: Sequence[Outcome]) -> str:
    said = [outcome for outcome in outcomes if outcome.caption]
    words = sum(len(outcome.caption.split()) for outcome in said) / max(len(said), 1)
    scored = [outcome.detection for outcome in outcomes if outcome.detection is not None]
    detection = sum(scored) / max(len(scored), 1)
    claimed = sum(outcome.claimed for outcome in outcomes)
    return (
        f"| {name} | {_share(_n(outcomes), len(outcomes))} | {claimed} of {len(outcomes)} | "
        f"{words:.1f} | {detection:.3f} |"
    )


def _senses(trials: Sequence[Trial]) -> dict[str, tuple[int, int]]:
    told: Counter[str] = Counter()
    n: Counter[str] = Counter()
    for trial in trials:
        for name, (count, total) in trial.senses.items():
            told[name] += count
            n[name] += total
    return {name: (told[name], n[name]) for name in n}


def _failures(trials: Sequence[Trial]) -> list[str]:
    lines = []
    for trial in trials:
        for outcome in trial.with_pmi.outcomes:
            if not outcome.recovered:
                why = "claimed" if outcome.claimed else "not claimed"
                lines.append(
                    f"- seed {trial.seed}, {cell(outcome.name)}: "
                    f"{cell(outcome.caption) or 'no candidate'} ({why}; "
                    f"fresh texts {two_digits(outcome.accuracy)}, "
                    f"against its rival {two_digits(outcome.apart)})"
                )
    return lines or ["Nothing: all were recovered."]


def _false(claims: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [
        f"- {name}: {cell(claim)}" for name, listed in claims.items() for claim in listed if claim
    ]
    return lines or ["None."]


def _line(outcome: Outcome) -> str:
    cells = (
        outcome.name,
        outcome.caption,
        str(outcome.n_senses),
        two_digits(outcome.detection),
        two_digits(outcome.floor),
        two_digits(outcome.accuracy),
        two_digits(outcome.apart),
        "recovered" if outcome.recovered else "MISSED",
    )
    return line(cells)


def _listed(trials: Sequence[Trial]) -> str:
    return ", ".join(two_digits(trial.bar.get("simulation")) for trial in trials)


def _mean(trials: Sequence[Trial], value: Callable[[Trial], float]) -> float:
    return sum(map(value, trials)) / len(trials)
