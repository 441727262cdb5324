"""Are planted units described by what they do? Sixty rules, their rivals, and two controls.

    python -m dragoman.evals.planted_units --out docs/evals/planted_units.md

A subject whose sixty units follow rules that were written down (`tools/subjects/planted_units.py`)
is captioned as `caption_neurons` captions it, without a chat model. A unit is *recovered* if it is
given a caption and the caption's predictions agree with the rule on fresh texts, token by token:
balanced accuracy of at least .9 over all tokens, and once more where the only tokens without the
rule are those at which the unit's rival fires. How the caption is worded makes no difference.

The same units with their activations in random order, and the neurons of the random twin, have no
rule: whatever is claimed of them is false. A caption is claimed, as by the tool at full effort, if
it beats its floor and says more of its unit than captions of the random twin's units say of theirs;
the twin's own units are held against another random twin. `--tune` measures values of tau on other
seeds.

The texts' words are unknown to most captions, so log p(d) is the default subject's.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.settings import Settings
from dragoman.evals.planted_units_table import Outcome, Run, Trial, render, render_tuning
from dragoman.evals.telling import publish, say
from dragoman.tools.captioning import senses
from dragoman.tools.captioning.assessment import Assessment, Assessor, said_of
from dragoman.tools.captioning.bar import Bar
from dragoman.tools.captioning.captioner import Candidate, Captioner, Chosen
from dragoman.tools.captioning.corpus import sample_corpus
from dragoman.tools.captioning.describing import table_of
from dragoman.tools.captioning.meanings import embedder
from dragoman.tools.captioning.predicates import Predicate, holds
from dragoman.tools.captioning.proposer import search_over
from dragoman.tools.captioning.reranking import TAU, log_priors
from dragoman.tools.captioning.tokens import Column
from dragoman.tools.captioning.units import read_units
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.packaged import load_smollm2
from dragoman.tools.subjects.planted_units import D_MLP, UNIT_LAYER, PlantedUnits, plant_units
from dragoman.tools.subjects.planted_units_rules import UnitRule
from dragoman.tools.subjects.planted_units_words import Rule

RECOVERED = 0.9
N_DOCUMENTS = 1000
N_FRESH = 400
TAUS = (0.0, 0.2, 0.5, 0.8, 0.9, 0.95, 1.0)
_FRESH_SEED = 10_000
_NO_BAR = Bar({"detection": -np.inf}, {"detection": 0.0}, 0)
_OTHER_TWIN = 5_000
"""Added to the seed, the seed of the twin that the random twin itself is held against."""


class Laboratory:
    """One seed's subject with its texts, and fresh ones."""

    def __init__(self, seed: int, home: Path, settings: Settings, n_documents: int) -> None:
        self.seed, self._settings = seed, settings
        self.planted: PlantedUnits = plant_units(seed)
        self.context = self._context(home, seed)
        self.documents = sample_corpus(self.context, n_documents).documents
        self.table = table_of(self.context, self.documents)
        fresh = sample_corpus(self._context(home, seed + _FRESH_SEED), N_FRESH).documents
        self.fresh = table_of(self.context, fresh).with_meanings(self.table.meanings)
        self._fresh_words = [document.split() for document in fresh]
        self._rules: dict[Rule, Column] = {}

    def _context(self, home: Path, seed: int) -> ToolContext:
        return ToolContext(
            self.planted.subject,
            seed,
            home,
            home / "artifacts",
            home / "cache",
            weights=self._settings.weights_folder,
        )

    def activations(
        self, neurons: Sequence[int], *, of: LanguageSubject | None = None
    ) -> Float[ndarray, "tokens units"]:
        """Activations of neurons of the unit layer of a subject, on the captioner's texts."""
        context = self.context if of is None else replace(self.context, network=of)
        return read_units(context, self.documents, self.table, UNIT_LAYER, neurons)

    def truth(self, rule: Rule) -> Column:
        """Where the rule holds in the fresh texts."""
        if rule not in self._rules:
            self._rules[rule] = np.concatenate(
                [self.planted.holds(rule, words) for words in self._fresh_words]
            )
        return self._rules[rule]

    def captioner(
        self,
        activations: Float[ndarray, "tokens units"],
        n_requested: int,
        priors: Callable[[Sequence[str]], list[float]],
    ) -> Captioner:
        """As the tool makes it, with the default subject's log p(d)."""
        return Captioner(
            self.table,
            activations,
            n_requested,
            seed=self.seed,
            priors=priors,
            vectors=embedder(self.context),
        )


def balanced_accuracy(said: Column, truth: Column, among: Column | None = None) -> float | None:
    """Mean of the rates of yes where `truth` holds and of no where it does not.

    `among`: only these of the tokens without the rule count; None if there are none.
    """
    without = ~truth if among is None else ~truth & among
    if not without.any() or not truth.any():
        return None
    return float((said[truth].mean() + (~said[without]).mean()) / 2)


