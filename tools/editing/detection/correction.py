"""Correction: where an error is foreseen, edit, and ask again.

The direction is the editor's, from what the representation speaks for to what the fact states; it
is added at the entity's last token. Beside it: no edit, an edit of every fact, a random direction
of equal norm on the same facts, and an edit of as many facts drawn by lot.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Measurement
from dragoman.tools.editing.detection.decoder import Flags, errs
from dragoman.tools.editing.detection.editors import DirectionEditor
from dragoman.tools.editing.detection.risks import Risk
from dragoman.tools.editing.detection.trial import Trial
from dragoman.tools.editing.editor import edit_at_entity
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.statistics import proportion
from dragoman.tools.subjects.language import LanguageSubject

BEFORE = "no edit"
FORESEEN = "edited where an error is foreseen"
ALL = "every fact edited"
RANDOM = "random direction where an error is foreseen"
BY_LOT = "as many facts edited, drawn by lot"
_AT_ONCE = 32


class Corrected(NamedTuple):
    """Which facts come out right under each condition, one entry for each fact."""

    right: Mapping[str, Flags]
    foreseen: Flags

    @property
    def by_lot(self) -> float:
        """Expected number of right facts when as many edits fall by lot."""
        share = float(self.foreseen.mean())
        return float((share * self.right[ALL] + (1 - share) * self.right[BEFORE]).sum())


def correct(
    subject: LanguageSubject,
    trial: Trial,
    editor: DirectionEditor,
    risks: Mapping[int, Risk],
    seed: int,
) -> Corrected:
    """Edit and ask again, every tested fact once under each condition."""
    rows = sorted(risks)
    records = [_record(trial, risks[at]) for at in rows]
    directions = editor.directions(subject, records)
    return corrected(subject, trial, rows, directions, editor.layer, risks, seed)


@torch.no_grad()
def corrected(
    subject: LanguageSubject,
    trial: Trial,
    rows: Sequence[int],
    directions: Float[Tensor, "row d_model"],
    layer: int,
    risks: Mapping[int, Risk],
    seed: int,
) -> Corrected:
    """The same for directions that are there already."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(directions.shape, generator=generator).to(directions)
    noise = noise / noise.norm(dim=1, keepdim=True) * directions.norm(dim=1, keepdim=True)
    before = ~trial.wrong[list(rows)]
    edited = _right(subject, trial, rows, directions, layer)
    pushed = _right(subject, trial, rows, noise, layer)
    foreseen = np.array([risks[at].error_foreseen for at in rows])
    return Corrected(
        {
            BEFORE: before,
            FORESEEN: np.where(foreseen, edited, before),
            ALL: edited,
            RANDOM: np.where(foreseen, pushed, before),
        },
        foreseen,
    )


def measure_correction(
    found: Corrected, *, n_failed: int = 0
) -> tuple[Measurement, list[Measurement]]:
    """`corrected_accuracy` beside no edit; then the controls, each beside the same."""
    n, before = len(found.foreseen), float(found.right[BEFORE].sum())

    def of(right: float, scope: str) -> Measurement:
        return proportion(
            "corrected_accuracy",
            right,
            n,
            baseline_successes=before,
            baseline_n=n,
            control=BEFORE,
            n_failed=n_failed,
            scope=scope,
        )

    return of(float(found.right[FORESEEN].sum()), ""), [
        of(float(found.right[ALL].sum()), ALL),
        of(float(found.right[RANDOM].sum()), RANDOM),
        of(found.by_lot, BY_LOT),
    ]


def _record(trial: Trial, risk: Risk) -> EditRecord:
    stated = trial.among.objects[trial.among.spoken_of(risk.object)][0]
    # Where the representation speaks for the stated object there is still something to take away.
    old = risk.expected if risk.expected != risk.object else risk.rival
    return EditRecord(
        entity=risk.entity,
        old_object=trial.among.objects[trial.among.spoken_of(old)][0],
        new_object=stated,
    )


def _right(
    subject: LanguageSubject,
    trial: Trial,
    rows: Sequence[int],
    directions: Float[Tensor, "row d_model"],
    layer: int,
) -> Flags:
    ids = torch.tensor(trial.among.ids, device=subject.device)
    answers = np.empty((len(rows), len(trial.among.ids)))
    for start in range(0, len(rows), _AT_ONCE):
        some = list(range(start, min(start + _AT_ONCE, len(rows))))
        prompts = [trial.asked.prompts[rows[at]] for at in some]
        edit = edit_at_entity(subject, prompts, layer, directions[some])
        log_probs = subject.log_probs([each.text for each in prompts], [edit])
        answers[some] = log_probs[:, ids].double().cpu().numpy()
    right: Flags = ~errs(answers, trial.asked.claims.rows(rows))
    return right
