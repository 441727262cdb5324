"""How often is a unit said to cause what it does not, and how often what it does?

    python -m dragoman.evals.causal_claims --out docs/evals/causal_claims.md

Units are drawn with a fixed seed and captioned by the predicate search. What each does to the words
that captions of *other* units name, and that are none of its own, should not be claimed of it: the
rate at which it is, is the check's rate of false claims. What it does to *its own words*, those of
which the vector that it writes has most (read through the final norm and the unembedding), should
be: in the last layer little stands between; the earlier a layer, the less that has to hold. Heads
write another vector at each token, so that they have no such words.

Both are counted with both controls of the check, and with that of like units alone. Rows are kept
as they are made, so that a run that was stopped goes on.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from dragoman.core.records import content_id
from dragoman.core.settings import load_settings
from dragoman.evals.causal_claims_table import Counts, Row, render
from dragoman.evals.rows import complete, kept_rows, read_rows
from dragoman.evals.telling import publish
from dragoman.tools.captioning.bench import lay_out
from dragoman.tools.captioning.causal import CausalCheck, Changes
from dragoman.tools.captioning.corpus import Corpus, sample_corpus
from dragoman.tools.captioning.describing import choose_all
from dragoman.tools.captioning.examination import causal_check
from dragoman.tools.captioning.rows import unit_name
from dragoman.tools.captioning.units import UnitKind, UnitLayer, n_units
from dragoman.tools.captioning.word_sets import named_tokens, related, word_sets
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tools_digest
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.packaged import load_smollm2

SEED = 0
LAYERS: Mapping[UnitKind, tuple[int, ...]] = {
    "mlp": (2, 12, 25, 28, 29),
    "resid": (12, 29),
    "head": (0, 3, 10, 16, 25, 29),
}
N_UNITS, N_DOCUMENTS = 24, 200
OWN_WORDS = 10
_VERSION = 2
"""Of what this module counts: raised when rows of before do not belong with those of now."""


class Captioned(NamedTuple):
    """The units of a layer, and what their captions name."""

    check: CausalCheck
    units: tuple[int, ...]
    named: tuple[Bool[ndarray, " d_vocab"] | None, ...]


class Study:
    """The drawn units on their texts."""

    def __init__(
        self,
        context: ToolContext,
        corpus: Corpus,
        layers: Mapping[UnitKind, Sequence[int]] = LAYERS,
        *,
        n_units: int,
        effort: Effort,
    ) -> None:
        self.context, self.corpus, self._effort = context, corpus, effort
        self.units: dict[str, tuple[UnitLayer, int]] = {}
        """By name."""
        self._drawn: dict[UnitLayer, tuple[int, ...]] = {}
        for kind, listed in layers.items():
            for layer in listed:
                where = UnitLayer(kind=kind, layer=layer)
                drawn = self._drawn[where] = _draw(context.subject, where, n_units)
                self.units |= {unit_name(kind, layer, unit): (where, unit) for unit in drawn}
        self.made = content_id(
            [
                tools_digest(),
                _VERSION,
                context.subject.identity.digest,
                content_id(list(corpus.documents)),
                n_units,
                effort,
                SEED,
            ]
        )
        # Rows are made layer by layer; what a layer takes need not be kept for the next.
        self._captioned = lru_cache(maxsize=1)(self._caption)

    def row(self, name: str) -> Row:
        """What is claimed of one unit."""
        where, unit = self.units[name]
        layer = self._captioned(where)
        column = layer.units.index(unit)
        own, opposed = self._own_words(where, unit)
        others = [
            each
            for place, each in enumerate(layer.named)
            if place != column
            and each is not None
            and not _akin(each, layer.named[column])
            and not _akin(each, own)
            and not _akin(each, opposed)
        ]
        targets = others if own is None else [*others, own]
        controls = word_sets(self.context)
        changed = layer.check.ablated(column, unit, np.vstack([*targets, controls]))
        counted = [
            _claims(changed, place, (len(targets) + np.flatnonzero(others_of)).tolist())
            for place, others_of in enumerate(~related(controls, each) for each in targets)
            if changed is not None
        ]
        n_others = len(others) if changed is not None else 0
        return Row(
            made=self.made,
            kind=where.kind,
            layer=where.layer,
            unit=name,
            others=_sum(counted[:n_others]),
            own=_sum(counted[n_others:]) if counted[n_others:] else None,
        )

    def _caption(self, where: UnitLayer) -> Captioned:
        units = self._drawn[where]
        bench = lay_out(self.context, where, units, (), self.corpus)
        names = [unit_name(where.kind, where.layer, unit) for unit in units]
        chosen = choose_all(self.context, bench.captioner, names).chosen
        check = causal_check(self.context, bench, self._effort)
        said = [None if each is None else each.candidate.predicate for each in chosen]
        named = tuple(named_tokens(self.context.subject, each) for each in said)
        return Captioned(check, units, named)

    @torch.no_grad()
    def _own_words(
        self, where: UnitLayer, unit: int
    ) -> tuple[Bool[ndarray, " d_vocab"] | None, Bool[ndarray, " d_vocab"] | None]:
        """The words that the unit writes most of, and those that it writes most against."""
        subject = self.context.subject
        match where.kind:
            case "mlp":
                projection = subject.anatomy.blocks[where.layer].down_projection
                written = projection.get_parameter("weight")[:, unit]
            case "resid":
                written = torch.eye(subject.d_model)[unit]
            case _:
                return None, None
        logits = subject.decode(written[None])[0]
        return _words(logits), _words(-logits)


def _draw(subject: LanguageSubject, where: UnitLayer, count: int) -> tuple[int, ...]:
    order = np.random.default_rng([SEED, where.layer]).permutation(n_units(subject, where))
    return tuple(int(each) for each in order[:count])


def _words(logits: Float[Tensor, " d_vocab"]) -> Bool[ndarray, " d_vocab"]:
    words = np.zeros(len(logits), bool)
    words[logits.topk(OWN_WORDS).indices.cpu().numpy()] = True
    return words


def _akin(named: Bool[ndarray, " d_vocab"], own: Bool[ndarray, " d_vocab"] | None) -> bool:
    """A unit may well act on words that are its own as well."""
    return own is not None and bool(related(named[None], own)[0])


def _claims(changed: Changes, number: int, others: Sequence[int]) -> Counts:
    effects = changed.on_set(number, others)
    low = effects.measurement("causal_effect", "", SEED).ci95[0]
    alone = effects._replace(elsewhere=None)
    return Counts(
        n=1,
        claimed=int(low > effects.bar),
        claimed_by_units=int(low > alone.bar),
        p=int(effects.p_value <= 0.05),
        p_by_units=int(alone.p_value <= 0.05),
    )


def _sum(counted: Sequence[Counts]) -> Counts:
    fields = Counts.model_fields
    return Counts(**{name: sum(int(getattr(each, name)) for each in counted) for name in fields})


def introduction(study: Study, n_units: int, effort: Effort) -> str:
    """What the page says before its table."""
    subject = study.context.subject
    return f"""# What units are said to cause

