"""Minimal pairs: what one difference between two prompts does to an answer.

A paired design with a sign-flip permutation test (Fisher 1935): under the null the two sides of
each pair may be exchanged, so flipping signs at random gives the control.
"""

from typing import Annotated

import numpy as np
from pydantic import Field, JsonValue

from dragoman.core.errors import ToolError
from dragoman.core.records import Measurement, ToolSuccess
from dragoman.tools import statistics
from dragoman.tools.behaviour.openings import opened
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tool

_FLIPS = 10_000


@tool(method="behaviour")
def compare_prompts(
    ctx: ToolContext,
    first: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000)]],
        Field(min_length=1, max_length=64, description="Prompts of one side"),
    ],
    second: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000)]],
        Field(min_length=1, max_length=64, description="Their partners, in the same order"),
    ],
    answer: Annotated[
        str, Field(min_length=1, max_length=200, description="The continuation to compare")
    ],
) -> ToolSuccess:
    """Whether an answer is more probable after the first prompts than after their partners.

    Measures `log_probability_difference` (nats, first minus second) of the answer's first token
    over the pairs, each read after neutral openings, against the same pairs with sides exchanged
    at random; `p_value` is that of the two-sided sign-flip test.
    """
    if len(first) != len(second):
        raise ToolError(
            f"compare_prompts: 'first' holds {len(first)} prompts and 'second' {len(second)}; "
            "they are pairs, so give as many of each"
        )
    subject = ctx.subject
    token = subject.first_token(answer)
    differences = []
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        ctx.step(index, len(first), "comparing pairs")
        # Openings are not independent samples: a pair is one sample, its openings are averaged.
        log_probs = subject.log_probs([*opened(one), *opened(other)])[:, token].double()
        ahead, behind = log_probs.chunk(2)
        differences.append(float((ahead - behind).mean()))
    ctx.step(len(first), len(first), "testing")
    difference = _measured(np.asarray(differences), ctx.seed)
    p_value = sign_flip_p(np.asarray(differences), ctx.seed)
    answered = f"{answer!r} (token {subject.token_text(token)!r})"
    pairs: list[JsonValue] = [
        {"first": one, "second": other, "difference_nats": value}
        for one, other, value in zip(first, second, differences, strict=True)
    ]
    return ToolSuccess(
        summary=(
            f"{answered} is {difference.value:+.2f} nats more probable after the first prompts "
            f"(sign-flip p = {p_value:.4f}, {len(first)} pairs)"
        ),
        measurements=(difference,),
        output={"p_value": p_value, "pairs": pairs},
        caveats=("fewer than six pairs: no test can reach p < .05",) if len(first) < 6 else (),
    )


def sign_flip_p(differences: statistics.Floats, seed: int) -> float:
    """Two-sided p that a mean as far from zero comes from exchanging sides at random."""
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1.0, 1.0], size=(_FLIPS, differences.shape[0]))
    flipped = np.abs((signs * differences).mean(axis=1))
    at_least = np.sum(flipped >= abs(differences.mean()) - 1e-12)
    return float((1 + at_least) / (_FLIPS + 1))


def _measured(differences: statistics.Floats, seed: int) -> Measurement:
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1.0, 1.0], size=(_FLIPS, differences.shape[0]))
    flipped = (signs * differences).mean(axis=1)
    low, high = np.quantile(flipped, [0.025, 0.975])
    value = float(differences.mean())
    interval = statistics.bootstrap(differences, seed)
    return Measurement(
        metric="log_probability_difference",
        value=value,
        unit="nat",
        baseline=0.0,
        control="sides exchanged at random",
        ci95=(min(interval.low, value), max(interval.high, value)),
        n=differences.shape[0],
        baseline_ci95=(min(float(low), 0.0), max(float(high), 0.0)),
    )
