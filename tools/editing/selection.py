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
        self,
        candidates: Sequence[Float[Tensor, "record d_model"]],
        strengths: Sequence[float],
    ) -> list[list[StrengthTrial]]:
        """For each candidate one trial for each strength, which multiplies its directions.

        All texts are written in one go, beside one unedited text for all.
        """
        tried = [(strength, strength * one) for one in candidates for strength in strengths]
        directions = [each for _, each in tried]
        trials = [
            StrengthTrial(
                strength=strength,
                efficacy=efficacy or 0.0,
                paraphrase_efficacy=paraphrase,
                neighbourhood_specificity=kept,
                essence=essence,
                fluency=fluency,
            )
            for (strength, _), efficacy, paraphrase, kept, (essence, fluency) in zip(
                tried,
                _shares(self._edits, directions),
                _shares(self._paraphrases, directions),
                self._specificity(directions),
                self._texts(directions),
                strict=True,
            )
        ]
        each = len(strengths)
        return [trials[at : at + each] for at in range(0, len(trials), each)]

    def _specificity(self, tried: Sequence[Float[Tensor, "record d_model"]]) -> list[float | None]:
        """Under each of the directions, the share of right answers that are kept."""
        kept: list[list[bool]] = [[] for _ in tried]
        for judge in self._neighbours:
            if judge is None:
                continue
            before, *after = (said.kept() for said in judge.ask_each([None, *tried]))
            for mine, keeps in zip(kept, after, strict=True):
                mine += [keep for had, keep in zip(before, keeps, strict=True) if had]
        return [float(np.mean(mine)) if mine else None for mine in kept]

    def _texts(self, tried: Sequence[Float[Tensor, "record d_model"]]) -> list[tuple[float, float]]:
        """Mean essence and relative fluency under each of the directions."""
        methods = [Method(NO_EDIT)]
        methods += [Method(str(place), directions) for place, directions in enumerate(tried)]
        written = write(
            self._subject, self._openings, self._layer, methods, self._tokens, seed=self._seed
        )
        plain = [one.texts[NO_EDIT] for one in written]
        said = TfIdf(plain)
        found = []
        unedited = float(np.mean([ngram_entropy(text) for text in plain]))
        for method in methods[1:]:
            texts = [one.texts[method.name] for one in written]
            pairs = zip(plain, texts, strict=True)
            essence = float(np.mean([said.cosine(one, other) for one, other in pairs]))
            edited = float(np.mean([ngram_entropy(text) for text in texts]))
            found.append((essence, min(1.0, edited / unedited) if unedited > 0 else 1.0))
        return found


def _shares(
    judge: Judge | None, tried: Sequence[Float[Tensor, "record d_model"]]
) -> list[float | None]:
    """The share of probes that each of the directions changes."""
    if judge is None:
        return [None] * len(tried)
    return [float(np.mean(said.changed())) for said in judge.ask_each(tried)]
