"""How fast a relation's maps are estimated and swept, as ratios within one run.

`python -m dragoman.evals.circuit_speed --out docs/evals/circuit_speed.md` measures, on the same
prompts and the same machine: all layers from one batched reverse sweep, against a batched Jacobian
for each layer with a cached prefix, against the `linear-relational` package layer by layer (with
`--library PYTHON`, an interpreter in whose environment it is installed), and against the floor of
d_model plain reverse passes over the suffix; then the rank and beta sweeps against loops that try
one sample at a time. Maps must agree within `TOLERANCE`. Exit code 1 when a goal is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dragoman.core.escaping import visible
from dragoman.core.settings import Settings
from dragoman.evals.circuit_speed_rivals import (
    edit_one_by_one,
    floor,
    per_layer,
    read_one_by_one,
    run_library,
)
from dragoman.evals.telling import publish
from dragoman.tools.circuits.approximation import estimate_from, invert
from dragoman.tools.circuits.causality import Bench, Pairs, pair_up
from dragoman.tools.circuits.jacobian import COPIES
from dragoman.tools.circuits.prompts import (
    RelationPrompt,
    leave_one_out,
    relation_prompt,
    round_robin,
)
from dragoman.tools.circuits.selection import BETAS, sweep_reading
from dragoman.tools.circuits.study import PLANS, gather_facts
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.huggingface import DEFAULT_SUBJECT, load_subject
from dragoman.tools.subjects.language import LanguageSubject

TOLERANCE = 1e-4
_LOOPED = 24
"""Edits and readings that a one-sample loop is timed on; its whole sweep is scaled up from them."""


class Row(NamedTuple):
    """One comparison."""

    what: str
    ours: float
    """Processor seconds, for the same work as `theirs`."""
    theirs: float
    goal: str
    met: bool
    remark: str = ""

    @property
    def ratio(self) -> float:
        """How many times as long the other takes."""
        return self.theirs / self.ours


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    # Of the processor, not of the clock: others who use the machine do not change it much.
    started = time.process_time()
    result = run()
    return time.process_time() - started, result


def sweep_rows(
    subject: LanguageSubject, prompts: Sequence[RelationPrompt], library: str | None, options: Any
) -> list[Row]:
    """The estimation, against each rival."""
    layers = list(range(subject.n_layers - 1))
    ours, plain = 0.0, 0.0
    for prompt in prompts:  # in turns, so that both meet the same machine
        took, _ = _timed(partial(estimate_from, subject, [prompt], layers))
        ours += took
        took, _ = _timed(partial(floor, subject, [prompt], subject.d_model))
        plain += took
    each = ours / len(prompts)
    rows = []

    compared = layers[:: options.layer_stride]
    took, jacobians = _timed(
        lambda: {layer: per_layer(subject, prompts[0], layer) for layer in compared}
    )
    alone = estimate_from(subject, prompts[:1], compared)
    error = max(_difference(alone.maps[layer].weight, jacobians[layer]) for layer in compared)
    whole = took * len(layers) / len(compared)
    rows.append(
        Row(
            "all layers against a batched Jacobian for each layer, prefix cached (one example)",
            each,
            whole,
            ">= 8",
            whole / each >= 8 and error <= TOLERANCE,
            f"every {options.layer_stride}. layer timed; largest relative difference {error:.1e}",
        )
    )
    rows.append(
        Row(
            "all layers against d_model plain reverse passes over the suffix",
            ours,
            plain,
            "ours at most 1.3 times it",
            ours / plain <= 1.3,
            f"ours takes {ours / plain:.2f} times the floor",
        )
    )
    if library is not None:
        rows.append(_library_row(subject, prompts, library, options, each))
    return rows


def _library_row(
    subject: LanguageSubject,
    prompts: Sequence[RelationPrompt],
    library: str,
    options: Any,
    each: float,
) -> Row:
    used = list(prompts[: options.library_examples])
    wanted = options.library_layers
    found = run_library(subject, used, wanted, library)
    mine = estimate_from(subject, used, sorted(wanted)).maps
    error = max(
        max(_difference(mine[layer].weight, found.weights[layer]) for layer in wanted),
        max(_difference(mine[layer].bias, found.biases[layer]) for layer in wanted),
    )
    # Its time falls with the layer: the mean of layers spread evenly stands for all.
    whole = sum(found.seconds.values()) / len(wanted) * (subject.n_layers - 1) / len(used)
    listed = ", ".join(f"{layer}: {found.seconds[layer]:.0f} s" for layer in wanted)
    return Row(
        "all layers against the linear-relational package, layer by layer (one example)",
        each,
        whole,
        ">= 20",
        whole / each >= 20 and error <= TOLERANCE,
        f"{found.versions}; {len(used)} example(s) at layers {listed}; "
        f"largest relative difference {error:.1e}",
    )


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def tuning_rows(subject: LanguageSubject, relation: str, layer: int) -> list[Row]:
    """The rank and beta sweeps at one layer, against loops over one sample at a time."""
    loaded = load_relation(relation)
    plan = PLANS["full"]
    facts = gather_facts(subject, loaded, plan, 0)
    template = loaded.prompt_templates[0]
    fitted = estimate_from(subject, leave_one_out(template, facts.estimation[:2]), [layer])
    relation_map = fitted.maps[layer]
    known = facts.known_among(range(len(facts.samples)))
    pairs = pair_up(facts.samples, known, facts.said.texts, 0)
    ranks = list(range(8, 257, 8))
    bench = Bench(subject, facts.prompts, facts.readout, facts.samples, facts.first)

    def edit_all() -> None:
        shifts = invert(relation_map, max(ranks)).shifts(bench.changes(pairs), ranks)
        repeated = Pairs(pairs.sources * len(ranks), pairs.targets * len(ranks))
        bench.edit(repeated, layer, shifts.flatten(0, 1))

    def read_all() -> None:
        sweep_reading(
            subject,
            {layer: relation_map},
            facts.readout.entity[:, known],
            facts.of(known),
            facts.first[known],
            lambda layer: None,
        )

    rows = []
    n_edits, n_readings = len(ranks) * len(pairs.sources), len(BETAS) * len(known)
    ours, _ = _timed(edit_all)
    shifts = invert(relation_map, 64).shift(bench.changes(pairs), 64)
    prompts = [
        relation_prompt(template, facts.estimation, facts.samples[source].subject)
        for source in pairs.sources
    ]
    looped, _ = _timed(lambda: edit_one_by_one(subject, prompts, layer, shifts, _LOOPED))
    theirs = looped / _LOOPED * n_edits
    rows.append(
        Row(
            f"rank sweep: {n_edits} edits ({len(ranks)} ranks), against one edit at a time",
            ours,
            theirs,
            ">= 20",
            theirs / ours >= 20,
            f"the loop timed on {_LOOPED} edits",
        )
    )
    ours, _ = _timed(read_all)
    samples = facts.of(known)
    prompts = [relation_prompt(template, facts.estimation, each.subject) for each in samples]
    looped, _ = _timed(
        lambda: read_one_by_one(subject, prompts, samples, layer, relation_map, _LOOPED)
    )
    theirs = looped / _LOOPED * n_readings
    rows.append(
        Row(
            f"beta sweep: {n_readings} readings ({len(BETAS)} betas), against one at a time",
            ours,
            theirs,
            ">= 20",
            theirs / ours >= 20,
            f"the loop timed on {_LOOPED} readings",
        )
    )
    return rows


_INTRODUCTION = """# Speed of circuit approximation

