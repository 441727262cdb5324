"""What the subject writes under each method: examples to read, and how fluent they are."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Measurement
from dragoman.tools.editing.directions import EDITED, NO_EDIT, PREFIX
from dragoman.tools.editing.editor import edit_at_entity
from dragoman.tools.editing.metrics import ngram_entropy
from dragoman.tools.editing.probes import Probe
from dragoman.tools.editing.records import Prompt
from dragoman.tools.statistics import mean
from dragoman.tools.subjects.language import LanguageSubject


class Written(NamedTuple):
    """The text after one probe's prompt, by method."""

    probe: Probe
    texts: Mapping[str, str]


def write(
    subject: LanguageSubject,
    probes: Sequence[Probe],
    layer: int,
    directions: Mapping[str, Float[Tensor, "record d_model"]],
    n_tokens: int,
) -> list[Written]:
    """Greedy continuations; the edit acts in the prompt pass alone.

    All methods go in one batch: without an edit the direction is zero, and the prefix baseline has
    another prompt.
    """
    methods = [EDITED, NO_EDIT, PREFIX, *(name for name in directions if name != EDITED)]
    prompts: list[Prompt] = []
    vectors: list[Tensor] = []
    nothing = torch.zeros_like(directions[EDITED][0])
    for probe in probes:
        for method in methods:
            prefix = probe.context if method == PREFIX else ""
            prompts.append(
                Prompt(prefix + probe.prompt.text, len(prefix) + probe.prompt.entity_end)
            )
            vectors.append(directions[method][probe.record] if method in directions else nothing)
    edit = edit_at_entity(subject, prompts, layer, torch.stack(vectors))
    texts = subject.generate([prompt.text for prompt in prompts], n_tokens, edits=[edit])
    return [
        Written(probe, dict(zip(methods, texts[start : start + len(methods)], strict=True)))
        for probe, start in zip(probes, range(0, len(texts), len(methods)), strict=True)
    ]


def measure_fluency(written: Sequence[Written], n_tokens: int, seed: int) -> list[Measurement]:
    """`fluency` in bits, of the editor and then of each baseline, beside unedited text."""
    by_method = {
        method: [ngram_entropy(one.texts[method]) for one in written] for method in written[0].texts
    }
    return [
        mean(
            "fluency",
            values,
            unit="bit",
            baseline_samples=by_method[NO_EDIT],
            control=f"{NO_EDIT}, texts of {n_tokens} tokens",
            seed=seed,
            scope="" if method == EDITED else method,
        )
        for method, values in by_method.items()
        if method != NO_EDIT
    ]
