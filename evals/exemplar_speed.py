"""What exemplars of every MLP neuron of the default subject cost beyond running it.

    python -m dragoman.evals.exemplar_speed --out docs/evals/exemplar_speed.md \
        --peer PATH [--peer-packages PATH]

Ratios are taken within one run, of processor time on one thread, so that what else the machine does
takes no part. Each batch is run bare and then with collection, one after the other; all that
collection does besides its forward passes (tokens, summaries, files) counts against it. Memory is
the peak of fresh processes.
`--peer` is a checkout of EleutherAI's delphi, whose activation cache is timed on the same units and
tokens; `--peer-packages` is a folder with what it imports. Without it that part is left out.
"""

import argparse
import importlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from dragoman.core.files import write_atomic
from dragoman.core.settings import Settings
from dragoman.tools.captioning import passes
from dragoman.tools.captioning.corpus import Corpus, sample_corpus
from dragoman.tools.captioning.packing import BATCH_TOKENS, document_start, packed, tokenise
from dragoman.tools.captioning.units import See, UnitLayer, UnitReader
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.language import Batch, LanguageSubject
from dragoman.tools.subjects.packaged import load_smollm2

TOKEN_RATE_GOAL = 0.85
MEMORY_GOAL_GB = 1.0
PEER_GOAL = 3.0
_PEER_LENGTH = 64


class Timing(NamedTuple):
    """One batch: processor seconds of the bare pass, and of the same batch with collection."""

    n_tokens: int
    bare: float
    collecting: float


class Speed(NamedTuple):
    """A run over a corpus."""

    timings: list[Timing]
    n_padding: int
    total: float
    """Seconds of everything, bare passes included."""

    @property
    def ratio(self) -> float:
        """Token rate with collection over that of the bare passes."""
        bare = sum(each.bare for each in self.timings)
        return bare / (self.total - bare)

    def overhead(self, half: int) -> float:
        """Seconds of collection beyond the bare passes, over the bare passes' seconds."""
        middle = len(self.timings) // 2
        some = self.timings[:middle] if half == 0 else self.timings[middle:]
        bare = sum(each.bare for each in some)
        return sum(each.collecting for each in some) / bare - 1


class Peer(NamedTuple):
    """Seconds of each round over the same tokens."""

    n_tokens: int
    ours: list[float]
    cache: list[float]
    """delphi's cache in memory, nothing written."""
    saved: list[float]
    """The same with its files written."""


@torch.no_grad()
def bare_pass(subject: LanguageSubject, batch: Batch) -> None:
    """The forward pass alone, without the logits that nobody reads."""
    subject.model(
        input_ids=batch.ids, position_ids=batch.positions, use_cache=False, logits_to_keep=1
    )


def every_layer(subject: LanguageSubject) -> list[UnitLayer]:
    """All MLP neurons."""
    return [UnitLayer(layer=layer) for layer in range(subject.n_layers)]


def _context(subject: LanguageSubject, folder: Path) -> ToolContext:
    return ToolContext(subject, 0, folder, folder / "artifacts", folder / "cache")


def measure_speed(subject: LanguageSubject, corpus: Corpus, folder: Path) -> Speed:
    """Each batch bare, then with collection."""
    timings: list[Timing] = []
    padding = 0

    class Timed(UnitReader):
        def observe(self, batch: Batch, see: See) -> None:
            nonlocal padding
            began = time.process_time()
            bare_pass(self.subject, batch)
            middle = time.process_time()
            super().observe(batch, see)
            n_tokens = int(batch.mask.sum())
            padding += batch.mask.numel() - n_tokens
            timings.append(Timing(n_tokens, middle - began, time.process_time() - middle))

    for warm in packed(subject, tokenise(corpus.documents[:32], subject.tokenizer, 64)):
        bare_pass(subject, warm.batch)
    with mock.patch.object(passes, "UnitReader", Timed):
        began = time.process_time()
        passes.collect(_context(subject, folder), corpus, every_layer(subject))
    return Speed(timings, padding, time.process_time() - began)


