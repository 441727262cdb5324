"""How good are captions of a real subject's neurons? Two hundred of them, drawn with a fixed seed.

    python -m dragoman.evals.captions --chat none --out docs/evals/captions.md

Each neuron is captioned as `caption_neurons` does it: by the predicate search alone, by the chat
model alone and by both, each with and without the PMI term; and the same neuron of the twin with
random weights by the search. Rows go to a jsonl file as they are made, and what is there is not
made again: an interrupted run goes on, `--units` takes more of the same draw, `--minutes` ends a
run in time. Activations are kept in the cache folder.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dragoman.agent.choose_chat import choose_chat
from dragoman.core.escaping import well_formed
from dragoman.core.files import write_atomic
from dragoman.core.protocols import ChatModel
from dragoman.core.records import canonical_json, content_id
from dragoman.core.settings import Settings, load_settings
from dragoman.evals.captions_table import METRICS, Row, Value, Variant, render
from dragoman.evals.rows import read_rows
from dragoman.evals.telling import publish, say
from dragoman.tools.captioning.assessment import Assessor, said_of
from dragoman.tools.captioning.bench import Asked, Bench, lay_out_layers
from dragoman.tools.captioning.captioner import Candidate, Captioner
from dragoman.tools.captioning.chat_proposer import Answers
from dragoman.tools.captioning.corpus import Corpus, sample_corpus
from dragoman.tools.captioning.describing import Proposed, captioner_for, propose_all
from dragoman.tools.captioning.judges import EmbeddingJudge
from dragoman.tools.captioning.meanings import embedder
from dragoman.tools.captioning.neighbours import Neighbours
from dragoman.tools.captioning.reranking import TAU
from dragoman.tools.captioning.rows import unit_name
from dragoman.tools.captioning.tool import decoys
from dragoman.tools.captioning.twin import read_twin
from dragoman.tools.captioning.units import UnitLayer
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tools_digest
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.packaged import load_smollm2

N_UNITS, N_DOCUMENTS, N_DECOYS = 200, 1000, 12
SEED = 0
ROWS = Path("docs/evals/captions.jsonl")
WITHOUT_CHAT: tuple[Variant, ...] = ("search", "search, no PMI", "random twin")
WITH_CHAT: tuple[Variant, ...] = ("chat", "chat, no PMI", "both", "both, no PMI")


class Unit(NamedTuple):
    """An MLP neuron."""

    layer: int
    neuron: int


def draw(n_layers: int, d_mlp: int, n: int, seed: int) -> list[Unit]:
    """`n` neurons of all; more of the same seed begin with fewer."""
    order = np.random.default_rng([seed, 200]).permutation(n_layers * d_mlp)[:n]
    return [Unit(*divmod(int(each), d_mlp)) for each in order]


class Study:
    """The drawn neurons on their texts."""

    def __init__(
        self, context: ToolContext, corpus: Corpus, units: Sequence[Unit], n_decoys: int
    ) -> None:
        self.context, self.corpus = context, corpus
        self.answers: list[Answers] = []
        """What the chat model said, layer by layer."""
        self._asked: dict[UnitLayer, Asked] = {}
        for layer in sorted({unit.layer for unit in units}):
            where = UnitLayer(layer=layer)
            own = tuple(sorted(unit.neuron for unit in units if unit.layer == layer))
            others = decoys(context, where, own, context.subject.d_mlp, n_decoys)
            self._asked[where] = Asked(own, tuple(others))
        self.benches = lay_out_layers(
            context, self._asked, self.corpus, folder=context.cache / "evals" / "captions"
        )
        self.made = content_id(
            [
                context.subject.identity.digest,
                content_id(list(corpus.documents)),
                n_decoys,
                context.seed,
            ]
        )

    def twin_of(self, bench: Bench) -> Captioner:
        """A captioner of the same neurons with random weights; all layers are read at once."""
        wanted = {where: [*each.units, *each.decoys] for where, each in self._asked.items()}
        read = read_twin(self.context, self.corpus.documents, bench.table, wanted)
        alone = dataclasses.replace(self.context, chat=None)
        return captioner_for(alone, bench.table, read[bench.where], len(bench.units))


def rows_of(study: Study, bench: Bench, wanted: Sequence[tuple[str, Variant]]) -> Iterator[Row]:
    """The rows that are wanted of one layer's neurons."""
    variants = {variant for _, variant in wanted}
    names = [unit_name("mlp", bench.where.layer, unit) for unit in bench.units]
    if "random twin" in variants:
        twin = study.twin_of(bench)
        alone = dataclasses.replace(study.context, chat=None)
        proposed = propose_all(alone, twin, names)
        yield from _scored(study, twin, None, proposed.search, names, "random twin", wanted)
    if variants - {"random twin"}:
        proposed = propose_all(study.context, bench.captioner, names)
        if proposed.answers is not None:
            study.answers.append(proposed.answers)
        for variant in (*WITHOUT_CHAT[:2], *WITH_CHAT):
            if variant in variants:
                candidates, neighbours = _candidates(proposed, variant), bench.neighbours
                rows = _scored(
                    study, bench.captioner, neighbours, candidates, names, variant, wanted
                )
                if proposed.answers is None or variant not in WITH_CHAT:
                    yield from rows
                    continue
                replies = proposed.answers.replies_per_unit
                yield from (row.model_copy(update={"chat_replies": replies}) for row in rows)


