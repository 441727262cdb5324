"""What the default vision subject loses without the units whose captions match a concept.

    python -m dragoman.evals.class_ablation --out docs/evals/class_ablation.md

MILAN's analysis and editing uses (Hernandez et al. 2022, arXiv:2201.11114, sections 5 and 6), end
to end: units of a layer are drawn and captioned, the captions are searched for a concept, the units
found are set to zero, and accuracy on the concept's classes is measured before and after, beside as
many matched random units of the layer and beside all other classes. Concepts are what the captions
themselves name most often, so nobody chose them by the outcome; those that are no kind of thing
(stripes, grey areas) are measured on all classes.

Captions are made on one draw of the probe set and ablations measured on another: other crops and
other drawings, though of the same photographs. The pictures carry no classes of the subject; its
own answers before the ablation count as right. A run that was stopped goes on: rows of captions are
kept in the data folder.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dragoman.core.files import write_atomic
from dragoman.core.records import Measurement, ToolSuccess
from dragoman.core.settings import Settings
from dragoman.tools.captioning import batch
from dragoman.tools.captioning.atlas import Atlas
from dragoman.tools.captioning.rows import UnitCaption
from dragoman.tools.captioning.search import search
from dragoman.tools.captioning.vision.ablation import (
    METRIC,
    Gallery,
    ablate_in,
    classes_of,
    look_at,
)
from dragoman.tools.captioning.vision.batch import VisionUnits
from dragoman.tools.captioning.vision.concepts import (
    CONCEPT,
    Both,
    Concept,
    Either,
    Not,
    Somewhere,
    phrase,
)
from dragoman.tools.captioning.vision.labels import kinds
from dragoman.tools.captioning.vision.probe import probe_images
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.efficientnet import load_efficientnet

SUBJECT = "efficientnet-lite0"
MOST_UNITS, LEAST_UNITS = 64, 2


class Setting(NamedTuple):
    """What is drawn, and how much of it."""

    layer: int = 17
    n_units: int = 320
    """Captioned, of all of the layer."""
    n_images: int = 240
    """Shown for captions."""
    n_tested: int = 240
    """Shown for ablations, of another draw."""
    n_concepts: int = 5
    least: int = 8
    """Answers of a concept's classes among the tested pictures, or all classes stand in."""


class Outcome(NamedTuple):
    """One concept."""

    concept: str
    units: tuple[int, ...]
    """Whose captions are near it."""
    result: ToolSuccess | None
    """None where no caption is near the concept."""

    def measured(self, metric: str) -> Measurement:
        """One of the result's measurements or controls."""
        assert self.result is not None
        found = (*self.result.measurements, *self.result.controls)
        return next(each for each in found if each.metric == metric)

    @property
    def elsewhere(self) -> Measurement | None:
        """The loss on other classes; None where all classes were asked about."""
        assert self.result is not None
        metric = f"{METRIC}_of_other_classes"
        return next((each for each in self.result.controls if each.metric == metric), None)

    @property
    def own(self) -> bool:
        """The loss lies, by its whole interval, above what one in twenty random sets lose."""
        effect = self.measured(METRIC)
        return effect.ci95[0] > effect.baseline


def concepts(rows: Sequence[UnitCaption], most: int) -> list[str]:
    """What at least two units' captions name, most often named first."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row.caption is not None and row.predicate is not None:
            counts.update(set(_named(CONCEPT.validate_python(row.predicate))))
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return [name for name in order if counts[name] >= LEAST_UNITS][:most]


def _named(concept: Concept) -> Iterator[str]:
    """What a caption says that there is; what it says that there is not does not count."""
    match concept:
        case Not():
            return
        case Both() | Either():
            for part in concept.of:
                yield from _named(part)
        case Somewhere():
            yield phrase(concept.of)
        case _:
            yield phrase(concept)


def classes_for(concept: str, gallery: Gallery, context: ToolContext, least: int) -> list[str]:
    """The concept as a kind of things, if the pictures show enough of it; else no class by name."""
    kind = next((each for each in kinds().values() if each.plural == concept), None)
    if kind is None:
        return []
    inside = np.isin(gallery.classes, classes_of(context.vision, kind.classes))
    return [concept] if inside.sum() >= least else []


def caption_units(context: ToolContext, setting: Setting) -> list[UnitCaption]:
    """The rows of units that are drawn and captioned; they are stored for `search_neurons`."""
    order = np.random.default_rng([context.seed, 18]).permutation(
        context.vision.n_units(setting.layer)
    )
    drawn = sorted(int(unit) for unit in order[: setting.n_units])
    images = probe_images(context.seed, setting.n_images)
    units = VisionUnits(context, {setting.layer: drawn}, images, effort="quick")
    folder = context.home / "captions" / units.settings.digest[:12]
    batch.run(
        folder,
        units.settings,
        units.groups,
        partial(units.describe, folder),
        resume=(folder / batch.SETTINGS_FILE).exists(),
        on_pace=_say_pace,
    )
    rows = list(batch.read_rows(folder))
    Atlas(context.home, context.vision.identity.digest).store("class ablation", rows)
    return rows


def _say_pace(pace: batch.Pace) -> None:
    sys.stderr.write(f"\r{pace.done} of {pace.total} units")


def measure(context: ToolContext, setting: Setting, named: Sequence[str]) -> list[Outcome]:
    """Each concept's units ablated, on pictures that no caption was made on."""
    fresh = replace(context, seed=context.seed + 1)
    gallery = look_at(fresh, probe_images(fresh.seed, setting.n_tested))
    outcomes = []
    for concept in named:
        found = search(context, concept, k=MOST_UNITS, layer=setting.layer, kind="channel")
        units = tuple(match.entry.unit for match in found.matches if match.near)
        result = (
            ablate_in(
                fresh,
                gallery,
                setting.layer,
                units,
                classes=classes_for(concept, gallery, fresh, setting.least),
                effort="full",
            )
            if units
            else None
        )
        outcomes.append(Outcome(concept, units, result))
    return outcomes