def peak_memory(what: str, n_documents: int) -> float:
    """Gigabytes at the peak of a fresh process that runs `what` over so many documents."""
    command = [sys.executable, "-m", "dragoman.evals.exemplar_speed", "--memory-of", what]
    done = subprocess.run(
        [*command, "--documents", str(n_documents)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _memory_of(what: str, subject: LanguageSubject, corpus: Corpus) -> float:
    if what == "bare":
        for batch in packed(subject, tokenise(corpus.documents, subject.tokenizer, 64)):
            bare_pass(subject, batch.batch)
    else:
        with tempfile.TemporaryDirectory() as folder:
            passes.collect(
                _context(subject, Path(folder)), corpus, every_layer(subject), shard_tokens=4096
            )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure_peer(
    subject: LanguageSubject, corpus: Corpus, peer: Path, packages: Path | None, rounds: int
) -> Peer:
    """Both over the same rows of 64 ids, round after round."""
    start = document_start(subject)
    room = _PEER_LENGTH - len(start)
    rows = tokenise(corpus.documents, subject.tokenizer, room)
    full = [
        (text, row)
        for text, row in zip(corpus.documents, rows, strict=True)
        if len(row.ids) == room
    ][: 2 * BATCH_TOKENS // _PEER_LENGTH]
    ids = torch.tensor([[*start, *row.ids] for _, row in full])
    same = Corpus(id="peer", description="rows", documents=tuple(text for text, _ in full))
    cache_type = _peer_cache(peer, packages)
    names = {
        name: (lambda activations: activations)
        for name, module in subject.model.named_modules()
        if any(module is parts.down_projection for parts in subject.anatomy.blocks)
    }
    found = Peer(ids.numel(), [], [], [])
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            began = time.process_time()
            passes.collect(_context(subject, folder), same, every_layer(subject), tokens=room)
            found.ours.append(time.process_time() - began)
            began = time.process_time()
            # transcode: what goes into the down projection, that is, the neurons.
            cache = cache_type(
                subject.model, names, batch_size=BATCH_TOKENS // _PEER_LENGTH, transcode=True
            )
            cache.run(ids.numel(), ids)
            found.cache.append(time.process_time() - began)
            cache.save_splits(n_splits=5, save_dir=folder / "peer")
            found.saved.append(time.process_time() - began)
            del cache
    return found


def _peer_cache(peer: Path, packages: Path | None) -> Any:
    sys.path[:0] = [str(path) for path in (peer, packages) if path is not None]
    # The package's own __init__ imports explainers and scorers, which need much more.
    alone = types.ModuleType("delphi.latents")
    alone.__path__ = [str(peer / "delphi" / "latents")]
    sys.modules["delphi.latents"] = alone
    return importlib.import_module("delphi.latents.cache").LatentCache


def render(speed: Speed, memory: Sequence[tuple[int, float, float]], peer: Peer | None) -> str:
    """The page."""
    tokens = sum(each.n_tokens for each in speed.timings)
    lines = [
        "# What exemplars of every neuron cost",
        "",
        "Written by `python -m dragoman.evals.exemplar_speed`; all 46,080 MLP neurons of "
        "`smollm2` at once.",
        "",
        f"Ratios of processor time, {torch.get_num_threads()} thread; load average at the end "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, so other work shared the caches.",
        "",
        "| | goal | measured |",
        "|---|---|---|",
        f"| token rate over that of the bare forward pass, same batches ({tokens:,} tokens, "
        f"{100 * speed.n_padding / (tokens + speed.n_padding):.2f}% padding) | ≥ "
        f"{TOKEN_RATE_GOAL} | {speed.ratio:.3f} |",
        f"| time beyond the bare pass, first half of the corpus | | {speed.overhead(0):.1%} |",
        f"| the same in the second half (linear: not more) | | {speed.overhead(1):.1%} |",
    ]
    for n, bare, ours in memory:
        lines.append(
            f"| memory above the bare pass at its peak, {n} texts | ≤ {MEMORY_GOAL_GB} GB | "
            f"{ours - bare:.2f} GB |"
        )
    if peer is not None:
        for name, theirs in (("in memory", peer.cache), ("with its files", peer.saved)):
            ratio = statistics.median(b / a for a, b in zip(peer.ours, theirs, strict=True))
            lines.append(
                f"| delphi's activation cache ({name}) over ours (with files), same units and "
                f"{peer.n_tokens:,} tokens, median of {len(theirs)} rounds | ≥ {PEER_GOAL} | "
                f"{ratio:.1f} |"
            )
    return "\n".join([*lines, ""])


def reached(speed: Speed, memory: Sequence[tuple[int, float, float]], peer: Peer | None) -> bool:
    """Every goal that was measured."""
    return (
        speed.ratio >= TOKEN_RATE_GOAL
        and all(ours - bare <= MEMORY_GOAL_GB for _, bare, ours in memory)
        and (
            peer is None
            or statistics.median(b / a for a, b in zip(peer.ours, peer.saved, strict=True))
            >= PEER_GOAL
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when the goals are reached, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.exemplar_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison with delphi")
    parser.add_argument("--peer", type=Path, help="a checkout of EleutherAI's delphi")
    parser.add_argument("--peer-packages", type=Path, help="a folder with what delphi imports")
    parser.add_argument("--memory-of", choices=["bare", "collect"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    # Waiting threads would count as work.
    torch.set_num_threads(1)
    settings = Settings()
    subject = load_smollm2(settings.weights_folder)
    context = ToolContext(
        subject, 0, settings.home, settings.artifacts_folder, settings.cache_folder
    )
    corpus = sample_corpus(context, options.documents)
    if options.memory_of:
        sys.stdout.write(f"{_memory_of(options.memory_of, subject, corpus)}\n")
        return 0
    n = min(128, options.documents // 2)
    memory = [
        (each, peak_memory("bare", each), peak_memory("collect", each)) for each in (n, 2 * n)
    ]
    with tempfile.TemporaryDirectory() as folder:
        speed = measure_speed(subject, corpus, Path(folder))
    peer = None
    if options.peer:
        peer = measure_peer(subject, corpus, options.peer, options.peer_packages, options.rounds)
    page = render(speed, memory, peer)
    sys.stdout.write(page)
    if options.out:
        write_atomic(options.out, page)
    return 0 if reached(speed, memory, peer) else 1


if __name__ == "__main__":
    sys.exit(main())
