"""How strong a direction should be: the harmonic mean of five, on validation entities alone."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Record
from dragoman.tools.editing.directions import NO_EDIT
from dragoman.tools.editing.judging import Judge, token_of
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.material import training_templates
from dragoman.tools.editing.methods import Method
from dragoman.tools.editing.metrics import harmonic_mean, ngram_entropy
from dragoman.tools.editing.probes import NEIGHBOUR_KINDS, edit_probes, neighbour_probes
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.editing.similarity import TfIdf
from dragoman.tools.editing.writing import openings_about, write
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject


class StrengthTrial(Record):
    """What a direction does on validation entities at one strength; None where nothing could be."""

    strength: float
    efficacy: float
    paraphrase_efficacy: float | None
    neighbourhood_specificity: float | None
    essence: float
    fluency: float
    """Share of the unedited text's, at most 1."""

    @property
    def score(self) -> float:
        """The harmonic mean of those that there are."""
        return harmonic_mean(
            [
                value
                for value in (
                    self.efficacy,
                    self.paraphrase_efficacy,
                    self.neighbourhood_specificity,
                    self.essence,
                    self.fluency,
                )
                if value is not None
            ]
        )


HOLDS = 0.98
"""Efficacy below which an edit does not hold: no spared text makes up for that."""


def best(trials: Sequence[StrengthTrial]) -> StrengthTrial:
    """The highest score among those that hold, else among all; of equal ones the strongest."""
    holding = [trial for trial in trials if trial.efficacy >= HOLDS]
    return max(holding or trials, key=lambda trial: (trial.score, trial.strength))


class Bench:
    """Validation records with all that trials at one layer share.

    The paraphrases are training templates: the held-out one stays unseen.
    """

    def __init__(
        self,
        subject: LanguageSubject,
        knowledge: Knowledge,
        records: Sequence[EditRecord],
        neighbours: Sequence[Sample],
        layer: int,
        seed: int,
        *,
        n_texts: int,
        n_tokens: int,
    ) -> None:
        self._subject, self._layer, self._seed, self._tokens = subject, layer, seed, n_tokens
        token = token_of(subject, knowledge)
        known, *others = training_templates(knowledge)
        spared = neighbour_probes(records, knowledge, token, neighbours, 1, seed)
        probes = [
            edit_probes(records, knowledge, [known]),
            edit_probes(records, knowledge, others),
            *(spared[kind] for kind in NEIGHBOUR_KINDS),
        ]
        self._edits, self._paraphrases, *self._neighbours = (
            Judge(subject, some, records, token, layer) if some else None for some in probes
        )
        self._openings = openings_about(records, n_texts)

    @torch.no_grad()
    def try_strengths(
        self, directions: Float[Tensor, "record d_model"], strengths: Sequence[float]
    ) -> list[StrengthTrial]:
        """One trial for each strength, which multiplies `directions`."""
        essence, fluency = self._texts(directions, strengths)
        return [
            StrengthTrial(
                strength=strength,
                efficacy=_share(self._edits, strength * directions) or 0.0,
                paraphrase_efficacy=_share(self._paraphrases, strength * directions),
                neighbourhood_specificity=self._specificity(strength * directions),
                essence=essence[place],
                fluency=fluency[place],
            )
            for place, strength in enumerate(strengths)
        ]

    def _specificity(self, directions: Float[Tensor, "record d_model"]) -> float | None:
        kept = [
            keeps
            for judge in self._neighbours
            if judge is not None
            for had, keeps in zip(judge.ask(None).kept(), judge.ask(directions).kept(), strict=True)
            if had
        ]
        return float(np.mean(kept)) if kept else None

    def _texts(
        self, directions: Float[Tensor, "record d_model"], strengths: Sequence[float]
    ) -> tuple[list[float], list[float]]:
        """Mean essence and relative fluency at each strength."""
        methods = [Method(NO_EDIT)]
        methods += [Method(str(each), each * directions) for each in strengths]
        written = write(
            self._subject, self._openings, self._layer, methods, self._tokens, seed=self._seed
        )
        plain = [one.texts[NO_EDIT] for one in written]
        said = TfIdf(plain)
        essence, fluency = [], []
        unedited = float(np.mean([ngram_entropy(text) for text in plain]))
        for method in methods[1:]:
            texts = [one.texts[method.name] for one in written]
            pairs = zip(plain, texts, strict=True)
            essence.append(float(np.mean([said.cosine(one, other) for one, other in pairs])))
            edited = float(np.mean([ngram_entropy(text) for text in texts]))
            fluency.append(min(1.0, edited / unedited) if unedited > 0 else 1.0)
        return essence, fluency


def _share(judge: Judge | None, directions: Float[Tensor, "record d_model"]) -> float | None:
    return None if judge is None else float(np.mean(judge.ask(directions).changed()))
