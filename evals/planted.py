"""The three methods on a network whose truth is known, and on its twin that holds none of it.

`python -m dragoman.evals.planted` plants a subject (`tools/subjects/planted.py`), runs
`approximate_relation`, `edit_representation` and `caption_neurons` on it and on the twin exactly as
the agent would, compares what they say with what was planted, and writes a table. It ends with exit
code 1 when something planted was not found, or something was found that is not there.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor

from dragoman.core.records import Measurement, ToolResult
from dragoman.evals.planted_table import Row, Table, render
from dragoman.evals.telling import publish, say
from dragoman.tools import statistics
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.circuits.jacobian import expand
from dragoman.tools.circuits.prompts import leave_one_out
from dragoman.tools.circuits.tool import approximate_relation
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.tool import edit_representation
from dragoman.tools.registry import Effort, Tool
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted import Planted, plant

N_JACOBIANS = 6
ZERO = 1e-4
"""A Jacobian smaller than this, relative to the planted map, is rounding."""
N_DECOYS = 10
"""Neurons with nothing to say that are captioned beside the planted units."""


class Laboratory:
    """Runs tools on the planted subject and on its twin, with one seed."""

    def __init__(self, planted: Planted, home: Path, effort: Effort, seed: int) -> None:
        self.planted, self.home, self.effort, self.seed = planted, home, effort, seed
        self.relations = planted.write_relations(home / "relations")

    def run(self, tool: Tool, subject: LanguageSubject, **arguments: JsonValue) -> ToolResult:
        """One tool call, checked and carried out as the agent's calls are."""
        given = tool.parse({**arguments, "effort": self.effort})
        experiment = tool.experiment(given, subject_digest=subject.identity.digest, seed=self.seed)
        context = ToolContext(
            network=subject,
            seed=self.seed,
            home=self.home,
            artifacts=self.home / "artifacts" / experiment.id,
            cache=self.home / "cache",
        )
        return tool.run(context, experiment)

    def both(self, tool: Tool, **arguments: JsonValue) -> tuple[ToolResult, ToolResult]:
        """The same call on the subject and on the twin."""
        planted = self.planted
        return (
            self.run(tool, planted.subject, **arguments),
            self.run(tool, planted.twin, **arguments),
        )


def circuits(laboratory: Laboratory) -> Iterator[Row]:
    """Is the planted map found, and only where it is?"""
    planted, truth = laboratory.planted, laboratory.planted.truth
    layers = ", ".join(map(str, truth.linear_layers))
    yield Row(
        "approximate_relation",
        f"matrix of rank {truth.linear_rank} at layers {layers}",
        "cosine of the Jacobian with it",
        True,
        _map_cosine(planted, planted.subject, laboratory.seed),
        _map_cosine(planted, planted.twin, laboratory.seed),
    )
    subject, twin = laboratory.both(
        approximate_relation, relation=str(laboratory.relations["linear"])
    )
    for metric, key in (("faithfulness", "layer"), ("causality", "edit_layer")):
        yield Row(
            "approximate_relation",
            f"linear relation ({truth.linear.prompt_templates[0]!r})",
            metric,
            True,
            subject.measurement(metric),
            twin.measurement(metric),
            f"layer chosen: {_chosen(subject, key)}",
        )
    for role in ("looked_up", "absent"):
        relation = getattr(truth, role)
        on_subject = laboratory.run(
            approximate_relation, planted.subject, relation=str(laboratory.relations[role])
        )
        yield Row(
            "approximate_relation",
            f"{role.replace('_', ' ')} relation ({relation.prompt_templates[0]!r})",
            "faithfulness",
            False,
            on_subject.measurement("faithfulness"),
            None,
            _declined(on_subject, "faithfulness"),
        )


def editing(laboratory: Laboratory) -> Iterator[Row]:
    """Do edits take hold where attributes are stored at the entity, and only there?"""
    truth = laboratory.planted.truth
    subject, twin = laboratory.both(
        edit_representation, relation=str(laboratory.relations["linear"])
    )
    yield Row(
        "edit_representation",
        f"attribute stored at the entity ({truth.linear.prompt_templates[0]!r})",
        "efficacy",
        True,
        subject.measurement("efficacy"),
        twin.measurement("efficacy"),
        _declined(twin, "efficacy"),
    )
    yield Row(
        "edit_representation",
        "the cue reads one creature; an edit of another that is mentioned leaves it alone",
        "neighbourhood_specificity",
        True,
        subject.measurement("neighbourhood_specificity"),
        twin.measurement("neighbourhood_specificity"),
    )
    looked_up = laboratory.run(
        edit_representation,
        laboratory.planted.subject,
        relation=str(laboratory.relations["looked_up"]),
    )
    yield Row(
        "edit_representation",
        f"attribute stored elsewhere ({truth.looked_up.prompt_templates[0]!r})",
        "efficacy",
        False,
        looked_up.measurement("efficacy"),
        None,
        _declined(looked_up, "efficacy"),
    )