def _candidates(proposed: Proposed, variant: Variant) -> list[list[Candidate]]:
    if variant.startswith("search"):
        return proposed.search
    return proposed.chat if variant.startswith("chat") else proposed.together()


def _scored(
    study: Study,
    captioner: Captioner,
    neighbours: Neighbours | None,
    candidates: list[list[Candidate]],
    names: Sequence[str],
    variant: Variant,
    wanted: Sequence[tuple[str, Variant]],
) -> Iterator[Row]:
    context = study.context
    chosen = captioner.choose_all(candidates, 0.0 if variant.endswith("no PMI") else TAU)
    vectors = embedder(context)
    # Free words, which only a chat model writes, need a judge.
    by_chat = variant in WITH_CHAT
    assessor = Assessor(
        context,
        captioner,
        [said_of(each) for each in chosen],
        effort="full",
        judges=[EmbeddingJudge(vectors)] if by_chat and vectors is not None else [],
        neighbours=neighbours,
    )
    for unit, name in enumerate(names):
        if (name, variant) not in wanted:
            continue
        each, found = chosen[unit], assessor.assess(unit, name)
        measurements = () if found is None else (*found.measurements, *found.controls)
        row = Row(
            made=study.made,
            code=tools_digest()[:12],
            unit=name,
            variant=variant,
            caption=None if each is None else each.candidate.caption,
            proposer="" if each is None else each.candidate.proposer,
            scores={
                one.metric: Value(
                    value=round(one.value, 4),
                    floor=round(one.baseline, 4),
                    low=round(one.ci95[0], 4),
                    n=one.n,
                    n_failed=one.n_failed,
                )
                for one in measurements
                if one.metric in METRICS
            },
            chat=context.chat.identity.model if by_chat and context.chat is not None else "",
        )
        yield row


def rows_made(path: Path, made: str) -> list[Row]:
    """The rows of a file that belong to this study; those of another are left out."""
    return [row for row in read_rows(path, Row) if row.made == made]


def run(
    study: Study,
    path: Path,
    report: Callable[[str], None],
    *,
    until: float,
    variants: Sequence[Variant],
) -> list[Row]:
    """Make the rows that are lacking, layer by layer, and return all.

    All rows of a layer come from one pass, so they are not made one by one.
    """
    rows = rows_made(path, study.made)
    # A kill may have left half a line.
    write_atomic(path, "".join(_line(row) for row in rows))
    known = {(row.unit, row.variant) for row in rows}
    # In an order of its own: the layers that a run in a hurry has done are a sample of all.
    for place in np.random.default_rng([SEED, 30]).permutation(len(study.benches)):
        bench = study.benches[place]
        names = [unit_name("mlp", bench.where.layer, unit) for unit in bench.units]
        wanted = [(name, v) for name in names for v in variants if (name, v) not in known]
        if not wanted or time.monotonic() > until:
            continue
        with path.open("a", encoding="utf-8") as opened:
            for row in rows_of(study, bench, wanted):
                opened.write(_line(row))
                rows.append(row)
        report(f"{bench.where}: {len(wanted)} rows, {len(rows)} in all")
    return rows


def cost_of(answers: Sequence[Answers]) -> list[str]:
    """What a run's captions by the chat model cost; nothing without one."""
    n_asked = sum(len(each.captions) for each in answers)
    if not n_asked:
        return []
    calls = sum(each.n_calls for each in answers)
    return [
        f"In the last run the chat model was called {calls} times for the captions of {n_asked} "
        f"neurons ({sum(each.n_cached for each in answers)} replies came from the cache); "
        f"{sum(each.n_failed for each in answers)} neurons got none that fits."
    ]


def _line(row: Row) -> str:
    return well_formed(canonical_json(row.model_dump(mode="json", exclude_defaults=True))) + "\n"


def _context(subject: LanguageSubject, settings: Settings, chat: ChatModel | None) -> ToolContext:
    return ToolContext(
        subject,
        SEED,
        settings.home,
        settings.artifacts_folder,
        settings.cache_folder,
        chat=chat,
        weights=settings.weights_folder,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows that are lacking, and the page."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.captions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--units", type=int, default=N_UNITS, help="how many of the draw")
    parser.add_argument("--documents", type=int, default=N_DOCUMENTS)
    parser.add_argument("--chat", choices=("none", "local", "endpoint"), default="none")
    parser.add_argument(
        "--variants", nargs="+", choices=(*WITHOUT_CHAT, *WITH_CHAT), help="only some of the ways"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no layer later")
    parser.add_argument("--rows", type=Path, default=ROWS, help="jsonl file of the rows")
    parser.add_argument("--out", type=Path, help="write the page to this Markdown file")
    options = parser.parse_args(arguments)
    until = time.monotonic() + 60 * options.minutes
    settings = load_settings()
    subject = load_smollm2(settings.weights_folder)
    report = partial(say, sys.stderr)
    every = draw(subject.n_layers, subject.d_mlp, N_UNITS, SEED)
    chat = choose_chat(options.chat, settings, report)
    try:
        possible = WITHOUT_CHAT if chat is None else WITH_CHAT
        variants = [each for each in possible if each in (options.variants or possible)]
        context = _context(subject, settings, chat)
        corpus = sample_corpus(context, options.documents)
        study = Study(context, corpus, every[: options.units], N_DECOYS)
        rows = run(study, options.rows, report, until=until, variants=variants)
    finally:
        if chat is not None:
            chat.close()
    page = render(rows, corpus.description, N_UNITS, cost_of(study.answers))
    publish(page, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