Ratios of processor time within one run, on {subject} ({n_layers} layers, d_model {d_model}),
relation `{relation}`, {n_examples} examples, {threads} thread(s). *Ratio*: how many times as long
the other way takes for the same work.

| what | ours, s | the other, s | ratio | goal | met | |
|---|---:|---:|---:|---|---|---|
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the table; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.circuit_speed", description=__doc__
    )
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--relation", default="country_capital")
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--layer-stride", type=int, default=4, help="layers timed one by one")
    parser.add_argument("--library", help="Python of an environment with linear-relational")
    parser.add_argument("--library-layers", type=int, nargs="+", default=[2, 14, 26])
    parser.add_argument("--library-examples", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    subject = load_subject(options.subject, Settings())
    loaded = load_relation(options.relation)
    examples = round_robin(loaded.samples, 0)[: options.examples]
    prompts = leave_one_out(loaded.prompt_templates[0], examples)
    floor(subject, prompts[:1], COPIES)  # warm up: the first pass of a process is slower
    rows = sweep_rows(subject, prompts, options.library, options)
    rows += tuning_rows(subject, options.relation, subject.n_layers // 2)
    command = " ".join(["python -m dragoman.evals.circuit_speed", *_shown(options)])
    head = _INTRODUCTION.format(
        subject=visible(subject.identity.name, one_line=True),
        n_layers=subject.n_layers,
        d_model=subject.d_model,
        relation=loaded.name,
        n_examples=len(prompts),
        threads=torch.get_num_threads(),
    )
    text = head + "\n".join(_line(row) for row in rows) + f"\n\nMade by `{command}`.\n"
    publish(text, options.out)
    return 0 if all(row.met for row in rows) else 1


def _shown(options: argparse.Namespace) -> list[str]:
    shown = [f"--examples {options.examples}", f"--layer-stride {options.layer_stride}"]
    if options.library is not None:
        layers = " ".join(map(str, options.library_layers))
        shown.append(f"--library PYTHON --library-layers {layers}")
        shown.append(f"--library-examples {options.library_examples}")
    return shown


def _line(row: Row) -> str:
    met = "yes" if row.met else "NO"
    return (
        f"| {row.what} | {row.ours:.2f} | {row.theirs:.1f} | {row.ratio:.1f} | {row.goal} "
        f"| {met} | {row.remark} |"
    )


if __name__ == "__main__":
    sys.exit(main())