`{subject.identity.name}`, {study.corpus.description}; {n_units} units a layer (or all that it has),
seed {SEED}, ablation to the mean, effort {effort}; {len(word_sets(study.context))} sets of words to
compare with. Made by `python -m dragoman.evals.causal_claims`.

*Cases*: a unit and what the caption of another unit of its layer names, without words that its own
caption names or that it writes most of, or most against. None of these should be claimed; *own
words*, of which a unit writes most, should be. *Claimed*: the whole 95% interval over contexts lies
above the bar. *One control*: the bar of like units alone; else it has to lie above what the unit
does to one in twenty other sets of words too. Intervals are over units, since what one unit does to
many words is not many samples."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows that are lacking, and the page."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.causal_claims",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--units", type=int, default=N_UNITS, help="of each layer")
    parser.add_argument("--documents", type=int, default=N_DOCUMENTS)
    parser.add_argument("--kinds", nargs="+", choices=[*LAYERS], default=[*LAYERS])
    parser.add_argument("--effort", choices=("quick", "full"), default="quick")
    parser.add_argument("--rows", type=Path, help="jsonl file of the rows")
    parser.add_argument("--table-only", action="store_true", help="make no rows")
    parser.add_argument("--out", type=Path, help="write the page to this Markdown file")
    options = parser.parse_args(arguments)
    settings = load_settings()
    context = ToolContext(
        load_smollm2(settings.weights_folder),
        SEED,
        settings.home,
        settings.artifacts_folder,
        settings.cache_folder,
        weights=settings.weights_folder,
    )
    corpus = sample_corpus(context, options.documents)
    layers = {kind: LAYERS[kind] for kind in options.kinds}
    study = Study(context, corpus, layers, n_units=options.units, effort=options.effort)
    path = options.rows or kept_rows("causal_claims", settings)
    rows = complete(
        {name: partial(study.row, name) for name in study.units},
        [row for row in read_rows(path, Row) if row.made == study.made],
        path,
        table_only=options.table_only,
    )
    publish(render(rows, introduction(study, options.units, options.effort)), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
