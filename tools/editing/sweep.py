"""Layers against strengths, on validation entities: where an edit holds and what it costs there."""

from collections.abc import Sequence

import torch

from dragoman.core.records import Record
from dragoman.tools.editing.directions import Centroids
from dragoman.tools.editing.editor import read_records
from dragoman.tools.editing.fitting import Plan, Pool, Step, open_bench, start_at
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.material import build_material
from dragoman.tools.editing.selection import StrengthTrial, best
from dragoman.tools.editing.training import TrainingSettings, train_editor
from dragoman.tools.subjects.language import LanguageSubject


class SweepRow(Record):
    """One layer: the editor's trials and the mean difference's, at each strength."""

    layer: int
    editor: tuple[StrengthTrial, ...]
    mean_difference: tuple[StrengthTrial, ...]
    """Empty where an object has no mean."""

    @property
    def best(self) -> StrengthTrial:
        """The editor's trial of the highest score."""
        return best(self.editor)


def sweep(
    subject: LanguageSubject,
    knowledge: Knowledge,
    pool: Pool,
    layers: Sequence[int],
    strengths: Sequence[float],
    plan: Plan,
    settings: TrainingSettings,
    seed: int,
    step: Step,
) -> list[SweepRow]:
    """Train an editor at each layer, then try every strength of it and of the mean difference."""
    rows = []
    for done, layer in enumerate(layers):
        step(done, len(layers), f"training an editor at layer {layer}")
        train = read_records(subject, knowledge.rewrite, pool.train, [layer])
        held = read_records(subject, knowledge.rewrite, pool.validation, [layer])
        materials = [
            build_material(
                subject,
                knowledge,
                some,
                read.inputs(settings.form),
                seed,
                spared=plan.spared_cases,
            )[layer]
            for some, read in ((pool.train, train), (pool.validation, held))
        ]
        share = min(1.0, plan.trial_records / len(pool.train))
        few = materials[0].share(share)
        centroids = Centroids.of(pool.train, train.attributes(layer))
        start = start_at(pool.train, train.inputs(settings.form)[layer], centroids, settings.form)
        editor = train_editor(
            few, materials[1], layer, settings, seed, step=step, start=start
        ).editor
        step(done, len(layers), f"trying strengths at layer {layer}")
        bench = open_bench(subject, knowledge, pool, layer, plan, seed)
        with torch.no_grad():
            directions = editor(held.inputs(settings.form)[layer])
        means = centroids.differences(pool.validation)
        tried = bench.try_strengths(
            [directions] if means is None else [directions, means], strengths
        )
        rows.append(
            SweepRow(
                layer=layer,
                editor=tuple(tried[0]),
                mean_difference=tuple(tried[1]) if len(tried) > 1 else (),
            )
        )
    return rows
