"""What is written of one captioned unit: caption, senses, exemplars, or why there is none."""

from typing import Any

from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject
from dragoman.tools.captioning import scoring
from dragoman.tools.captioning.captioner import Captioner, Chosen
from dragoman.tools.captioning.predicates import PREDICATE
from dragoman.tools.captioning.reranking import TAU

NO_CAPTION = "no caption beats its floor"
BELOW_TWIN = "its caption says no more of it than captions of random units say of theirs"
_SHOWN_EXEMPLARS = 5


def entry_of(
    captioner: Captioner,
    unit: int,
    name: str,
    chosen: Chosen | None,
    holds: bool,
    *,
    scored: bool,
    tau: float = TAU,
    reason: str = NO_CAPTION,
) -> JsonObject:
    """The entry of requested unit number `unit`.

    `holds`: the caption beats its floor, and the random twin where there is one; else it stands
    under `best_rejected`, beside a `reason`.
    """
    entry: dict[str, Any] = {
        "unit": name,
        "caption": None,
        "density": round(float(captioner.summaries.density()[unit]), 4),
        "threshold": round(float(captioner.thresholds[unit]), 4),
        "tau": tau,
        "exemplars": shown(captioner, unit)[:_SHOWN_EXEMPLARS],
    }
    if chosen is not None:
        candidate = chosen.candidate
        entry["caption" if holds else "best_rejected"] = candidate.caption
        entry["proposer"] = candidate.proposer
        entry["n_candidates"] = chosen.n_candidates
        if candidate.predicate is not None:
            entry["predicate"] = PREDICATE.dump_python(candidate.predicate, mode="json")
        if holds:
            entry["senses"] = [
                sense_entry(
                    sense.caption,
                    sense.share,
                    sense.score,
                    PREDICATE.dump_python(sense.predicate, mode="json"),
                )
                for sense in chosen.senses
            ]
    if not holds:
        if captioner.dead(unit):
            entry["reason"] = "dead on this corpus: never above zero, or always the same"
        elif chosen is not None and not scored:
            entry["reason"] = (
                f"fewer than {scoring.MIN_ACTIVE} active or silent held-out contexts: not scored"
            )
        else:
            entry["reason"] = reason
    return entry


def shown(captioner: Captioner, unit: int) -> list[JsonObject]:
    """The unit's exemplars, escaped, strongest first."""
    if captioner.dead(unit):
        return []
    return [
        {
            "before": visible(before),
            "token": visible(token),
            "after": visible(after),
            "activation": round(exemplar.activation, 4),
        }
        for exemplar, (before, token, after) in captioner.exemplars(unit)
    ]


def sense_entry(
    caption: str, share: float, score: scoring.Score | None, predicate: Any
) -> JsonObject:
    """One of the things that a unit responds to; `holds` is null where it could not be scored."""
    return {
        "caption": caption,
        "share": round(share, 4),
        "score": None if score is None else round(score.detection.balanced_accuracy, 4),
        "floor": None if score is None else round(score.floor_mean, 4),
        "holds": None if score is None else score.beats_floor,
        "predicate": predicate,
    }
