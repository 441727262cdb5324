"""A vision subject whose truth is known: 30 units whose rules are written into the weights.

A small convolutional network, written down and not trained. Its first half measures, at every
place, colours, stripes by direction and plain outlines; its second half puts them together: each
planted unit is an "or" of "and"s of measured properties, some of them negated, as two 1 by 1
convolutions with clipping at 0 and 1. All its other units, the rivals, are active in the middle
of whatever object stands at one of a few places drawn at random, and so on nothing that has a name:
towards the rim of a place only some outlines would reach.

The *twin* has the same weights but for the rivals' places, which are drawn anew, and with the rows
of the last layers exchanged: what was a planted unit is now such a rival. Whatever a method finds
in the subject and in the twin alike, it has not found in the weights.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dragoman.tools.subjects.planted_scenes import (
    BACKGROUND,
    OUTLINES,
    PALETTE,
    PERIOD,
    PLACES,
    SIDE,
    TEXTURES,
    SceneObject,
    outline,
)
from dragoman.tools.subjects.vision import Preprocessing, VisionLayer, VisionSubject

Property: TypeAlias = tuple[str, bool]
"""A property's name, and whether an object has it or lacks it."""
Rule: TypeAlias = tuple[tuple[Property, ...], ...]
"""Alternatives, each of them a conjunction; an object satisfies one of them or it does not."""

PROPERTIES: tuple[str, ...] = (*PALETTE, *OUTLINES, *TEXTURES)
N_UNITS = 64
UNIT_LAYER = 1
_STRIDE = 4
_GRID = SIDE // _STRIDE
_RIVAL_BLOCKS = 14
_RIVAL_PLACES = (2, 3, 4)
"""At so many of the nine places an object makes a rival active."""


class PlantedVisionUnit(NamedTuple):
    """A unit of `UNIT_LAYER` that is active on the objects of its rule and at 0 elsewhere."""

    unit: int
    name: str
    rule: Rule
    composed: bool


class PlantedVision(NamedTuple):
    """The subject, its twin, and what is true of the subject alone."""

    subject: VisionSubject
    twin: VisionSubject
    units: tuple[PlantedVisionUnit, ...]
    rivals: tuple[int, ...]


def has(thing: SceneObject, rule: Rule) -> bool:
    """Whether the object satisfies the rule."""
    own = {thing.outline, thing.colour, thing.texture}
    return any(all((name in own) == wanted for name, wanted in part) for part in rule)


def planted_vision(seed: int) -> PlantedVision:
    """The planted subject of this seed, which decides which units hold which rules."""
    generator = np.random.default_rng([seed, 5])
    places = [int(unit) for unit in generator.permutation(N_UNITS)]
    units = tuple(
        PlantedVisionUnit(places[row], name, rule, composed)
        for row, (name, rule, composed) in enumerate(_rules())
    )
    rivals = tuple(sorted(places[len(units) :]))
    maps, maps_of_twin = (_rival_maps(generator, len(rivals)) for _ in range(2))
    # In the twin as many rivals hold the rules in the planted units' stead.
    exchanged = dict(zip([unit.unit for unit in units], rivals, strict=False))
    moved = tuple(unit._replace(unit=exchanged[unit.unit]) for unit in units)
    return PlantedVision(
        subject=_subject(_PlantedNetwork(units, maps), f"planted-vision-{seed}"),
        twin=_subject(_PlantedNetwork(moved, maps_of_twin), f"planted-vision-{seed}-twin"),
        units=units,
        rivals=rivals,
    )


def _rules() -> list[tuple[str, Rule, bool]]:
    """Name, rule, and whether it is composed, of all planted units."""

    def all_of(*names: str) -> tuple[Property, ...]:
        return tuple((name.removeprefix("not "), not name.startswith("not ")) for name in names)

    simple = [(name, (all_of(name),), False) for name in PROPERTIES]
    composed: list[tuple[str, Rule, bool]] = [
        ("red circles", (all_of("red", "circle"),), True),
        ("blue squares", (all_of("blue", "square"),), True),
        ("green triangles", (all_of("green", "triangle"),), True),
        ("yellow squares", (all_of("yellow", "square"),), True),
        ("vertically striped circles", (all_of("vertical stripes", "circle"),), True),
        ("checked squares", (all_of("checks", "square"),), True),
        ("purple and horizontally striped", (all_of("purple", "horizontal stripes"),), True),
        ("red or blue", (all_of("red"), all_of("blue")), True),
        ("circles or triangles", (all_of("circle"), all_of("triangle")), True),
        (
            "vertical or horizontal stripes",
            (all_of("vertical stripes"), all_of("horizontal stripes")),
            True,
        ),
        ("red, no circles", (all_of("red", "not circle"),), True),
        ("circles, not red", (all_of("circle", "not red"),), True),
        ("checks, not blue", (all_of("checks", "not blue"),), True),
        ("triangles, not striped upright", (all_of("triangle", "not vertical stripes"),), True),
        (
            "two senses: red circles; rising stripes",
            (all_of("red", "circle"), all_of("rising stripes")),
            True,
        ),
        ("two senses: orange; checks", (all_of("orange"), all_of("checks")), True),
        ("two senses: triangles; yellow", (all_of("triangle"), all_of("yellow")), True),
    ]
    return simple + composed


