"""The narrator's rules: which prose may stand beside the claims, and the sentences that need none.

The verdict is always made here, by rule: a chat model that reads a refuted claim as a success
must not be able to put that at the head of a report.
"""

from collections.abc import Mapping, Sequence

from dragoman.agent.desk import Desk
from dragoman.agent.rendering.prose import ProseError, claim_pieces, filled_sentence, literal
from dragoman.agent.rendering.prose import Words as _Words
from dragoman.agent.report_names import claim_names, numbers_in
from dragoman.core.claims import Claim, Hypothesis
from dragoman.core.report import Sentence

FALLEN = ("refuted", "inconclusive")


def acceptable(sentence: Sentence, claims: Sequence[Claim], desk: Desk) -> str | None:
    """What is wrong with an offered sentence; None if it may stand."""
    by_id = {claim.id: claim for claim in claims}
    try:
        pieces = filled_sentence(sentence, by_id)
    except ProseError as error:
        return str(error)
    hypotheses = {each.id: each for each in desk.hypotheses()}
    names = {desk.scene.subject.name}.union(
        *(
            claim_names(by_id[each], hypotheses.get(by_id[each].hypothesis_id))
            for each in sentence.claim_ids
        )
    )
    prose = " ".join(piece.text for piece in pieces if isinstance(piece, _Words))
    if numbers := numbers_in(prose, frozenset(names)):
        return f"a sentence held the number {numbers[0]!r} that was not measured"
    statuses = {by_id[each].status for each in sentence.claim_ids}
    spoken = prose.casefold()
    for status in FALLEN:
        if status in statuses and status not in spoken:
            return f"a sentence did not say that its claim is {status}"
        if status not in statuses and status in spoken:
            return f"a sentence called a claim {status} that is not"
    return None


def verdict_sentences(claims: Sequence[Claim]) -> tuple[Sentence, ...]:
    """One sentence for each claim: what it says, with its number, and how far it got."""
    return tuple(
        Sentence(text=f"{_qualified(claim)}: {_with_holes(claim)}", claim_ids=(claim.id,))
        for claim in claims
    )


def account(claims: Sequence[Claim], hypotheses: Mapping[str, Hypothesis]) -> tuple[Sentence, ...]:
    """The narrative by rule: what each claim means for its rival."""
    sentences = []
    for claim in claims:
        rival = hypotheses[claim.hypothesis_id].rivals[0]
        metric = claim.effects[0].metric.replace("_", " ")
        match claim.status:
            case "refuted":
                said = f"The {metric} misses what was predicted (refuted), so the rival stands"
            case "inconclusive":
                said = f"The {metric} does not decide (inconclusive) against the rival"
            case _:
                said = (
                    f"The {metric} lies above its control and the threshold set beforehand, "
                    "against the rival"
                )
        sentences.append(Sentence(text=literal(f"{said} “{rival}”."), claim_ids=(claim.id,)))
    return tuple(sentences)


def _qualified(claim: Claim) -> str:
    return {
        "observed": "Observed",
        "correlated": "Correlated",
        "intervention-supported": "Supported by intervention",
        "replicated": "Supported by intervention, replicated",
        "refuted": "Refuted",
        "inconclusive": "Inconclusive",
    }[claim.status]


def _with_holes(claim: Claim) -> str:
    """The claim's text as a sentence's: its holes name the claim."""
    parts = []
    for piece in claim_pieces(claim.text):
        if isinstance(piece, _Words):
            parts.append(literal(piece.text))
        else:
            scope = f"#{piece.scope}" if piece.scope else ""
            parts.append(f"{{{claim.id}.{piece.metric}{scope}}}")
    return "".join(parts)
