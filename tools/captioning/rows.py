"""One row a unit: all that a batch run, its page and the atlas know of the unit."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from dragoman.core.records import JsonObject, Measurement, Record

RowKind: TypeAlias = Literal["mlp", "resid", "head", "latent", "channel"]
"""`channel` is a unit of a vision subject, the others are those of a language subject."""

_MAIN_METRIC = "detection"


class TextExemplar(Record):
    """Tokens around one of the unit's peaks, with how strongly each activates it."""

    tokens: tuple[str, ...]
    strengths: tuple[float, ...]
    """Share of the unit's highest activation, 0 to 1, one a token."""
    peak: int
    """Index of the peak in `tokens`."""
    activation: float


class ImageExemplar(Record):
    """Images at which the unit peaks, in one picture with all but the active regions dimmed."""

    picture: str
    """File name beside the rows, in the folder `pictures`."""
    activations: tuple[float, ...]
    """One an image, in the picture's order: row by row."""
    labels: tuple[str, ...] = ()
    """Class names of the images, where they have any."""


class SenseRow(Record):
    """One of several things that a unit responds to."""

    caption: str
    share: Annotated[float, Field(ge=0, le=1)]
    """Of the unit's active contexts."""
    score: float | None = None
    floor: float | None = None
    """What the same sense scores on other units."""
    holds: bool | None = None
    """The whole interval of its score lies above the floor; None where it could not be scored."""


class UnitCaption(Record):
    """What was found out about one unit; a unit without caption says why it has none."""

    name: str
    """`12.77` for MLP neurons and channels, else with the kind: `resid.12.77`."""
    kind: RowKind
    layer: int
    unit: int
    dictionary: str = ""
    """Of a latent: `SparseDictionary.short_digest` of its autoencoder."""
    caption: str | None = None
    best_rejected: str | None = None
    """The best candidate of a unit that no caption explains better than the floor."""
    reason: str | None = None
    proposer: str | None = None
    predicate: JsonObject | None = None
    """What the caption says in checkable form."""
    density: float | None = None
    """Share of positions with an activation above zero."""
    threshold: float | None = None
    senses: tuple[SenseRow, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    controls: tuple[Measurement, ...] = ()
    exemplars: tuple[TextExemplar, ...] = ()
    images: ImageExemplar | None = None
    details: JsonObject = Field(default_factory=dict)
    """Whatever else the captioner says of the unit."""

    @property
    def n_images_failed(self) -> int:
        """How many of the pictures that the unit should have been shown do not decode."""
        failed = self.details.get("n_images_failed")
        return failed if isinstance(failed, int) else 0

    @property
    def score(self) -> Measurement | None:
        """The detection score, else the first measurement there is."""
        named = [each for each in self.measurements if each.metric == _MAIN_METRIC]
        return next(iter([*named, *self.measurements]), None)

    @property
    def told(self) -> str | None:
        """The caption, or the best one that was rejected."""
        return self.caption or self.best_rejected


def unit_name(kind: RowKind, layer: int, unit: int) -> str:
    """The name that stands in rows and scopes: MLP neurons and channels go without their kind."""
    short = f"{layer}.{unit}"
    return short if kind in ("mlp", "channel") else f"{kind}.{short}"


_TAKEN = frozenset(UnitCaption.model_fields) | {"exemplars"}


def row_of_entry(
    kind: RowKind,
    layer: int,
    unit: int,
    entry: JsonObject,
    measurements: Sequence[Measurement],
    controls: Sequence[Measurement],
    *,
    exemplars: Sequence[TextExemplar] = (),
    images: ImageExemplar | None = None,
    dictionary: str = "",
) -> UnitCaption:
    """The row for a unit of which `caption_neurons` says `entry`."""
    values: dict[str, Any] = {
        name: entry[name]
        for name in (
            "caption",
            "best_rejected",
            "reason",
            "proposer",
            "predicate",
            "density",
            "threshold",
        )
        if name in entry
    }
    senses = entry.get("senses")
    return UnitCaption(
        name=unit_name(kind, layer, unit),
        kind=kind,
        layer=layer,
        unit=unit,
        dictionary=dictionary,
        senses=tuple(_senses(senses if isinstance(senses, list) else [])),
        measurements=tuple(measurements),
        controls=tuple(controls),
        exemplars=tuple(exemplars),
        images=images,
        details={
            name: value for name, value in entry.items() if name not in _TAKEN and name != "unit"
        },
        **values,
    )


def _senses(listed: Sequence[Any]) -> Iterator[SenseRow]:
    for each in listed:
        if isinstance(each, dict) and isinstance(each.get("caption"), str):
            yield SenseRow(**{name: each[name] for name in SenseRow.model_fields if name in each})