class Scored(NamedTuple):
    """What was chosen for each unit of a captioner, and its scores."""

    chosen: list[Chosen | None]
    assessed: list[Assessment | None]

    @property
    def values(self) -> list[dict[str, float]]:
        """Scores by metric, one mapping for each unit that has any."""
        return [
            {measured.metric: measured.value for measured in each.measurements}
            for each in self.assessed
            if each is not None
        ]

    def claimed(self, unit: int, bar: Bar | None) -> bool:
        """The unit's caption holds, as `caption_neurons` has it at full effort."""
        found = self.assessed[unit]
        if found is None or not found.holds or bar is None:
            return False
        return bar.passed_by({each.metric: each.value for each in found.measurements})

    def claims(self, bar: Bar | None) -> tuple[str, ...]:
        """The captions that are claimed; '' for units of which nothing is."""
        return tuple(
            each.candidate.caption if each is not None and self.claimed(unit, bar) else ""
            for unit, each in enumerate(self.chosen)
        )


def scored(
    laboratory: Laboratory,
    captioner: Captioner,
    proposed: Sequence[Sequence[Candidate]],
    tau: float,
) -> Scored:
    """Choose among the candidates and score what was chosen."""
    chosen = captioner.choose_all(proposed, tau)
    said = [said_of(each) for each in chosen]
    assessor = Assessor(laboratory.context, captioner, said, effort="full", judges=())
    return Scored(chosen, [assessor.assess(unit, str(unit)) for unit in range(len(chosen))])


def evaluate(
    laboratory: Laboratory,
    priors: Callable[[Sequence[str]], list[float]],
    report: Callable[[str], None],
    *,
    ablate: bool = True,
) -> Trial:
    """All units of one seed and both controls; with `ablate` the units without PMI as well."""
    planted, seed = laboratory.planted, laboratory.seed
    units = planted.planned.units
    activations = laboratory.activations([*planted.neurons, *planted.rivals])

    def caption(read: Float[ndarray, "tokens units"], tau: float = TAU) -> Scored:
        made = laboratory.captioner(read, len(units), priors)
        proposed = [made.propose(unit) for unit in range(len(units))]
        return scored(laboratory, made, proposed, tau)

    neurons = np.random.default_rng([seed, 8]).permutation(D_MLP)[: 2 * len(units)].tolist()
    # The twin sets the subject's bar; another one, made of another seed's weights, the twin's.
    twins = (planted.random_twin, plant_units(seed + _OTHER_TWIN).random_twin)
    random, other = (caption(laboratory.activations(neurons, of=twin)) for twin in twins)
    bar = Bar.of(random.values)
    report(f"seed {seed}: random twins")
    captioner = laboratory.captioner(activations, len(units), priors)
    began = time.monotonic()
    proposed = [captioner.propose(unit) for unit in range(len(units))]
    found = {
        tau: scored(laboratory, captioner, proposed, tau)
        for tau in ((TAU, 0.0) if ablate else (TAU,))
    }
    runs = {tau: _run(laboratory, each, units, bar) for tau, each in found.items()}
    seconds = time.monotonic() - began
    report(f"seed {seed}: planted units")
    shuffled = caption(np.random.default_rng([seed, 7]).permuted(activations, axis=0))
    report(f"seed {seed}: shuffled activations")
    return Trial(
        seed=seed,
        with_pmi=runs[TAU],
        without_pmi=runs.get(0.0),
        shuffled=shuffled.claims(bar),
        random=random.claims(Bar.of(other.values)),
        bar=bar.values() if bar is not None else {},
        senses=dict(_sense_methods(laboratory, captioner, units, found[TAU].chosen)),
        units_per_second=len(units) / seconds,
        search_units_per_second=_search_rate(captioner, len(units)),
    )


def _run(laboratory: Laboratory, found: Scored, units: Sequence[UnitRule], bar: Bar | None) -> Run:
    outcomes = []
    for row, unit in enumerate(units):
        each, assessed = found.chosen[row], found.assessed[row]
        predicate = None if each is None else each.candidate.predicate
        truth, rival = laboratory.truth(unit.rule), laboratory.truth(unit.rival)
        accuracy = apart = None
        if predicate is not None:
            said = holds(predicate, laboratory.fresh)
            accuracy = balanced_accuracy(said, truth)
            apart = balanced_accuracy(said, truth, rival)
        claimed = found.claimed(row, bar)
        right = accuracy is not None and accuracy >= RECOVERED
        told_apart = apart is None or apart >= RECOVERED
        detection = None if assessed is None else assessed.measurements[0]
        outcomes.append(
            Outcome(
                name=unit.name,
                composed=unit.composed,
                caption="" if each is None else each.candidate.caption,
                claimed=claimed,
                accuracy=accuracy,
                apart=apart,
                detection=None if detection is None else detection.value,
                floor=None if detection is None else detection.baseline,
                recovered=claimed and right and told_apart,
                n_senses=0 if each is None else len(each.senses),
            )
        )
    return Run(tuple(outcomes))


