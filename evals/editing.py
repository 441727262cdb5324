"""How far representation editing reaches on one subject, relation by relation, beside GPT-J's.

`python -m dragoman.evals.editing --out docs/evals/editing.md` trains an editor for each relation,
judges it on entities that it never saw, beside every baseline, and sweeps layers and strengths
(on validation entities) where a goal is missed. Each finished relation is one line of a jsonl
file: stopped at any moment, the same command goes on after the last line. All relations are judged
first and then swept; `--no-sweep` leaves the sweeps for later.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path

from dragoman.core.errors import ToolError
from dragoman.core.settings import Settings
from dragoman.evals.editing_row import Row
from dragoman.evals.editing_table import missed, render
from dragoman.evals.rows import complete, kept_rows, read_rows
from dragoman.evals.telling import publish
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.evaluation import evaluate, held_out_records
from dragoman.tools.editing.fitting import Plan
from dragoman.tools.editing.measuring import table
from dragoman.tools.editing.study import prepare
from dragoman.tools.editing.sweep import sweep
from dragoman.tools.editing.training import TrainingSettings
from dragoman.tools.registry import tools_digest
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.huggingface import DEFAULT_SUBJECT, load_subject

SEED = 11
"""No editor was tuned on it."""
DEVELOPED_ON = ("animal_class", "country_capital", "country_continent", "country_language")
"""Relations whose validation entities were looked at while the method was chosen: not reported."""
RELATIONS = (
    "adj_antonym",
    "adj_comparative",
    "city_in_country",
    "company_country",
    "country_demonym",
    "name_gender",
    "noun_plural",
    "occupation_gender",
    "person_native_language",
    "substance_phase",
    "verb_past_tense",
    "word_sentiment",
)
PLAN = Plan(
    depths=(0.45,),
    max_facts=40,
    max_templates=3,
    trial_records=64,
    train_records=192,
    spared_cases=16,
    max_epochs=4,
    validation_per_entity=2,
    max_validation_entities=6,
    validation_texts=5,
    validation_tokens=16,
    strengths=(1.4, 1.0, 0.7, 0.45),
    max_test_entities=12,
    test_per_entity=2,
    neighbour_records=24,
    neighbours_per_record=1,
    unrelated_per_entity=3,
    generated_prompts=10,
    generated_tokens=40,
)
"""Its own, so that rows of two versions of the tools were measured in the same way."""
SWEPT_DEPTHS = (0.1, 0.3, 0.5, 0.7)
SWEPT_STRENGTHS = (1.2, 0.8, 0.4)


def judge(ctx: ToolContext, name: str, plan: Plan) -> Row:
    """Train on one relation and measure on its held-out entities."""
    relation, started = load_relation(name), time.process_time()
    row = Row(
        relation=name,
        content=relation.content_id(),
        subject_digest=ctx.subject.identity.digest,
        seed=ctx.seed,
        code=tools_digest(),
    )
    try:
        study = prepare(ctx, relation, plan, None)
    except ToolError as error:
        return row.model_copy(update={"refused": str(error)})
    outcome = evaluate(ctx, study, held_out_records(ctx, study))
    found: dict[str, object] = {
        "layer": study.fit.layer,
        "strength": float(study.fit.editor.strength),
        "n_known": len(study.knowledge.known[study.knowledge.rewrite]),
        "n_facts": len(study.knowledge.facts),
        "n_entities": len(outcome.five.entities),
        "methods": table(outcome.comparison, outcome.scores, outcome.five),
        "measurements": outcome.measurements,
        "lead": outcome.five.lead(ctx.seed),
    }
    seconds = round(time.process_time() - started, 1)
    return row.model_copy(update={**found, "seconds": seconds})


def add_sweep(ctx: ToolContext, row: Row, plan: Plan) -> Row:
    """The row with layers and strengths swept; its editor is found again, not trained."""
    started, subject = time.process_time(), ctx.subject
    study = prepare(ctx, load_relation(row.relation), plan, None)
    layers = sorted({round(depth * (subject.n_layers - 1)) for depth in SWEPT_DEPTHS})
    settings = TrainingSettings(max_epochs=2)
    rows = sweep(
        subject,
        study.knowledge,
        study.pool,
        layers,
        SWEPT_STRENGTHS,
        study.plan,
        settings,
        ctx.seed,
        ctx.step,
    )
    seconds = round(row.seconds + time.process_time() - started, 1)
    return row.model_copy(update={"sweep": tuple(rows), "seconds": seconds})


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge what is missing, then write the table; 0 unless nothing could be judged."""
    parser = argparse.ArgumentParser(prog="python -m dragoman.evals.editing", description=__doc__)
    parser.add_argument("relations", nargs="*", default=list(RELATIONS))
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--rows", type=Path, help="the jsonl file of rows")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument(
        "--no-sweep", action="store_true", help="do not sweep where goals are missed"
    )
    parser.add_argument("--at-most", type=int, help="stop after so many relations")
    options = parser.parse_args(arguments)
    settings = Settings()
    path = options.rows or kept_rows("editing", settings)
    subject = load_subject(options.subject, settings)
    digest = subject.identity.digest
    ctx = ToolContext(
        network=subject,
        seed=options.seed,
        home=settings.home,
        artifacts=settings.home / "evals" / "editing",
        cache=settings.home / "cache",
    )
    wanted: dict[Hashable, Callable[[], Row]] = {
        (name, load_relation(name).content_id(), digest, options.seed): partial(
            judge, ctx, name, PLAN
        )
        for name in options.relations
    }
    chosen = complete(
        wanted,
        read_rows(path, Row),
        path,
        table_only=options.table_only,
        at_most=options.at_most,
    )
    if not (options.table_only or options.no_sweep):
        swept: dict[Hashable, Callable[[], Row]] = {
            row.key: partial(add_sweep, ctx, row, PLAN)
            for row in chosen
            if missed(row) and not (row.refused or row.sweep)
        }
        latest = {row.key: row for row in [*chosen, *complete(swept, [], path)]}
        chosen = list(latest.values())
    if not chosen:
        sys.stderr.write("no row to make a table of\n")
        return 1
    command = f"python -m dragoman.evals.editing --seed {options.seed}"
    if options.relations != list(RELATIONS):
        command = " ".join([command, *options.relations])
    text = render(chosen, subject=subject.identity.name, command=command)
    publish(text, options.out)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # stopped: every finished row is kept
        sys.exit(main())
    sys.exit(130)
