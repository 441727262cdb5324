"""Two published uses of REMEDI on our own data: correction of occupations, and entailment.

`python -m dragoman.evals.correction` takes biographies that tell an occupation without naming it,
foresees where the subject names another one, and edits there; then makes entities things of another
kind and reads what the new kind implies. One row for each seed and part, in a jsonl file; the same
command goes on after the last row.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from dragoman.core.escaping import visible
from dragoman.core.protocols import silent
from dragoman.core.records import Measurement
from dragoman.core.settings import Settings
from dragoman.evals.rows import EvalRow, complete, kept_rows, read_rows
from dragoman.evals.telling import publish
from dragoman.tools.editing.biographies import load_occupations
from dragoman.tools.editing.detection.correction import corrected, measure_correction
from dragoman.tools.editing.detection.editors import train_directions
from dragoman.tools.editing.detection.measuring import measure
from dragoman.tools.editing.detection.occupations import study_occupations
from dragoman.tools.editing.detection.study import EDIT_DEPTH
from dragoman.tools.editing.detection.trial import judge
from dragoman.tools.editing.entailment import implied_pairs, measure_entailment, measure_shifts
from dragoman.tools.editing.knowledge import probe_knowledge
from dragoman.tools.editing.properties import load_properties
from dragoman.tools.editing.records import swap_objects
from dragoman.tools.registry import tools_digest
from dragoman.tools.subjects.huggingface import DEFAULT_SUBJECT, load_subject
from dragoman.tools.subjects.language import LanguageSubject

Part: TypeAlias = Literal["occupations", "entailment"]
PARTS: tuple[Part, ...] = ("occupations", "entailment")


class Row(EvalRow):
    """One part on one seed."""

    part: Part
    seed: int
    subject: str
    """Its digest."""
    layer: int
    seconds: float
    """Of CPU time."""
    code: str
    """Digest of the tools that counted."""
    measurements: tuple[Measurement, ...]

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes two rows the same piece of work."""
        return (self.part, self.seed, self.subject)

    @property
    def told(self) -> str:
        """The part, the seed and what it took."""
        return f"{self.part}, seed {self.seed}: {self.seconds:.0f} s"


def run_occupations(subject: LanguageSubject, layer: int, seed: int) -> list[Measurement]:
    """Detection and correction with the biography in context, and correction without it."""
    study = study_occupations(subject, load_occupations(), layer, seed, silent)
    found = []
    for where, trial in (
        ("with the biography", study.in_context),
        ("without the biography", study.without_context),
    ):
        judged = judge(trial, 40, seed, silent)
        rows = trial.tested
        measured, controls = measure(
            judged.tested(rows),
            trial.wrong[rows],
            [trial.asked.groups[at] for at in rows],
            judged.control,
            seed,
        )
        after = corrected(
            subject, trial, rows, study.directions[rows], study.layer, judged.risks, seed
        )
        accuracy, beside = measure_correction(after)
        found += [
            each.model_copy(update={"scope": f"{where}{': ' if each.scope else ''}{each.scope}"})
            for each in (*measured, accuracy, *controls, *beside)
        ]
    return found


def run_entailment(subject: LanguageSubject, layer: int, seed: int) -> list[Measurement]:
    """Every entity of the properties set that the editor did not see, one new kind each."""
    properties = load_properties()
    knowledge = probe_knowledge(
        subject, properties.relation, max_facts=200, max_templates=3, seed=seed
    )
    # Samples stand round-robin over the kinds: both parts hold every kind.
    n_seen = len(knowledge.facts) * 2 // 5
    seen, held = knowledge.facts[:n_seen], knowledge.facts[n_seen:]
    editor = train_directions(subject, knowledge, seen, layer, seed, silent)
    records = swap_objects(held, knowledge.objects, knowledge.first_tokens, seed + 2, per_entity=1)
    shifts = [
        measure_shifts(
            subject,
            editor,
            records,
            implied_pairs(properties, records, of_another_kind=other),
            seed,
            silent,
        )
        for other in (False, True)
    ]
    measured, controls = measure_entailment(shifts[0], shifts[1], seed)
    return [*measured, *controls]


def run_part(subject: LanguageSubject, part: Part, layer: int, seed: int) -> Row:
    """One part on one seed."""
    started = time.process_time()
    run = run_occupations if part == "occupations" else run_entailment
    measured = tuple(run(subject, layer, seed))
    return Row(
        part=part,
        seed=seed,
        subject=subject.identity.digest,
        layer=layer,
        seconds=round(time.process_time() - started, 1),
        code=tools_digest(),
        measurements=measured,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.correction", description=__doc__
    )
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", type=Path, help="the jsonl file of rows")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    settings = Settings()
    path = options.rows or kept_rows("correction", settings)
    subject = load_subject(options.subject, settings)
    layer = round(EDIT_DEPTH * (subject.n_layers - 1))
    digest = subject.identity.digest
    wanted: dict[Hashable, Callable[[], Row]] = {
        (part, seed, digest): partial(run_part, subject, part, layer, seed)
        for seed in options.seeds
        for part in options.parts
    }
    chosen = complete(wanted, read_rows(path, Row), path)
    shown = f"--seeds {' '.join(map(str, options.seeds))}"
    text = render(chosen, subject.identity.name, f"python -m dragoman.evals.correction {shown}")
    publish(text, options.out)
    return 0


def render(rows: Sequence[Row], subject: str, command: str) -> str:
    """One line for each measurement."""
    lines = [
        f"# Correction and entailment on {visible(subject, one_line=True)}",
        "",
        "Occupations: biographies of people, and cues, that the editor never saw; published for "
        "GPT-J on Bias in Bios: accuracy .55 before, .71 after with the biography in context, .05 "
        "and above .5 without. Entailment: Pearson correlation of stated implications with the "
        "shift of each property's log-probability under an edit of the entity's kind.",
        "",
        "| part | seed | measure | scope | value [95%] | control | n |",
        "|---|---:|---|---|---|---|---:|",
    ]
    for row in rows:
        for each in row.measurements:
            low, high = each.ci95
            lines.append(
                f"| {row.part} | {row.seed} | {each.metric} | {each.scope} | "
                f"{each.value:.2f} [{low:.2f}, {high:.2f}] | {each.baseline:.2f} {each.control} | "
                f"{each.n} |"
            )
    seconds = sum(row.seconds for row in rows)
    return "\n".join([*lines, "", f"Made by `{command}`: {seconds:.0f} s of CPU time.", ""])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # stopped: every finished row is kept
        sys.exit(main())
    sys.exit(130)
