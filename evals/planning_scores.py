"""Put questions to a planner and score what it chooses, beside templates drawn by lot."""

from collections.abc import Callable, Sequence

from dragoman.agent.planner import Brief, choose
from dragoman.agent.router import Choice, route
from dragoman.agent.slots import GROUPS, Scene
from dragoman.agent.structured import UnusableReply
from dragoman.agent.templates import TEMPLATES
from dragoman.core.protocols import ChatModel
from dragoman.core.records import Measurement, Record, SubjectIdentity
from dragoman.evals.questions import (
    Call,
    Chance,
    Question,
    Split,
    call_accepted,
    chance,
    tool_accepted,
)
from dragoman.tools.relations import list_relations
from dragoman.tools.statistics import wilson

PROTOCOL = "fixed protocol"
_MOST = 2


class Planned(Record):
    """What became of one question."""

    id: str
    choices: tuple[Call, ...]
    """Most direct first; none where the planner had no answer."""
    tool: bool
    arguments: bool
    either: bool
    failed: str | None = None
    """Why the chat model's reply could not be used; such a question counts as wrong."""


class Outcome(Record):
    """One planner's result on one split."""

    planner: str
    split: Split
    seed: int
    command: str
    measurements: tuple[Measurement, ...]
    """`tool`, `arguments`, `either`; baseline: templates drawn by lot."""
    chance: Chance
    questions: tuple[Planned, ...]


def make_scene(seed: int) -> Scene:
    """What an audit of the default subject chooses from; sizes alone, the weights stay away."""
    subject = SubjectIdentity(
        name="smollm2",
        digest="not loaded",
        architecture="LlamaForCausalLM",
        n_layers=30,
        d_model=576,
        d_mlp=1536,
        d_vocab=49152,
        n_parameters=134_515_008,
    )
    return Scene(subject, list_relations(), seed, "quick", GROUPS)


def evaluate(
    chat: ChatModel | None,
    questions: Sequence[Question],
    *,
    split: Split = "test",
    seed: int = 0,
    command: str = "",
    told: Callable[[Planned], None] = lambda planned: None,
) -> Outcome:
    """Put each question to the planner and score what it chose first (`either`: in its first two).

    Errors of the endpoint propagate; a reply that fits no schema counts as wrong.
    """
    scene = make_scene(seed)
    planned = []
    for question in questions:
        planned.append(_put(chat, question, scene))
        told(planned[-1])
    by_lot = chance(questions, TEMPLATES, scene)
    n, n_failed = len(planned), sum(each.failed is not None for each in planned)

    def fraction(metric: str, right: int, baseline: float) -> Measurement:
        return Measurement(
            metric=metric,
            value=right / n,
            unit="fraction",
            baseline=baseline,
            control="templates drawn by lot",
            ci95=wilson(right, n),
            n=n,
            n_failed=n_failed,
        )

    return Outcome(
        planner=PROTOCOL if chat is None else chat.identity.model,
        split=split,
        seed=seed,
        command=command,
        measurements=(
            fraction("tool", sum(each.tool for each in planned), by_lot.tool),
            fraction("arguments", sum(each.arguments for each in planned), by_lot.arguments),
            fraction("either", sum(each.either for each in planned), by_lot.either),
        ),
        chance=by_lot,
        questions=tuple(planned),
    )


def _put(chat: ChatModel | None, question: Question, scene: Scene) -> Planned:
    failed = None
    choices: Sequence[Choice] = ()
    try:
        if chat is None:
            choices = route(question.question, scene, TEMPLATES)
        else:
            brief = Brief(question.question, scene, TEMPLATES, most=_MOST, seed=scene.seed)
            choices = choose(chat, brief)
    except UnusableReply as error:
        failed = str(error)
    calls = tuple(
        Call(tool=each.template.tool, arguments=each.template.arguments(each.slots, scene))
        for each in choices[:_MOST]
    )
    return Planned(
        id=question.id,
        choices=calls,
        tool=bool(calls) and tool_accepted(question, calls[0]),
        arguments=bool(calls) and call_accepted(question, calls[0]),
        either=any(tool_accepted(question, call) for call in calls),
        failed=failed,
    )