def render(
    setting: Setting, rows: Sequence[UnitCaption], outcomes: Sequence[Outcome], made_by: str
) -> str:
    """The page."""
    n_rows, n_captions = len(rows), sum(row.caption is not None for row in rows)
    tried = [each for each in outcomes if each.result is not None]
    lines = [
        f"# What `{SUBJECT}` loses without the units that captions point at",
        "",
        f"{n_rows} units of layer {setting.layer}, drawn at random, were captioned on "
        f"{setting.n_images} pictures of the probe set; {n_captions} captions beat their floor. "
        "For each concept those whose caption is near it (`search_neurons`) are set to zero, and "
        f"the share of right answers is measured on {setting.n_tested} pictures of another draw "
        "(other crops of the same photographs, other drawings). The probe set has no classes of "
        "the subject: **its own answers before the ablation count as right**, so accuracy before "
        "it is 1. Concepts are what captions name most often, unless the command names others.",
        "",
        "*Lost* is the share of answers that change on pictures of the classes named, with its "
        "95% interval over pictures; *random* is what one in twenty of 39 sets of as many matched "
        "units of the layer exceeds, and their mean. *Elsewhere* is the same for pictures of all "
        "other classes.",
        "",
        "| concept | units | classes | accuracy after | lost [95%] | random: 1 in 20, mean | p | "
        "elsewhere [95%] | random | n | failed |",
        "|---|---:|---|---|---|---|---|---|---|---:|---:|",
        *(_row(each) for each in outcomes),
        "",
        f"{sum(each.own for each in tried)} of {len(tried)} concepts lose more than their bar by "
        "the whole interval.",
        "",
        made_by,
        "",
    ]
    return "\n".join(lines)


def _row(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"| {outcome.concept} | 0 | | no caption is near it | | | | | | | |"
    effect = outcome.measured(METRIC)
    accuracy = outcome.measured("class_accuracy_without_channels")
    random = outcome.measured(f"{METRIC}_of_random_sets")
    elsewhere = outcome.elsewhere
    cells = [
        outcome.concept,
        str(len(outcome.units)),
        effect.scope,
        _interval(accuracy),
        _interval(effect),
        f"{effect.baseline:.2f}, {random.value:.2f}",
        f"{outcome.result.output['p']:.3f}",
        "" if elsewhere is None else _interval(elsewhere),
        "" if elsewhere is None else f"{elsewhere.baseline:.2f}",
        str(effect.n),
        str(effect.n_failed),
    ]
    return f"| {' | '.join(cells)} |"


def _interval(measurement: Measurement) -> str:
    low, high = measurement.ci95
    return f"{measurement.value:.2f} [{low:.2f}, {high:.2f}]"


def _made_by(setting: Setting, named: Sequence[str]) -> str:
    changed = [
        f" --{name.removeprefix('n_').replace('_', '-')} {value}"
        for name, value in setting._asdict().items()
        if value != getattr(Setting(), name)
    ]
    changed += [f' --concept "{concept}"' for concept in named]
    return f"Made by `python -m dragoman.evals.class_ablation{''.join(changed)}`."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the eval; 0 when it ran to its end."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.class_ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, value in Setting()._asdict().items():
        option = f"--{name.removeprefix('n_').replace('_', '-')}"
        parser.add_argument(option, dest=name, type=int, default=value)
    parser.add_argument("--concept", action="append", default=[], help="in place of the most named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    setting = Setting(**{name: getattr(options, name) for name in Setting._fields})
    settings = Settings()
    torch.set_num_threads(1)
    subject = load_efficientnet(SUBJECT, settings.weights_folder)
    home = settings.home / "evals" / "class_ablation"
    context = ToolContext(
        subject,
        options.seed,
        home,
        home / "artifacts",
        home / "cache",
        weights=settings.weights_folder,
    )
    rows = caption_units(context, setting)
    named = options.concept or concepts(rows, setting.n_concepts)
    made_by = _made_by(setting, options.concept)
    page = render(setting, rows, measure(context, setting, named), made_by)
    sys.stdout.write(page)
    if options.out:
        write_atomic(options.out, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
