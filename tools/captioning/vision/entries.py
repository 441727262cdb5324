"""What is written of one captioned vision unit: caption, senses, images, or why there is none."""

from typing import Any

from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject
from dragoman.tools.captioning import scoring
from dragoman.tools.captioning.entries import NO_CAPTION, sense_entry
from dragoman.tools.captioning.vision.bench import VisionBench
from dragoman.tools.captioning.vision.captioner import Chosen
from dragoman.tools.captioning.vision.concepts import CONCEPT
from dragoman.tools.captioning.vision.scores import VisionAssessment


def entry_of(
    bench: VisionBench,
    unit: int,
    chosen: Chosen | None,
    found: VisionAssessment | None,
    *,
    tau: float,
) -> JsonObject:
    """The entry of requested unit number `unit`.

    A caption that does not beat its floor stands under `best_rejected`, beside a reason.
    """
    captioner = bench.captioner
    holds = found is not None and found.holds
    entry: dict[str, Any] = {
        "unit": bench.unit_names[unit],
        "caption": None,
        "density": round(float(captioner.density[unit]), 4),
        "threshold": round(float(captioner.thresholds[unit]), 4),
        "tau": tau,
        "exemplars": [
            {
                "image": visible(bench.images.ids[image]),
                "label": visible(bench.images.labels[image] or ""),
                "activation": round(activation, 4),
            }
            for image, activation in captioner.exemplars(unit)
        ],
    }
    if chosen is not None:
        candidate = chosen.candidate
        entry["caption" if holds else "best_rejected"] = visible(candidate.caption)
        entry["proposer"] = candidate.proposer
        entry["n_candidates"] = chosen.n_candidates
        entry["predicate"] = CONCEPT.dump_python(candidate.concept, mode="json")
        entry["patches_needed"] = chosen.extent
        if holds:
            entry["senses"] = [
                sense_entry(
                    sense.caption,
                    sense.share,
                    sense.score,
                    CONCEPT.dump_python(sense.concept, mode="json"),
                )
                for sense in chosen.senses
            ]
    if not holds:
        entry["reason"] = _reason(bench, unit, chosen, scored=found is not None)
    if found is not None:
        entry["scores"] = found.output
        if found.causes is not None:
            entry["causal"] = found.causes
    return entry


def _reason(bench: VisionBench, unit: int, chosen: Chosen | None, *, scored: bool) -> str:
    if bench.captioner.dead(unit):
        return "dead on these images: never above zero, or always the same"
    if chosen is not None and not scored:
        return f"fewer than {scoring.MIN_ACTIVE} active or silent held-out images: not scored"
    return NO_CAPTION
