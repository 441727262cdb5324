"""What became of each planted vision unit, and the page that tells it."""

from collections.abc import Sequence

from dragoman.core.records import Record
from dragoman.evals.cells import cell, line, two_digits
from dragoman.tools.statistics import wilson

GOAL_PLAIN, GOAL_COMPOSED, GOAL_FALSE = 0.9, 0.7, 0.02


class Outcome(Record):
    """One planted unit's caption and how far it is right."""

    name: str
    composed: bool
    caption: str
    claimed: bool
    """The caption beats its floor, so that it is given."""
    accuracy: float | None
    """Balanced accuracy of the caption's predictions on fresh scenes; None without a caption."""
    apart: float | None
    """The same where only rivals count as silent; None where fresh scenes have too few."""
    detection: float | None
    floor: float | None
    fuzzing: float | None
    simulation: float | None
    recovered: bool
    n_senses: int


class Trial(Record):
    """One seed."""

    seed: int
    with_pmi: tuple[Outcome, ...]
    without_pmi: tuple[Outcome, ...]
    shuffled: tuple[str, ...]
    """Captions claimed of units whose maps were dealt to other scenes; '' where none was."""
    nameless: tuple[str, ...]
    """The same of the rivals, and of what were planted units in the twin."""
    random: tuple[str, ...]
    """Captions of units with random weights that are false on fresh scenes; '' where none was."""
    n_random_claims: int
    """Captions claimed of units with random weights, the true ones included."""
    units_per_second: float


_HEAD = """# Planted vision units

Thirty units of a small network whose weights were written down
(`tools/subjects/planted_vision.py`): colours, outlines, stripes by direction, checks, and
compositions of these. They are captioned as `caption_neurons` does it, by the concept search alone.
*Recovered*: the caption beats its floor, and on fresh scenes of two objects its predictions agree
with the rule with a balanced accuracy of at least .9, over all scenes, and over those with the rule
and its rivals alone: scenes that show all that the rule asks for, but not on one object, or with
what it forbids. Wording makes no difference.

False claims: every caption of units whose maps were dealt to other scenes, of the subject's other
units (active in the middle of whatever stands at a few places drawn at random) and of what the twin
has in the planted units' place; and captions of a network with random weights that on fresh scenes
predict their unit no better than chance. Intervals are Wilson's, 95%.
"""


def render(trials: Sequence[Trial], n_scenes: int, n_fresh: int) -> tuple[str, bool]:
    """The page, and whether all goals are reached."""
    every = [outcome for trial in trials for outcome in trial.with_pmi]
    plain = [outcome for outcome in every if not outcome.composed]
    composed = [outcome for outcome in every if outcome.composed]
    without = [outcome for trial in trials for outcome in trial.without_pmi]
    false = {
        "maps dealt to other scenes": [each for trial in trials for each in trial.shuffled],
        "rivals and twin": [each for trial in trials for each in trial.nameless],
        "random weights": [each for trial in trials for each in trial.random],
    }
    rows = [
        _goal("rules without composition, recovered", _n(plain), len(plain), GOAL_PLAIN),
        _goal("compositions, recovered", _n(composed), len(composed), GOAL_COMPOSED),
        *(
            _goal(f"false claims, {name}", sum(map(bool, said)), len(said), GOAL_FALSE, most=True)
            for name, said in false.items()
        ),
    ]
    n_random = sum(trial.n_random_claims for trial in trials)
    rate = sum(trial.units_per_second for trial in trials) / len(trials)
    lines = [
        _HEAD,
        "| | share [95%] | n | goal | |",
        "|---|---|---:|---|---|",
        *(row for row, _ in rows),
        "",
        f"Of {len(false['random weights'])} units with random weights {n_random} are given a "
        "caption: what an untrained unit responds to may have a name too.",
        "",
        "## The PMI term",
        "",
        "| | recovered | claimed | mean words of a caption | mean detection |",
        "|---|---|---|---|---|",
        _pmi("with -tau log p(d)", every),
        _pmi("without (`pmi=False`)", without),
        "",
        "## What was not recovered",
        "",
        *_failures(trials),
        "",
        "## False claims",
        "",
        *(
            [f"- {name}: {cell(each)}" for name, said in false.items() for each in said if each]
            or ["None."]
        ),
        "",
        "## Each unit of the first seed",
        "",
        "| unit | caption | senses | detection | floor | fuzzing | simulation | fresh scenes "
        "| against rivals | |",
        "|---|---|---:|---|---|---|---|---|---|---|",
        *(_line(outcome) for outcome in trials[0].with_pmi),
        "",
        f"Proposing, choosing and scoring: {rate:.1f} units a second of the processor, once the "
        "patches are measured.",
        "",
        f"Made by `python -m dragoman.evals.planted_vision --seeds "
        f"{' '.join(str(trial.seed) for trial in trials)} --scenes {n_scenes} "
        f"--fresh {n_fresh}`.",
        "",
    ]
    return "\n".join(lines), all(reached for _, reached in rows)


def _n(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.recovered for outcome in outcomes)


def _goal(name: str, count: int, n: int, goal: float, *, most: bool = False) -> tuple[str, bool]:
    share = count / n
    reached = share <= goal if most else share >= goal
    said = f"at {'most' if most else 'least'} {goal:.0%}"
    return f"| {name} | {_share(count, n)} | {n} | {said} | {_verdict(reached)} |", reached


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count / n:.3f} [{low:.3f}, {high:.3f}]"


def _pmi(name: str, outcomes: Sequence[Outcome]) -> str:
    said = [outcome.caption for outcome in outcomes if outcome.caption]
    words = sum(len(caption.split()) for caption in said) / max(len(said), 1)
    scored = [outcome.detection for outcome in outcomes if outcome.detection is not None]
    claimed = sum(outcome.claimed for outcome in outcomes)
    return (
        f"| {name} | {_share(_n(outcomes), len(outcomes))} | {claimed} of {len(outcomes)} | "
        f"{words:.1f} | {sum(scored) / max(len(scored), 1):.3f} |"
    )


def _failures(trials: Sequence[Trial]) -> list[str]:
    lines = [
        f"- seed {trial.seed}, {cell(outcome.name)}: {cell(outcome.caption) or 'no candidate'} "
        f"({'claimed' if outcome.claimed else 'no caption beats its floor'}; fresh scenes "
        f"{two_digits(outcome.accuracy)}, against rivals {two_digits(outcome.apart)})"
        for trial in trials
        for outcome in trial.with_pmi
        if not outcome.recovered
    ]
    return lines or ["Nothing: all were recovered."]


def _line(outcome: Outcome) -> str:
    cells = (
        outcome.name,
        outcome.caption,
        str(outcome.n_senses),
        two_digits(outcome.detection),
        two_digits(outcome.floor),
        two_digits(outcome.fuzzing),
        two_digits(outcome.simulation),
        two_digits(outcome.accuracy),
        two_digits(outcome.apart),
        "recovered" if outcome.recovered else "MISSED",
    )
    return line(cells)
