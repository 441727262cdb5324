"""A run's rows as one self-contained page: searched, sorted and leafed through without a request.

The policy in its head forbids everything but our own style sheet and script, which it admits by
their sha256, and pictures that are part of the page. Text of a subject passes `visible`, travels as
JSON without a single `<`, and is only ever put into text nodes.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dragoman.core.escaping import visible
from dragoman.core.files import atomic_path
from dragoman.core.records import Measurement
from dragoman.tools.captioning.batch import BatchSettings, read_rows
from dragoman.tools.captioning.rows import ImageExemplar, TextExemplar, UnitCaption

PAGE_FILE = "captions.html"
MOST_PICTURE_BYTES = 512 * 1024
"""A larger picture is named and not shown: thousands of units share the page."""
_PER_CHUNK = 100
"""Units whose details are parsed together, when one of them is shown."""
_FOLDER = Path(__file__).resolve().parent
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
_SHADES = 9


def write_page(folder: Path, settings: BatchSettings, n_asked: int) -> Path:
    """Make `captions.html` from the rows in `folder`; of `n_asked` units there may be fewer.

    Same rows and pictures, same bytes. Memory holds one chunk of units at a time.
    """
    index: list[list[Any]] = []
    layers: dict[int, None] = {}
    n_images_failed = 0
    for row in read_rows(folder):
        n_images_failed = max(n_images_failed, row.n_images_failed)
        index.append(_entry(row))
        layers[row.layer] = None
    style, script = (
        (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    stream = (
        _environment()
        .get_template("page.html.j2")
        .stream(
            settings=settings,
            n_units=len(index),
            n_captioned=sum(entry[3] for entry in index),
            n_asked=n_asked,
            n_images_failed=n_images_failed,
            layers=sorted(layers),
            index=_data({"per_chunk": _PER_CHUNK, "units": index}),
            chunks=_chunks(folder),
            # Markup: files of ours that hold no foreign text.
            style=Markup(style),
            script=Markup(script),
            style_sha256=_sha256(style),
            script_sha256=_sha256(script),
        )
    )
    target = folder / PAGE_FILE
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as opened:
        for piece in stream:
            opened.write(piece)
    return target


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else _shown(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _data(value: Any) -> Markup:
    """JSON for a data block: nothing in it can end the block or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    # Markup: within a data block only the signs that were just replaced mean anything.
    return Markup(text)


def _shown(text: str | None) -> str:
    return visible(text or "", one_line=True)


def _entry(row: UnitCaption) -> list[Any]:
    """What search and sort need of a unit; the script names the places."""
    score = row.score
    return [
        _shown(row.name),
        row.layer,
        _shown(row.told),
        int(row.caption is not None),
        None if score is None else round(score.value, 4),
        None if score is None else round(score.baseline, 4),
        row.density,
        _shown(" ".join(sense.caption for sense in row.senses)),
    ]


def _chunks(folder: Path) -> Iterator[Markup]:
    rows = read_rows(folder)
    while chunk := list(islice(rows, _PER_CHUNK)):
        yield _data([_details(row, folder) for row in chunk])


def _details(row: UnitCaption, folder: Path) -> dict[str, Any]:
    first = row.score
    others = [each for each in (*row.measurements, *row.controls) if each is not first]
    return {
        "reason": _shown(row.reason),
        "proposer": _shown(row.proposer),
        "measured": [_figure(each) for each in ([first] if first else []) + others],
        "senses": [
            {**sense.model_dump(), "caption": _shown(sense.caption)} for sense in row.senses
        ],
        "exemplars": [_exemplar(each) for each in row.exemplars],
        "images": None if row.images is None else _images(row.images, folder),
    }


def _figure(measurement: Measurement) -> dict[str, Any]:
    return {
        "metric": _shown(measurement.metric.replace("_", " ")),
        "value": round(measurement.value, 4),
        "unit": measurement.unit,
        "ci95": [round(bound, 4) for bound in measurement.ci95],
        "baseline": round(measurement.baseline, 4),
        "control": _shown(measurement.control),
        "n": measurement.n,
        "n_failed": measurement.n_failed,
    }


def _exemplar(exemplar: TextExemplar) -> list[Any]:
    """Activation, index of the peak, tokens, and a shade from 0 to 9 for each token."""
    shades = "".join(
        str(min(_SHADES, max(0, round(_SHADES * strength)))) for strength in exemplar.strengths
    )
    tokens = [_shown(token) for token in exemplar.tokens]
    return [f"{exemplar.activation:.3g}", exemplar.peak, tokens, shades]


def _images(images: ImageExemplar, folder: Path) -> dict[str, str]:
    named = [f"{activation:.3g}" for activation in images.activations]
    if images.labels:
        named = [
            f"{activation} {_shown(label)}"
            for activation, label in zip(named, images.labels, strict=True)
        ]
    note = f"activations, row by row: {', '.join(named)}"
    uri, problem = _picture(images.picture, folder)
    return {"uri": uri, "note": f"{problem}; {note}" if problem else note}


def _picture(name: str, folder: Path) -> tuple[str, str]:
    """The picture as a `data:` URI, or why it is not shown."""
    path = (folder / name).resolve()
    media_type = _MEDIA_TYPES.get(path.suffix)
    if not path.is_relative_to(folder.resolve()) or media_type is None:
        return "", "its picture lies outside the run's folder or is of another kind"
    try:
        if path.stat().st_size > MOST_PICTURE_BYTES:
            return "", f"its picture is larger than {MOST_PICTURE_BYTES // 1024} KiB"
        encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return "", "its picture cannot be read"
    return f"data:{media_type};base64,{encoded}", ""
