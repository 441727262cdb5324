"""Every method on every fold of one set of prompts: what the figures are computed from."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from dragoman.tools.editing.detection.decoder import Flags
from dragoman.tools.editing.detection.directions import AnswerDirections
from dragoman.tools.editing.detection.methods import (
    CONFIDENCE,
    TWIN,
    Split,
    Told,
    ask_all,
    ask_probe,
    control_phis,
    fitted,
)
from dragoman.tools.editing.detection.probe import Bank, Probe
from dragoman.tools.editing.detection.questions import Asked, Range
from dragoman.tools.editing.detection.reading import Readings
from dragoman.tools.editing.detection.risks import Risk, risk_rows
from dragoman.tools.statistics import Floats


@dataclass(frozen=True)
class Trial:
    """Prompts with what the subject holds and says, and how they are split."""

    asked: Asked
    among: Range
    readings: Readings
    wrong: Flags
    """Of each prompt: the subject errs."""
    directions: AnswerDirections
    splits: tuple[Split, ...]
    """One for each tested fold."""

    @property
    def tested(self) -> list[int]:
        """Rows of the tested prompts."""
        return sorted(at for split in self.splits for at in split.test)


@dataclass
class Judged:
    """What every method says of every prompt; NaN and False where a prompt is not tested."""

    told: dict[str, Told] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    """One for each split."""
    risks: dict[int, Risk] = field(default_factory=dict)
    """By row."""
    control: Floats = field(default_factory=lambda: np.zeros(0))
    """phi of the control task, one value for each deal."""

    def tested(self, rows: list[int]) -> dict[str, Told]:
        """Every method's verdicts on some rows."""
        return {name: Told(one.foreseen[rows], one.risk[rows]) for name, one in self.told.items()}


def judge(trial: Trial, deals: int, seed: int, step: Callable[[int, int, str], None]) -> Judged:
    """Every method but the twin on every tested fold."""
    found = Judged()
    banks: list[Bank] = []
    claims = trial.asked.claims
    for number, split in enumerate(trial.splits):
        step(number, len(trial.splits), "fitting probes and their controls")
        told, bank, probe = ask_all(
            split,
            trial.readings,
            claims,
            trial.wrong,
            trial.directions.edited,
            trial.directions.attributes,
            seed + number,
        )
        banks.append(bank)
        found.probes.append(probe)
        for name, said in told.items():
            _enter(found, trial, name, split, said)
        rows = list(split.test)
        verdicts = probe.judge(trial.readings.rows(rows), claims.rows(rows))
        doubts = told[CONFIDENCE].risk
        for at, risk in zip(rows, risk_rows(trial, rows, verdicts, doubts), strict=True):
            found.risks[at] = risk
    found.control = control_phis(
        trial.splits, banks, trial.readings, claims, trial.wrong, seed, deals
    )
    return found


def judge_twin(
    found: Judged,
    trial: Trial,
    seen: Readings,
    directions: Float[np.ndarray, "answer d_model"],
) -> None:
    """The twin's vectors with the subject's answers: can a network that knows nothing foresee?"""
    mixed = trial.readings._replace(entity=seen.entity)
    for split in trial.splits:
        fit, test = split.parts(mixed, trial.asked.claims, trial.wrong)
        probe, _ = fitted(split, fit, directions).choose(fit.wrong)
        _enter(found, trial, TWIN, split, ask_probe(probe, test))


def _enter(found: Judged, trial: Trial, name: str, split: Split, said: Told) -> None:
    n_prompts = len(trial.wrong)
    empty = Told(np.zeros(n_prompts, dtype=bool), np.full(n_prompts, np.nan))
    whole = found.told.setdefault(name, empty)
    whole.foreseen[list(split.test)] = said.foreseen
    whole.risk[list(split.test)] = said.risk