def _sense_methods(
    laboratory: Laboratory,
    captioner: Captioner,
    units: Sequence[UnitRule],
    chosen: Sequence[Chosen | None],
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Of the two-sense units, how many have both senses told, by each way of telling them."""
    vectors, table = embedder(laboratory.context), captioner.fit.table
    search = search_over(table)
    asked = [row for row, unit in enumerate(units) if unit.senses]
    ways: dict[str, Callable[[int], tuple[Predicate, ...]]] = {
        "told with the caption": lambda row: _told(chosen[row])
    }
    if vectors is not None:
        ways["clusters of embedded words"] = lambda row: senses.by_clusters(
            table, captioner.active(captioner.fit, row), search, vectors
        )
        ways["disjuncts, by embedding"] = lambda row: _disjuncts(captioner, row, vectors)
    ways["disjuncts, by form"] = lambda row: _disjuncts(captioner, row, None)
    for name, way in ways.items():
        told = sum(_both_told(laboratory, units[row], way(row)) for row in asked)
        yield name, (told, len(asked))


def _told(chosen: Chosen | None) -> tuple[Predicate, ...]:
    return () if chosen is None else tuple(sense.predicate for sense in chosen.senses)


def _disjuncts(
    captioner: Captioner, row: int, vectors: senses.Vectors | None
) -> tuple[Predicate, ...]:
    found = [each.predicate for each in captioner.propose(row) if each.predicate and not each.parts]
    tables = (captioner.fit.table, captioner.validation.table)
    return senses.by_disjuncts(found[0], vectors, tables) if found else ()


def _both_told(laboratory: Laboratory, unit: UnitRule, predicates: Sequence[Predicate]) -> bool:
    told: list[int] = []
    for sense in unit.senses:
        truth = laboratory.truth(sense)
        accuracies = [
            balanced_accuracy(holds(predicate, laboratory.fresh), truth) or 0.0
            for predicate in predicates
        ]
        if not accuracies or max(accuracies) < RECOVERED:
            return False
        told.append(int(np.argmax(accuracies)))
    return len(set(told)) == len(told)


def _search_rate(captioner: Captioner, n_units: int) -> float:
    began = time.monotonic()
    search = search_over(captioner.fit.table)
    for unit in range(n_units):
        search.propose(captioner.active(captioner.fit, unit))
    return n_units / (time.monotonic() - began)


def tune(
    laboratories: Sequence[Laboratory],
    priors: Callable[[Sequence[str]], list[float]],
) -> dict[float, tuple[int, int, float]]:
    """For each tau the units recovered, those tried, and the captions' mean number of words.

    The random twin takes no part: what is compared is which caption is chosen.
    """
    prepared = []
    for laboratory in laboratories:
        planted = laboratory.planted
        activations = laboratory.activations([*planted.neurons, *planted.rivals])
        captioner = laboratory.captioner(activations, len(planted.neurons), priors)
        proposed = [captioner.propose(row) for row in range(len(planted.neurons))]
        prepared.append((laboratory, captioner, proposed))
    counted: dict[float, tuple[int, int, float]] = {}
    for tau in TAUS:
        outcomes = [
            outcome
            for laboratory, captioner, proposed in prepared
            for outcome in _run(
                laboratory,
                scored(laboratory, captioner, proposed, tau),
                laboratory.planted.planned.units,
                _NO_BAR,
            ).outcomes
        ]
        words = [len(each.caption.split()) for each in outcomes if each.caption]
        recovered = sum(each.recovered for each in outcomes)
        counted[tau] = (recovered, len(outcomes), float(np.mean(words)))
    return counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the eval; 0 when the goals are reached, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.planted_units",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="9 10 11, and 0 1 2 with --tune")
    parser.add_argument("--documents", type=int, default=N_DOCUMENTS)
    parser.add_argument(
        "--no-ablation", action="store_true", help="leave out the units without the PMI term"
    )
    parser.add_argument("--tune", action="store_true", help="measure tau on these seeds instead")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    # Seeds 0 to 2 were looked at while the search and the bar were made; 3 to 5 and 6 to 8 were
    # reported with a bar of 2.5 and of 3 standard deviations.
    seeds = options.seeds or ([0, 1, 2] if options.tune else [9, 10, 11])
    settings = Settings()
    reader = load_smollm2(settings.weights_folder)
    priors = partial(log_priors, reader)
    started = time.monotonic()
    report = partial(say, sys.stderr)
    with tempfile.TemporaryDirectory(prefix="dragoman-planted-units-") as folder:
        home = Path(folder)
        if options.tune:
            made = [Laboratory(s, home, settings, options.documents) for s in seeds]
            text = render_tuning(tune(made, priors), seeds)
            reached = True
        else:
            trials = []
            for seed in seeds:
                laboratory = Laboratory(seed, home, settings, options.documents)
                trials.append(evaluate(laboratory, priors, report, ablate=not options.no_ablation))
            text, reached = render(trials, options.documents, time.monotonic() - started)
    publish(text, options.out)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
