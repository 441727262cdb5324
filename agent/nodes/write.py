"""Write: the narrative. A chat model may put claims into prose; numbers and verdicts it may not.

Each sentence it offers is checked like the finished report is: it cites a claim, holds no number
of its own and calls a fallen claim what it is. What does not pass is left out and noted.
"""

import json
from typing import Annotated, Any

from pydantic import ConfigDict, Field, create_model

from dragoman.agent.desk import Desk
from dragoman.agent.narrator import FALLEN, acceptable
from dragoman.agent.slots import one_of
from dragoman.agent.state import AuditState
from dragoman.agent.structured import UnusableReply
from dragoman.agent.templates import TEMPLATES
from dragoman.core.claims import Claim
from dragoman.core.errors import LimitReached
from dragoman.core.report import Sentence
from dragoman.prompts import render

_STATUS_WORDS = {
    "observed": "held, as behaviour",
    "correlated": "held, as a correlation",
    "intervention-supported": "held, by intervention",
    "replicated": "held, by intervention, twice",
    "refuted": "refuted",
    "inconclusive": "inconclusive",
}


def write(state: AuditState, desk: Desk) -> dict[str, Any]:
    """Let the chat model tell what was found, sentence by cited sentence."""
    claims = desk.claims()
    if not claims or desk.chat is None or state["stopped"]:
        return {}
    if desk.chat.identity.kind == "local":
        # Measured on the local model: it gives reasons that no claim carries, and a check of
        # numbers and statuses cannot see that. The account is then made by rule.
        return {}
    desk.phase("write", f"{len(claims)} claims into prose")
    refused: list[str] = []
    for question_index, question in enumerate(desk.specification.questions, start=1):
        cited = [each for each in claims if each.id.startswith(f"q{question_index}r")]
        if not cited:
            continue
        try:
            accepted, faults = _written(desk, question, cited)
        except (UnusableReply, LimitReached) as error:
            desk.notice(f"the claims stand without the chat model's prose: {error}")
            refused.append(str(error))
            continue
        refused += faults
        for index, sentence in enumerate(accepted, start=1):
            desk.keep("sentence", f"{question_index}.{index}", sentence)
    if refused:
        desk.deviate(
            "the chat model writes the narrative",
            "some of its sentences were left out",
            "; ".join(dict.fromkeys(refused)),
        )
    return {}


def _written(desk: Desk, question: str, claims: list[Claim]) -> tuple[list[Sentence], list[str]]:
    """The sentences that may stand and what was wrong with the others, after one correction."""
    accepted: list[Sentence] = []
    every: list[str] = []
    for _ in range(2):
        offered = _offer(desk, question, claims, every)
        judged = [(sentence, acceptable(sentence, claims, desk)) for sentence in offered]
        accepted = [sentence for sentence, fault in judged if fault is None]
        faults = [fault for _, fault in judged if fault is not None]
        if not faults:
            return accepted, []
        every += faults
    return accepted, every


def _offer(desk: Desk, question: str, claims: list[Claim], faults: list[str]) -> list[Sentence]:
    assert desk.chat is not None
    statements = {each.id: each for each in desk.hypotheses()}
    claim_id: Any = one_of(tuple(each.id for each in claims))
    listed: Any = Annotated[list[claim_id], Field(min_length=1, max_length=3)]
    text: Any = Annotated[str, Field(min_length=10, max_length=240)]
    sentence_type: Any = create_model(
        "OfferedSentence",
        __config__=ConfigDict(extra="forbid", strict=True),
        claim_ids=(listed, ...),
        text=(text, ...),
    )
    sentences: Any = Annotated[list[sentence_type], Field(min_length=1, max_length=len(claims))]
    reply_type: Any = create_model(
        "Narrative", __config__=ConfigDict(extra="forbid", strict=True), sentences=(sentences, ...)
    )
    facts = [
        {
            "id": each.id,
            "hypothesis": statements[each.hypothesis_id].statement,
            "measured": each.effects[0].metric.replace("_", " "),
            "outcome": _STATUS_WORDS[each.status],
            "must_say": each.status if each.status in FALLEN else "",
            "rival": TEMPLATES[statements[each.hypothesis_id].template].rivals[0],
        }
        for each in claims
    ]
    reply: Any = desk.ask(
        "narrative",
        render(
            "narrative",
            question=json.dumps(question, ensure_ascii=False),
            claims=json.dumps(facts, ensure_ascii=False),
            faults=json.dumps(faults, ensure_ascii=False),
        ),
        reply_type,
        max_tokens=400,
    )
    return [
        Sentence(text=each.text, claim_ids=tuple(dict.fromkeys(each.claim_ids)))
        for each in reply.sentences
    ]
