"""What planted vision units' rules say of scenes, and how well a caption's predictions agree."""

from collections.abc import Sequence

import numpy as np

from dragoman.tools.captioning.composition import Column
from dragoman.tools.subjects.planted_scenes import SceneObject
from dragoman.tools.subjects.planted_vision import Rule, has

_FEW = 5
"""With fewer rivals among the fresh scenes no accuracy against them is worth the name."""


def truth(scenes: Sequence[Sequence[SceneObject]], rule: Rule) -> Column:
    """In which scenes an object satisfies the rule."""
    return np.array([any(has(thing, rule) for thing in objects) for objects in scenes])


def rival(scenes: Sequence[Sequence[SceneObject]], rule: Rule) -> Column:
    """Scenes without the rule that show all the properties that one of its alternatives asks for.

    Of an alternative that asks for one property alone: any other property of the same sort would
    do, so all scenes without the rule are its rivals.
    """
    near = []
    for objects in scenes:
        shown = {name for each in objects for name in (each.outline, each.colour, each.texture)}
        wanted = [{name for name, is_wanted in part if is_wanted} for part in rule]
        plain = all(len(part) == 1 for part in rule)
        near.append(plain or any(names <= shown for names in wanted))
    found: Column = ~truth(scenes, rule) & np.array(near)
    return found


def balanced_accuracy(said: Column, holds: Column, among: Column | None = None) -> float | None:
    """Mean of the rates of yes where the rule holds and of no where it does not.

    `among`: only these of the scenes without the rule count; None where there are too few.
    """
    without = ~holds if among is None else ~holds & among
    if min(int(without.sum()), int(holds.sum())) < _FEW:
        return None
    return float((said[holds].mean() + (~said[without]).mean()) / 2)