class _PlantedNetwork(nn.Module):
    """Pictures in 0..1 to the maps of the units, and to a logit for each colour."""

    def __init__(
        self, units: Sequence[PlantedVisionUnit], maps: Float[Tensor, "units h w"]
    ) -> None:
        super().__init__()
        self.properties = _Properties()
        self.units = _Units(units, maps)
        self.classifier = nn.Linear(N_UNITS, len(PALETTE), bias=False)
        with torch.no_grad():
            self.classifier.weight.zero_()
            for each in units:
                if each.name in PALETTE:
                    self.classifier.weight[list(PALETTE).index(each.name), each.unit] = 1.0

    def forward(self, pixels: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Which colour there is most of."""
        units = self.units(self.properties(pixels))
        logits: Tensor = self.classifier(units.mean(dim=(2, 3)))
        return logits


class _Properties(nn.Module):
    """Maps in 0..1 of the properties, of the same widened, and of where objects stand."""

    palette: Tensor
    templates: Tensor
    gratings: Tensor

    def __init__(self) -> None:
        super().__init__()
        palette = torch.tensor(list(PALETTE.values()), dtype=torch.float32) / 255
        self.register_buffer("palette", palette[None, :, :, None, None])
        self.register_buffer("templates", _templates())
        self.register_buffer("gratings", _gratings())

    def forward(self, pixels: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch maps h w"]:
        """Properties, widened properties, objects, in this order, four times as coarse."""
        unlike = (pixels - BACKGROUND / 255).abs().amax(dim=1, keepdim=True)
        objects = functional.avg_pool2d(_clipped(unlike, 0.1, 0.25), 2)
        colours, outlines = self._colours(pixels), self._outlines(objects)
        textures = self._textures(pixels.amax(dim=1, keepdim=True))
        widened = [_widened(colours, 4), _widened(outlines, 6), _widened(textures, 4)]
        where = functional.avg_pool2d(objects, 2)
        return torch.cat([colours, outlines, textures, *widened, where], dim=1)

    def _colours(self, pixels: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c h w"]:
        distances = (pixels[:, None] - self.palette).abs().sum(dim=2)
        matching = 1 - _clipped(distances, 0.12, 0.3)
        # Stripes leave half of the pixels, the blurred rim of an object a few.
        return _clipped(functional.avg_pool2d(matching, 8, _STRIDE, padding=2), 0.25, 0.5)

    def _outlines(self, objects: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch c h w"]:
        fits = functional.conv2d(objects, self.templates, padding=self.templates.shape[-1] // 2)
        return _widened(functional.max_pool2d(_clipped(fits, 0.82, 0.9), 2), 3)

    def _textures(self, values: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch c h w"]:
        padding = self.gratings.shape[-1] // 2
        waves = functional.conv2d(values, self.gratings, stride=2, padding=padding)
        cosine, sine = waves[:, 0::2], waves[:, 1::2]
        both_phases = (cosine.square() + sine.square()).sqrt()
        energy = functional.avg_pool2d(both_phases, 6, 2, padding=2)
        upright, lying, rising, falling, fine_rising, fine_falling = energy.unbind(dim=1)
        found = torch.stack([upright, lying, rising - falling], dim=1)
        checks = torch.minimum(fine_rising, fine_falling)[:, None]
        return torch.cat([_clipped(found, 0.3, 0.4), _clipped(checks, 0.18, 0.25)], dim=1)


class _Units(nn.Module):
    """The rules: conjunctions, clipped, then alternatives, clipped; and the rivals' places."""

    places: Tensor

    def __init__(
        self, units: Sequence[PlantedVisionUnit], maps: Float[Tensor, "units h w"]
    ) -> None:
        super().__init__()
        n = len(PROPERTIES)
        parts = [(each.unit, part) for each in units for part in each.rule]
        self.conjunctions = nn.Conv2d(2 * n + 1, len(parts), 1)
        self.alternatives = nn.Conv2d(len(parts), N_UNITS, 1, bias=False)
        self.register_buffer("places", maps)
        taken = {each.unit for each in units}
        self.rivals = [unit for unit in range(N_UNITS) if unit not in taken]
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            assert self.conjunctions.bias is not None
            for row, (unit, part) in enumerate(parts):
                for name, wanted in part:
                    # What must be absent is looked for around the place as well.
                    column = PROPERTIES.index(name) + (0 if wanted else n)
                    self.conjunctions.weight[row, column] = 1.0 if wanted else -2.0
                self.conjunctions.bias[row] = 1.0 - sum(wanted for _, wanted in part)
                self.alternatives.weight[unit, row] = 1.0

    def forward(self, maps: Float[Tensor, "batch maps h w"]) -> Float[Tensor, "batch units h w"]:
        """Activations in 0..1."""
        units: Tensor = self.alternatives(self.conjunctions(maps).clamp(0, 1)).clamp(0, 1)
        # `units` is fresh from `clamp`, so writing into it touches nothing else.
        units[:, self.rivals] = (maps[:, -1:] + self.places - 1).clamp(0, 1)
        return units


def _clipped(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, linear in between."""
    return ((values - low) / (high - low)).clamp(0, 1)


def _widened(maps: Float[Tensor, "batch c h w"], by: int) -> Float[Tensor, "batch c h w"]:
    """The maximum within `by` places in every direction."""
    return functional.max_pool2d(maps, 2 * by + 1, stride=1, padding=by)


def _templates() -> Float[Tensor, "outlines 1 h w"]:
    """What fits an outline exactly scores 1; what sticks out of it where others would costs."""
    centre = (SIDE / 2, SIDE / 2)
    inside = torch.stack([torch.from_numpy(outline(name, centre)).float() for name in OUTLINES])
    inside = functional.avg_pool2d(inside, 2)
    cut = slice(SIDE // 4 - 20, SIDE // 4 + 21)
    inside = inside[:, cut, cut]
    elsewhere = inside.amax(dim=0) - inside
    return ((inside - 2 * elsewhere) / inside.sum(dim=(1, 2), keepdim=True))[:, None]


def _gratings() -> Float[Tensor, "gratings 1 h w"]:
    """Gabor patches in two phases: upright, lying, rising, falling, and two diagonals of checks."""
    down, right = np.mgrid[-10:11, -10:11]
    envelope = np.exp(-(down**2 + right**2) / (2 * 4.0**2))
    # Frequencies down and right; lines that rise to the right are crossed by going down and right.
    diagonal, checked = np.sqrt(0.5) / PERIOD, 1 / PERIOD
    frequencies = [(0, 1 / PERIOD), (1 / PERIOD, 0)]
    frequencies += [(diagonal, diagonal), (diagonal, -diagonal)]
    frequencies += [(checked, checked), (checked, -checked)]
    gratings = []
    for along_down, along_right in frequencies:
        angle = 2 * np.pi * (along_down * down + along_right * right)
        for wave in (np.cos(angle), np.sin(angle)):
            weighted = envelope * (wave - (envelope * wave).sum() / envelope.sum())
            # A grating of amplitude 1 scores 1 over the two phases.
            gratings.append(2 * weighted / envelope.sum())
    return torch.from_numpy(np.stack(gratings)).float()[:, None]


def _rival_maps(generator: np.random.Generator, n_units: int) -> Float[Tensor, "units h w"]:
    chosen = torch.zeros(n_units, _RIVAL_BLOCKS, _RIVAL_BLOCKS)
    for unit in range(n_units):
        n_places = _RIVAL_PLACES[unit % len(_RIVAL_PLACES)]
        for place in generator.permutation(len(PLACES))[:n_places].tolist():
            down, right = (at * _RIVAL_BLOCKS // SIDE for at in PLACES[place])
            chosen[unit, down, right] = 1
    scale = _GRID // _RIVAL_BLOCKS
    return chosen.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def _subject(network: _PlantedNetwork, name: str) -> VisionSubject:
    n_maps = 2 * len(PROPERTIES) + 1
    return VisionSubject(
        network,
        name,
        layers=(
            VisionLayer("properties", n_maps, (_GRID, _GRID)),
            VisionLayer("units", N_UNITS, (_GRID, _GRID)),
        ),
        preprocessing=Preprocessing(
            size=(SIDE, SIDE), resize=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3
        ),
        n_classes=len(PALETTE),
        labels=tuple(PALETTE),
        architecture="planted vision",
    )
