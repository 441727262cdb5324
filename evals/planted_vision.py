"""Are planted vision units described by what they do? Thirty rules, their rivals, two controls.

    python -m dragoman.evals.planted_vision --out docs/evals/planted_vision.md

A network whose thirty units follow rules that were written down
(`tools/subjects/planted_vision.py`) is captioned as `caption_neurons` captions it, without any
other proposer, on scenes of two objects. A unit is *recovered* if it is given a caption and the
caption's predictions agree with the rule on fresh scenes: balanced accuracy of at least .9 over all
fresh scenes, and once more where the only scenes without the rule are its *rivals*, those that show
all that the rule asks for, but not on one object (or with what it forbids). How the caption is
worded makes no difference.

Three controls. Of the same units with each one's maps dealt to other scenes, of the subject's
rivals and of what were planted units in the twin (active at places drawn at random, whatever stands
there: on nothing that has a name) every caption is a false claim. Units of a network with random
weights may well respond to something that has a name: of these a caption is false if on fresh
scenes it predicts the unit's own activity no better than chance.

Rows are kept in a folder as they are made, so that a run that was stopped goes on.
"""

import argparse
import functools
import io
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from dragoman.core.files import write_atomic
from dragoman.core.records import Record, content_id
from dragoman.core.settings import Settings
from dragoman.evals.planted_vision_table import Outcome, Trial, render
from dragoman.evals.planted_vision_truth import balanced_accuracy, rival, truth
from dragoman.evals.telling import publish, say
from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.scoring import detect, scorable
from dragoman.tools.captioning.vision.bench import VisionBench, bench_of, split_of
from dragoman.tools.captioning.vision.captioner import Chosen
from dragoman.tools.captioning.vision.describing import best_of, choose_all, propose_all
from dragoman.tools.captioning.vision.images import ImageSet
from dragoman.tools.captioning.vision.patches import PATCHES, PatchTable, in_images, patch_table
from dragoman.tools.captioning.vision.scores import VisionAssessment, assess_bench
from dragoman.tools.captioning.vision.survey import Asked, Read, Survey, survey
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tools_digest
from dragoman.tools.subjects.planted_scenes import scene
from dragoman.tools.subjects.planted_vision import (
    N_UNITS,
    UNIT_LAYER,
    PlantedVisionUnit,
    planted_vision,
)
from dragoman.tools.subjects.vision import VisionLayer, VisionSubject
from dragoman.tools.subjects.vision_twin import random_vision_twin

R = TypeVar("R", bound=Record)
RECOVERED = 0.9
SEEDS = (3, 4, 5)
"""The concepts were made while looking at seeds 0 to 2."""
N_SCENES = 480
N_FRESH = 240
_FRESH = 1_000_000
"""Scenes from this number on are fresh."""


class Laboratory:
    """One seed's network, the scenes that it is captioned on, and fresh ones."""

    def __init__(self, seed: int, home: Path, n_scenes: int, n_fresh: int) -> None:
        self.seed = seed
        self.planted = planted_vision(seed)
        subject = self.planted.subject
        # The planted properties are no things: the labeller stays out of it.
        self.context = ToolContext(
            subject, seed, home, home / "artifacts", home / "cache", weights=home / "no-weights"
        )
        self.columns = [unit.unit for unit in self.planted.units] + list(self.planted.rivals)
        networks = (subject, self.planted.twin, random_vision_twin(subject, seed))
        every = [row * N_UNITS + unit for row in range(len(networks)) for unit in self.columns]
        asked = Asked(_together(networks), 0, every)
        self.seen = _looked_at(self.context, _scenes(seed, 0, n_scenes), asked, home)
        self.split = split_of(self.context, self.seen)
        self.own, self.twin, self.random = _apart(self.seen.read[0])
        later = _looked_at(self.context, _scenes(seed, _FRESH, n_fresh), asked, home)
        self.fresh: PatchTable = later.table
        self.fresh_random = _apart(later.read[0])[2].activations
        self.objects = [scene(seed, _FRESH + number).objects for number in range(n_fresh)]

    def bench(self, read: Read, n_units: int) -> VisionBench:
        """As the tool lays units out, with these activations."""
        seen: Survey = self.seen._replace(read=(read,))
        units = self.columns[:n_units]
        return bench_of(
            self.context,
            seen,
            self.split,
            UNIT_LAYER,
            units,
            self.columns,
            place=0,
            twin_place=None,
        )


