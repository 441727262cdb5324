"""How much cheaper many detections are in one batched pass than one by one, with equal answers.

`python -m dragoman.evals.detection_speed --out docs/evals/detection_speed.md` trains one detector
(`tools.editing.detection.detector`), judges a thousand facts with it in one call, and as many
single facts as `--singles` says in a call each, in processor seconds on one thread. The ratio is
that of the seconds a fact; risks, forecasts and expected answers have to agree. Exit code 1 when
they do not, or when batching is not cheaper.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from dragoman.core.escaping import visible
from dragoman.core.protocols import silent
from dragoman.core.settings import Settings
from dragoman.evals.telling import publish
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.detector import Detector
from dragoman.tools.editing.detection.reading import AT_ONCE
from dragoman.tools.editing.detection.scoring import FactRisk, score_facts
from dragoman.tools.editing.detection.study import DETECTION_PLANS
from dragoman.tools.editing.detection.tool import train_detector
from dragoman.tools.fact_files import FactRow
from dragoman.tools.relations import Relation, load_relation
from dragoman.tools.subjects.huggingface import DEFAULT_SUBJECT, load_subject
from dragoman.tools.subjects.language import LanguageSubject

RELATION = "country_capital"
N_FACTS, N_SINGLES = 1000, 100
TOLERANCE = 1e-3
_PLAN = DETECTION_PLANS["quick"].model_copy(
    update={"max_facts": 40, "max_templates": 2, "deals": 1}
)


class Compared(NamedTuple):
    """Seconds a fact in both ways, and how far their answers are apart."""

    n_facts: int
    n_singles: int
    batched_seconds: float
    """Of the processor, for a fact among all."""
    single_seconds: float
    """For a fact in a call of its own."""
    apart: float
    """Largest difference of risks."""
    disagreeing: int
    """Facts of which forecast, expected answer or the subject's own answer differ."""
    n_unscored: int

    @property
    def ratio(self) -> float:
        """How many times cheaper a fact is among all."""
        return self.single_seconds / self.batched_seconds

    @property
    def good(self) -> bool:
        """Batching pays, and changes nothing."""
        return self.ratio > 1 and self.disagreeing == 0 and self.apart <= TOLERANCE


def facts_of(relation: Relation, detector: Detector, count: int) -> list[FactRow]:
    """Every entity with every object of the range, in turn, until there are enough."""
    objects = sorted(detector.objects)
    pairs = [
        FactRow(entity=sample.subject, object=objects[(place + shift) % len(objects)])
        for shift in range(len(objects))
        for place, sample in enumerate(relation.samples)
    ]
    return [pairs[at % len(pairs)] for at in range(count)]


def compare(
    subject: LanguageSubject, detector: Detector, rows: Sequence[FactRow], n_singles: int
) -> Compared:
    """All rows in one call; `n_singles` of them, spread evenly, in a call each."""
    n_singles = min(n_singles, len(rows))
    started = time.process_time()
    batched = score_facts(subject, detector, rows, 0, silent)
    batched_seconds = (time.process_time() - started) / len(rows)
    chosen = [at * len(rows) // n_singles for at in range(n_singles)]
    started = time.process_time()
    singles = [score_facts(subject, detector, [rows[at]], 0, silent)[0] for at in chosen]
    single_seconds = (time.process_time() - started) / len(chosen)
    pairs = [(batched[at], one) for at, one in zip(chosen, singles, strict=True)]
    return Compared(
        len(rows),
        len(chosen),
        batched_seconds,
        single_seconds,
        max(abs((one.risk or 0.0) - (other.risk or 0.0)) for one, other in pairs),
        sum(_said(one) != _said(other) for one, other in pairs),
        sum(one.risk is None for one in batched),
    )


def render(found: Compared, subject: str, relation: str, command: str) -> str:
    """The page."""
    return "\n".join(
        [
            f"# A thousand detections on {visible(subject, one_line=True)}",
            "",
            f"One trained detector of `{relation}` judges {found.n_facts} facts (entities of the "
            f"relation with its objects in turn) in one call, in passes of {AT_ONCE}, and "
            f"{found.n_singles} of them, spread evenly, in a call each. Processor seconds, one "
            "thread, nothing is trained in either.",
            "",
            "| | ms a fact |",
            "|---|---:|",
            f"| all in one call | {1000 * found.batched_seconds:.1f} |",
            f"| a call for each | {1000 * found.single_seconds:.1f} |",
            "",
            f"- A fact among {found.n_facts} costs {found.ratio:.1f} times less than alone.",
            f"- Forecast, expected answer and the subject's own answer differ in "
            f"{found.disagreeing} of {found.n_singles} facts; risks are at most {found.apart:.0e} "
            f"apart. Not scored: {found.n_unscored}.",
            "",
            f"Made by `{command}`.",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one detector, judge in both ways, write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.detection_speed", description=__doc__
    )
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--relation", default=RELATION)
    parser.add_argument("--facts", type=int, default=N_FACTS)
    parser.add_argument("--singles", type=int, default=N_SINGLES)
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    subject, relation = load_subject(options.subject, Settings()), load_relation(options.relation)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ctx = ToolContext(
            network=subject, seed=0, home=home, artifacts=home / "run", cache=home / "cache"
        )
        detector = train_detector(ctx, relation, "prior", _PLAN, None).detector
    rows = facts_of(relation, detector, options.facts)
    found = compare(subject, detector, rows, options.singles)
    command = "python -m dragoman.evals.detection_speed"
    if (options.facts, options.singles) != (N_FACTS, N_SINGLES):
        command += f" --facts {options.facts} --singles {options.singles}"
    text = render(found, subject.identity.name, relation.name, command)
    publish(text, options.out)
    return 0 if found.good else 1


def _said(one: FactRisk) -> tuple[bool | None, str | None, str | None, bool | None]:
    return one.error_foreseen, one.expected, one.answered, one.error


if __name__ == "__main__":
    sys.exit(main())
