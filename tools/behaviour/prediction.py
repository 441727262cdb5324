"""What a subject predicts next after a prompt, and how it goes on."""

from typing import Annotated

import torch
from pydantic import Field

from dragoman.core.errors import ToolError
from dragoman.core.records import Measurement, ToolSuccess
from dragoman.tools import statistics
from dragoman.tools.behaviour.openings import OPENINGS, opened
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tool

Prompt = Annotated[str, Field(min_length=1, max_length=4000, description="Text to be continued")]

# A fresh document start is the control: what the subject says when it was asked nothing.
_UNRELATED = "The"


@tool(method="behaviour")
def predict_next(
    ctx: ToolContext,
    prompt: Prompt,
    answer: Annotated[
        str | None,
        Field(max_length=200, description="A continuation whose first token is measured"),
    ] = None,
    top_k: Annotated[int, Field(ge=1, le=50, description="How many tokens to list")] = 5,
) -> ToolSuccess:
    """Next-token probabilities after a prompt, averaged over neutral openings before it.

    Measures `probability` of the answer's first token (or, without an answer, of the most probable
    token) against its probability after an unrelated prompt.
    """
    subject = ctx.subject
    ctx.step(0, 2, "reading the prompt in several surroundings")
    asked = subject.log_probs(opened(prompt)).exp()
    ctx.step(1, 2, "reading the control")
    control = subject.log_probs(opened(_UNRELATED)).exp()
    top = asked[0].topk(top_k)
    token = int(top.indices[0]) if answer is None else subject.first_token(answer)
    measurement = statistics.mean(
        "probability",
        asked[:, token].double().numpy(),
        unit="probability",
        baseline_samples=control[:, token].double().numpy(),
        control="the same token after an unrelated prompt",
        seed=ctx.seed,
        scope=f"token {subject.token_text(token)!r}",
    )
    rank = int((asked[0] > asked[0, token]).sum()) + 1
    ctx.step(2, 2, "done")
    return ToolSuccess(
        summary=(
            f"after {prompt!r} the token {subject.token_text(token)!r} has probability "
            f"{measurement.value:.2f} (rank {rank} for the bare prompt)"
        ),
        measurements=(measurement,),
        output={
            "next_tokens": [
                {"token": subject.token_text(int(index)), "probability": float(value)}
                for value, index in zip(top.values, top.indices, strict=True)
            ],
            "measured_token": subject.token_text(token),
            "rank": rank,
            "openings": list(OPENINGS),
        },
    )


@tool(method="behaviour")
def continue_text(
    ctx: ToolContext,
    prompt: Prompt,
    max_new_tokens: Annotated[int, Field(ge=1, le=200, description="Length of the text")] = 40,
    samples: Annotated[
        int, Field(ge=0, le=16, description="Sampled texts beside the greedy one")
    ] = 3,
    temperature: Annotated[float, Field(gt=0, le=2, description="Of the sampled texts")] = 0.8,
) -> ToolSuccess:
    """The subject's own continuation of a prompt: the greedy one and some seeded samples.

    Measures `log_probability` per token of the greedy text after the prompt, against the same text
    after an unrelated prompt: how much of it the prompt brought about.
    """
    subject = ctx.subject
    ctx.step(0, 2, "writing the greedy text")
    greedy = subject.generate([prompt], max_new_tokens)[0]
    ctx.step(1, 2, "writing samples")
    sampled = (
        subject.generate([prompt] * samples, max_new_tokens, temperature=temperature, seed=ctx.seed)
        if samples
        else []
    )
    measurements: tuple[Measurement, ...] = ()
    if greedy.strip():
        per_token = _log_probabilities(ctx, prompt, greedy)
        unprompted = _log_probabilities(ctx, _UNRELATED, greedy)
        measurements = (
            statistics.mean(
                "log_probability",
                per_token,
                unit="nat",
                baseline_samples=unprompted,
                control="the same text after an unrelated prompt",
                seed=ctx.seed,
            ),
        )
    ctx.step(2, 2, "done")
    return ToolSuccess(
        summary=f"the subject continues {prompt!r} with {greedy!r}",
        measurements=measurements,
        output={"greedy": greedy, "samples": [*sampled], "temperature": temperature},
        caveats=() if measurements else ("the subject ended the text at once",),
    )


@torch.no_grad()
def _log_probabilities(ctx: ToolContext, prompt: str, text: str) -> list[float]:
    """Log-probability (nats) of each token of `text` after `prompt`."""
    subject = ctx.subject
    batch = subject.batch([prompt + text])
    n_prompt = len(subject.token_ids(prompt))
    if batch.ids.shape[1] <= n_prompt:
        raise ToolError("the continuation has no tokens of its own")
    log_probs = subject.all_logits(batch)[0, n_prompt - 1 : -1].log_softmax(-1)
    chosen = log_probs.gather(1, batch.ids[0, n_prompt:, None])[:, 0]
    return [float(value) for value in chosen]