class _Heads(nn.Module):
    """The units of several planted networks over the properties that all of them measure alike."""

    def __init__(self, networks: Sequence[VisionSubject]) -> None:
        super().__init__()
        self.properties = networks[0].model.get_submodule("properties")
        self.heads = nn.ModuleList(each.model.get_submodule("units") for each in networks)

    def forward(self, pixels: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch units h w"]:
        """Activations of the first network's units, of the second's, and so on."""
        properties = self.properties(pixels)
        return torch.cat([head(properties) for head in self.heads], dim=1)


def _together(networks: Sequence[VisionSubject]) -> VisionSubject:
    first = networks[0]
    n_units = N_UNITS * len(networks)
    return VisionSubject(
        nn.Sequential(_Heads(networks)),
        first.identity.name,
        layers=[VisionLayer("0", n_units, first.grid(UNIT_LAYER))],
        preprocessing=first.preprocessing,
        n_classes=first.n_classes,
    )


def _looked_at(context: ToolContext, images: ImageSet, asked: Asked, home: Path) -> Survey:
    """A survey whose activations are kept, so that a slice of the eval need not run them again."""
    path = home / f"{content_id([images.digest, asked.units, tools_digest()])[:24]}.npz"
    if not path.is_file():
        found = survey(context, images, [asked], None)
        written = io.BytesIO()
        np.savez_compressed(written, allow_pickle=False, **found.read[0]._asdict())
        write_atomic(path, written.getvalue())
        return found
    with np.load(path, allow_pickle=False) as kept:
        read = Read(kept["activations"], kept["peaks"])
    views = [asked.subject.view(images.load(number)) for number in range(len(images))]
    table = patch_table(views, labeller=None, cache=context.cache)
    return Survey(images, table, (read,), n_failed=0)


def _apart(read: Read) -> list[Read]:
    """What was read of each network; peaks come in the order of its units."""
    return [
        Read(read.activations[:, start : start + N_UNITS], read.peaks[:, start : start + N_UNITS])
        for start in range(0, read.activations.shape[1], N_UNITS)
    ]


def _scenes(seed: int, first: int, n: int) -> ImageSet:
    return ImageSet(
        ids=tuple(f"scene-{first + number}" for number in range(n)),
        labels=(None,) * n,
        digest=f"scenes of seed {seed} from {first}, {n}",
        description=f"{n} scenes of two objects",
        decode=lambda number: Image.fromarray(scene(seed, first + number).pixels),
    )


class _Planted(Record):
    """What became of the planted units."""

    with_pmi: tuple[Outcome, ...]
    without_pmi: tuple[Outcome, ...]
    units_per_second: float


class _Claims(Record):
    """Captions of units without a rule; '' where none was claimed, or where it is true."""

    false: tuple[str, ...]
    n_claims: int


def evaluate(seed: int, rows: Path, n_scenes: int, n_fresh: int, report: partial[None]) -> Trial:
    """All units of one seed, with and without PMI, and the controls; `rows` keeps each part."""
    folder = rows / f"{seed}-{n_scenes}-{n_fresh}-{tools_digest()[:12]}"

    @functools.cache
    def laboratory() -> Laboratory:
        return Laboratory(seed, rows, n_scenes, n_fresh)

    def part(name: str, kind: type[R], make: Callable[[Laboratory], R]) -> R:
        path = folder / f"{name}.json"
        if path.is_file():
            return kind.model_validate_json(path.read_bytes())
        made = make(laboratory())
        write_atomic(path, made.model_dump_json())
        report(f"seed {seed}: {name}")
        return made

    planted = part("planted", _Planted, _planted)
    n_planted = len(planted.with_pmi)
    dealt = part("dealt", _Claims, lambda at: _claims(at, _dealt(at.own.activations, seed)))
    # Beside the planted units themselves, so that floors are what they are for them.
    rivals = part("rivals", _Claims, lambda at: _claims(at, at.own)).false[n_planted:]
    exchanged = part("twin", _Claims, lambda at: _claims(at, at.twin)).false[:n_planted]
    random_ = part("random", _Claims, _false_of_random)
    return Trial(
        seed=seed,
        with_pmi=planted.with_pmi,
        without_pmi=planted.without_pmi,
        shuffled=dealt.false,
        nameless=(*rivals, *exchanged),
        random=random_.false,
        n_random_claims=random_.n_claims,
        units_per_second=planted.units_per_second,
    )


def _planted(laboratory: Laboratory) -> _Planted:
    units = laboratory.planted.units
    bench = laboratory.bench(laboratory.own, len(units))
    began = time.process_time()
    proposed, _, _ = propose_all(laboratory.context, bench)
    chosen = {pmi: best_of(bench.captioner, proposed, pmi=pmi) for pmi in (True, False)}
    with_pmi = _outcomes(laboratory, bench, units, chosen[True])
    seconds = time.process_time() - began
    return _Planted(
        with_pmi=with_pmi,
        without_pmi=_outcomes(laboratory, bench, units, chosen[False]),
        units_per_second=len(units) / seconds,
    )


def _claims(laboratory: Laboratory, read: Read) -> _Claims:
    said = tuple(_caption(each) for each in _captioned(laboratory, read))
    return _Claims(false=said, n_claims=sum(map(bool, said)))


def _false_of_random(laboratory: Laboratory) -> _Claims:
    claims = _captioned(laboratory, laboratory.random)
    return _Claims(
        false=tuple(
            _caption(each) if each is not None and _is_false(laboratory, each, unit) else ""
            for unit, each in enumerate(claims)
        ),
        n_claims=sum(each is not None for each in claims),
    )


def _outcomes(
    laboratory: Laboratory,
    bench: VisionBench,
    units: Sequence[PlantedVisionUnit],
    chosen: Sequence[Chosen | None],
) -> tuple[Outcome, ...]:
    found = assess_bench(bench, chosen, None, effort="full", seed=laboratory.seed)
    outcomes = []
    for unit, each, scored in zip(units, chosen, found, strict=True):
        holds = truth(laboratory.objects, unit.rule)
        accuracy = apart = None
        if each is not None:
            said = laboratory.fresh.counts(each.candidate.concept) >= each.extent
            accuracy = balanced_accuracy(said, holds)
            apart = balanced_accuracy(said, holds, rival(laboratory.objects, unit.rule))
        claimed = scored is not None and scored.holds
        right = accuracy is not None and accuracy >= RECOVERED
        told_apart = apart is None or apart >= RECOVERED
        outcomes.append(
            Outcome(
                name=unit.name,
                composed=unit.composed,
                caption="" if each is None else each.candidate.caption,
                claimed=claimed,
                accuracy=accuracy,
                apart=apart,
                detection=_value(scored, "detection"),
                floor=None if scored is None else scored.measurements[0].baseline,
                fuzzing=_value(scored, "fuzzing"),
                simulation=_value(scored, "simulation"),
                recovered=claimed and right and told_apart,
                n_senses=0 if each is None else len(each.senses),
            )
        )
    return tuple(outcomes)


def _value(scored: VisionAssessment | None, metric: str) -> float | None:
    found = () if scored is None else scored.measurements
    return next((each.value for each in found if each.metric == metric), None)


class _Claim(NamedTuple):
    """A caption that is given to a unit, and from which activation on the unit counts as active."""

    chosen: Chosen
    threshold: float


def _captioned(laboratory: Laboratory, read: Read) -> list[_Claim | None]:
    """What is claimed of all units with these activations."""
    bench = laboratory.bench(read, N_UNITS)
    chosen = choose_all(laboratory.context, bench).chosen
    found = assess_bench(bench, chosen, None, effort="full", seed=laboratory.seed)
    return [
        _Claim(each, float(bench.captioner.thresholds[unit]))
        if each is not None and scored is not None and scored.holds
        else None
        for unit, (each, scored) in enumerate(zip(chosen, found, strict=True))
    ]


def _caption(claim: _Claim | None) -> str:
    return "" if claim is None else claim.chosen.candidate.caption


def _is_false(laboratory: Laboratory, claim: _Claim, unit: int) -> bool:
    """On fresh scenes the caption tells no better than chance where the random unit is active."""
    said = laboratory.fresh.counts(claim.chosen.candidate.concept) >= claim.chosen.extent
    active = in_images(laboratory.fresh_random[:, unit] > claim.threshold)
    sample = Sample(np.flatnonzero(active), np.flatnonzero(~active), np.flatnonzero(~active))
    return not scorable(sample) or detect(said, sample).interval().low <= 0.5


def _dealt(activations: Float[ndarray, "places units"], seed: int) -> Read:
    """Each unit's maps dealt to other scenes: as clumped as before, and about nothing."""
    generator = np.random.default_rng([seed, 7])
    by_scene = activations.reshape(-1, PATCHES, activations.shape[1])
    dealt = np.stack(
        [by_scene[generator.permutation(len(by_scene)), :, unit] for unit in range(N_UNITS)],
        axis=-1,
    )
    return Read(dealt.reshape(activations.shape), dealt.max(axis=1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the eval; 0 when the goals are reached, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.planted_vision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--scenes", type=int, default=N_SCENES)
    parser.add_argument("--fresh", type=int, default=N_FRESH, help="fresh scenes a seed")
    parser.add_argument("--rows", type=Path, help="keep what is finished of each seed here")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    rows = options.rows or Settings().cache_folder / "evals" / "planted_vision"
    report = partial(say, sys.stderr)
    trials = []
    for seed in options.seeds:
        trials.append(evaluate(seed, rows, options.scenes, options.fresh, report))
    text, reached = render(trials, options.scenes, options.fresh)
    publish(text, options.out)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
