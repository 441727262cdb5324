"""How fast an editor trains, against the published procedure, as ratios within one run.

`python -m dragoman.evals.edit_speed --out docs/evals/edit_speed.md` trains the same editor on the
same batch at the same layer in two ways: ours (`tools.editing.training`: what lies below the edited
layer and before the entity is cached once, no weight of the subject has a gradient) and the
published one (every layer in every step, gradients enabled on all weights and never cleared). Each
runs in a process of its own, which reports processor seconds a step, the highest memory above the
loaded subject, and the loss of the first step: the two losses must agree. Exit code 1 when a goal
is missed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from dragoman.core.escaping import visible
from dragoman.core.settings import Settings
from dragoman.evals.telling import publish
from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.editor import edit_at_entity, read_records
from dragoman.tools.editing.editors.base import Editor
from dragoman.tools.editing.editors.catalogue import make_editor
from dragoman.tools.editing.loss import LossTerms, loss_terms
from dragoman.tools.editing.records import EditRecord, ask, swap_objects
from dragoman.tools.editing.training import Examples, TrainingSettings, edit_loss
from dragoman.tools.relations import Relation, load_relation
from dragoman.tools.subjects.huggingface import DEFAULT_SUBJECT, load_subject
from dragoman.tools.subjects.language import LanguageSubject

BATCH = 16
FASTER, LEANER, TOLERANCE = 3.0, 0.5, 1e-3
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Measured(NamedTuple):
    """One way at one layer."""

    seconds: float
    """Of the processor, for a step."""
    mebibytes: float
    """The highest above the loaded subject."""
    loss: float
    """Of the first step."""


def batch_of(subject: LanguageSubject, relation: Relation) -> tuple[str, list[EditRecord]]:
    """A template and a batch of swaps."""
    tokens = {name: subject.first_token(name) for name in relation.objects}
    records = swap_objects(relation.samples, relation.objects, tokens, 0, limit=BATCH)
    return relation.prompt_templates[0], records


def ours(
    subject: LanguageSubject, template: str, records: Sequence[EditRecord], layer: int
) -> Callable[[Editor], LossTerms]:
    """A step that runs the blocks above the layer, over the positions from the entity on."""
    inputs, new, old = _data(subject, template, records, layer)
    prompts = [ask(template, record.entity) for record in records]
    rows = list(range(len(records)))
    examples = Examples(PromptCache(subject, prompts, [layer]), tuple(rows), inputs, new, old)
    return lambda editor: edit_loss(editor, examples, rows, layer, TrainingSettings())


def published(
    subject: LanguageSubject, template: str, records: Sequence[EditRecord], layer: int
) -> Callable[[Editor], LossTerms]:
    """A step that runs every block, once without and once with the edit, weights in the graph."""
    inputs, new, old = _data(subject, template, records, layer)
    prompts = [ask(template, record.entity) for record in records]
    texts = subject.batch([prompt.text for prompt in prompts])
    settings = TrainingSettings()
    ends = torch.tensor([subject.last_token(one.text, one.entity_end) for one in prompts])
    n_pos = texts.ids.shape[1]
    places = torch.arange(-n_pos, 0)
    mask = (places[None] >= ends[:, None]) & (places < -1)
    subject.model.requires_grad_(True)

    def loss(editor: Editor) -> LossTerms:
        with torch.no_grad():
            original = subject.all_logits(texts).log_softmax(-1)
        edit = edit_at_entity(subject, prompts, layer, editor(inputs))
        edited = subject.all_logits(texts, [edit]).log_softmax(-1)
        return loss_terms(
            edited,
            original,
            mask,
            new,
            old,
            lambda_old=settings.lambda_old,
            lambda_kl=settings.lambda_kl,
        )

    return loss


WAYS = {"ours": ours, "published": published}


def measure(
    subject: LanguageSubject, relation: Relation, way: str, layer: int, n_steps: int
) -> Measured:
    """Train an editor for some steps; preparing what is cached counts for memory, not for time."""
    template, records = batch_of(subject, relation)
    _forget_peak()
    before = _kibibytes("VmRSS")
    loss = WAYS[way](subject, template, records, layer)
    editor = make_editor("linear", subject.d_model, 0)
    optimizer = torch.optim.AdamW(editor.parameters(), lr=1e-3)
    first, started = 0.0, time.process_time()
    for step in range(n_steps):
        total = loss(editor).total()
        first = first if step else float(total.detach())
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()
    seconds = (time.process_time() - started) / n_steps
    subject.model.requires_grad_(False).zero_grad()
    return Measured(seconds, (_kibibytes("VmHWM") - before) / 1024, first)


def render(found: dict[tuple[str, int], Measured], subject: str, command: str) -> tuple[str, bool]:
    """The page, and whether every goal is met."""
    layers = sorted({layer for _, layer in found})
    lines = [
        f"# Training an editor on {visible(subject, one_line=True)}",
        "",
        f"One batch of {BATCH} records of `country_capital`, the same loss, float32, one thread, "
        "each way in a process of its own. *Published*: every layer in every step, gradients on "
        "all weights. Memory is the highest above the loaded subject.",
        "",
        "| layer | ours, s a step | published, s a step | times as fast | ours, MiB "
        "| published, MiB | share of its memory | difference of the first loss |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    good = True
    for layer in layers:
        mine, other = found["ours", layer], found["published", layer]
        faster, share = other.seconds / mine.seconds, mine.mebibytes / other.mebibytes
        apart = abs(mine.loss - other.loss) / abs(other.loss)
        good = good and faster >= FASTER and share <= LEANER and apart <= TOLERANCE
        lines.append(
            f"| {layer} | {mine.seconds:.3f} | {other.seconds:.3f} | {faster:.1f} "
            f"| {mine.mebibytes:.0f} | {other.mebibytes:.0f} | {share:.2f} | {apart:.0e} |"
        )
    costs = [found["ours", layer].seconds for layer in layers]
    falling = all(later < earlier for earlier, later in pairwise(costs))
    good = good and falling
    lines += [
        "",
        f"Goals: at least {FASTER:g} times as fast and at most {LEANER:g} of the memory at every "
        f"layer, the same loss, and a cost that falls as the layer rises: "
        f"{'met' if good else 'not all met'}.",
        "",
        f"Made by `{command}`.",
    ]
    return "\n".join(lines) + "\n", good


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both ways at each layer; 0 if every goal is met."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.edit_speed", description=__doc__
    )
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 13, 21])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--only", choices=sorted(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        torch.set_num_threads(1)
        subject = load_subject(options.subject, Settings())
        relation = load_relation("country_capital")
        done = [
            measure(subject, relation, options.only, layer, options.steps)
            for layer in options.layers
        ]
        sys.stdout.write(json.dumps(done))
        return 0
    found = {
        (way, layer): _in_own_process(way, layer, options)
        for layer in options.layers
        for way in WAYS
    }
    text, good = render(found, options.subject, "python -m dragoman.evals.edit_speed")
    publish(text, options.out)
    return 0 if good else 1


def _in_own_process(way: str, layer: int, options: argparse.Namespace) -> Measured:
    command = [sys.executable, "-m", "dragoman.evals.edit_speed", "--only", way]
    command += ["--subject", options.subject, "--steps", str(options.steps), "--layers", str(layer)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    [one] = json.loads(done.stdout)
    return Measured(*one)


def _data(
    subject: LanguageSubject, template: str, records: Sequence[EditRecord], layer: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    inputs = read_records(subject, template, records, [layer]).inputs("contrast")[layer]
    new = torch.tensor([subject.first_token(record.new_object) for record in records])
    old = torch.tensor([subject.first_token(record.old_object) for record in records])
    return inputs, new, old


def _forget_peak() -> None:
    """Start the kernel's account of the highest memory anew."""
    _FORGET.write_text("5")


def _kibibytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"{_STATUS} does not tell {name}: this needs Linux")


if __name__ == "__main__":
    sys.exit(main())