def captioning(laboratory: Laboratory) -> Iterator[Row]:
    """Are the planted units described, and no others?"""
    truth = laboratory.planted.truth
    decoys = truth.decoys[:N_DECOYS]
    neurons: list[JsonValue] = [*(unit.neuron for unit in truth.units), *decoys]
    subject, twin = laboratory.both(caption_neurons, layer=truth.unit_layer, neurons=neurons)
    for unit in truth.units:
        scope = f"unit {truth.unit_layer}.{unit.neuron}"
        yield Row(
            "caption_neurons",
            f"unit {truth.unit_layer}.{unit.neuron} fires on {unit.name}",
            "detection",
            True,
            subject.measurement("detection", scope),
            twin.measurement("detection", scope),
            f"caption: {_caption(subject, unit.neuron)}",
        )
    yield _decoys(laboratory, decoys, subject)


def _decoys(laboratory: Laboratory, decoys: Sequence[int], result: ToolResult) -> Row:
    layer = laboratory.planted.truth.unit_layer
    scores = [result.measurement("detection", f"unit {layer}.{neuron}") for neuron in decoys]
    scored = [score for score in scores if score is not None]
    named = sum(_caption(result, neuron) is not None for neuron in decoys)
    mean_detection = None
    if scored:
        mean_detection = statistics.mean(
            "mean detection",
            [score.value for score in scored],
            unit="fraction",
            baseline_samples=[score.baseline for score in scored],
            control="shuffled captions",
            seed=laboratory.seed,
            n_failed=len(decoys) - len(scored),
        )
    return Row(
        "caption_neurons",
        f"{len(decoys)} units that fire on nothing nameable",
        "mean detection",
        False,
        mean_detection,
        None,
        f"{named} of {len(decoys)} given a caption, {len(scored)} had one to score",
    )


def _map_cosine(planted: Planted, subject: LanguageSubject, seed: int) -> Measurement:
    """Jacobians at a layer where the map is exact against the map, one value a prompt."""
    relation, layer = planted.truth.linear, planted.truth.linear_layers[-1]
    prompts = leave_one_out(relation.prompt_templates[0], relation.samples[:N_JACOBIANS])
    found_maps = [
        expand(subject, prompt, first_layer=layer, last_layer=layer).jacobian[0]
        for prompt in prompts
    ]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(planted.relation_map.shape[0], generator=generator)
    return statistics.mean(
        "map_cosine",
        [_cosine(each, planted.relation_map) for each in found_maps],
        unit="cosine",
        baseline_samples=[_cosine(each, planted.relation_map[order]) for each in found_maps],
        control="the planted map with its rows shuffled",
        seed=seed,
    )


def _cosine(first: Tensor, second: Tensor) -> float:
    """Of two matrices as vectors; 0 where one of them is zero up to rounding."""
    size = float(first.norm() * second.norm())
    if float(first.norm()) < ZERO * float(second.norm()):
        return 0.0
    return float((first * second).sum()) / size


def _caption(result: ToolResult, neuron: int) -> str | None:
    captions = result.output.get("captions")
    for entry in captions if isinstance(captions, list) else []:
        if isinstance(entry, dict) and str(entry["unit"]).endswith(f".{neuron}"):
            caption = entry["caption"]
            return None if caption is None else str(caption)
    return None


def _chosen(result: ToolResult, key: str) -> str:
    chosen = result.output.get("chosen")
    return str(chosen.get(key)) if isinstance(chosen, dict) else "none"


def _declined(result: ToolResult, metric: str) -> str:
    """What the tool said where it gave no number."""
    return "" if result.measurement(metric) else result.summary


def evaluate(seed: int, effort: Effort, home: Path, report: Callable[[str], None]) -> Table:
    """All rows for the subject planted with `seed`; `report` is told of each as it is there."""
    laboratory = Laboratory(plant(seed), home, effort, seed)
    rows: list[Row] = []
    for part in (circuits, editing, captioning):
        for row in part(laboratory):
            rows.append(row)
            report(f"seed {seed}: {row.method}: {row.planted}: {row.metric}")
    return Table(seed, tuple(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the eval; 0 when every row is as it has to be, else 1."""
    parser = argparse.ArgumentParser(prog="python -m dragoman.evals.planted", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one subject for each")
    parser.add_argument("--effort", choices=("quick", "full"), default="full")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument(
        "--save", type=Path, help="only save subject, twin, relations and truth to this folder"
    )
    options = parser.parse_args(arguments)
    if options.save is not None:
        plant(options.seeds[0]).save(options.save)
        return 0
    started = time.monotonic()
    tables = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="dragoman-planted-") as folder:
            home = Path(folder)
            tables.append(evaluate(seed, options.effort, home, partial(say, sys.stderr)))
    seeds = " ".join(map(str, options.seeds))
    command = f"python -m dragoman.evals.planted --seeds {seeds} --effort {options.effort}"
    text = render(tables, command, time.monotonic() - started)
    publish(text, options.out)
    return 1 if any(table.faults for table in tables) else 0


if __name__ == "__main__":
    sys.exit(main())
