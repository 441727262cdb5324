"""Filled prose as content: sentences and claims with their numbers in place."""

from collections.abc import Sequence

from textual.content import Content
from textual.style import Style

from dragoman.agent.rendering.numbers import interval, phrase, value
from dragoman.agent.rendering.prose import Filled, Words
from dragoman.agent.rendering.view import ReportView, SentenceView
from dragoman.core.claims import Claim
from dragoman.tui.widgets.safe_text import shown


def claim_content(text: Sequence[Filled], *, brief: bool = False) -> Content:
    """A claim's text; `brief` leaves n and control to the evidence."""
    return Content.assemble(*(_piece(piece, brief=brief) for piece in text))


def sentence_content(sentence: SentenceView, view: ReportView) -> Content:
    """A sentence, then `[C1][C2]`: the claims that it cites.

    Numbers and marks carry the action `open_claim(place)`, `place` counting the report's claims
    from 0; the widget that shows the content has to offer it.
    """
    places = {claim.claim.id: place for place, claim in enumerate(view.claims)}
    text = Content.assemble(*(_piece(piece, places=places) for piece in sentence.pieces))
    marks = [
        _link(Content(f"[{each.label}]"), places[each.claim.id]) for each in sentence.citations
    ]
    return Content.assemble(text, " " if marks else "", *marks)


def _piece(piece: Filled, *, brief: bool = False, places: dict[str, int] | None = None) -> Content:
    if isinstance(piece, Words):
        return shown(piece.text)
    measurement = piece.measurement
    words = f"{value(measurement)} {interval(measurement)}" if brief else phrase(measurement)
    figure = shown(words, one_line=True)
    claim: Claim = piece.claim
    return _link(figure, places[claim.id]) if places else figure.stylize("bold")


def _link(content: Content, place: int) -> Content:
    return content.stylize(Style.from_meta({"@click": f"open_claim({place:d})"}))
