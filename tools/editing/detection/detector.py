"""A detector: calibrated probes of one relation, and all that judging a further fact needs.

Each probe was fitted on all entities but those of its own fold. A detector holds directions and
statistics and no training data, so a single fact costs the one pass that reads its entity.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dragoman.tools.editing.detection.methods import fitted
from dragoman.tools.editing.detection.probe import Probe
from dragoman.tools.editing.detection.questions import Question, Range
from dragoman.tools.editing.detection.study import ErrorStudy


class FoldProbe(NamedTuple):
    """A probe and the entities that it was not fitted on."""

    entities: frozenset[str]
    """Case-folded."""
    probe: Probe


class Detector(NamedTuple):
    """Judges facts of the relation that it was trained on."""

    question: Question
    template: str
    among: Range
    layers: tuple[int, ...]
    """That are read at the entity."""
    editor_layer: int
    editor_entities: frozenset[str]
    """Case-folded; those that the editor was trained on."""
    folds: tuple[FoldProbe, ...]

    @property
    def objects(self) -> frozenset[str]:
        """All objects that can be stated."""
        return frozenset(name for names in self.among.objects for name in names)

    def judges(self, entity: str) -> tuple[int, ...]:
        """The folds whose probes judge an entity: its own, or all where the relation lacks it."""
        wanted = entity.casefold()
        own = tuple(at for at, fold in enumerate(self.folds) if wanted in fold.entities)
        return own or tuple(range(len(self.folds)))


def make_detector(study: ErrorStudy, probes: Sequence[Probe]) -> Detector:
    """From a study and the probes of its tested folds; entities of the editor get one as well."""
    trial = study.trial
    found = list(zip(trial.splits, probes, strict=True))
    for split in study.unseen:
        fit, _ = split.parts(trial.readings, trial.asked.claims, trial.wrong)
        probe, _ = fitted(split, fit, trial.directions.edited).choose(fit.wrong)
        found.append((split, probe))
    return Detector(
        study.question,
        study.template,
        trial.among,
        trial.readings.layers,
        study.editor.layer,
        frozenset(entity.casefold() for entity in study.editor.entities),
        tuple(
            FoldProbe(frozenset(trial.asked.groups[at].casefold() for at in split.test), probe)
            for split, probe in found
        ),
    )
