"""Prompts as files: one `.md` per prompt, with named holes."""

import string
from importlib import resources


class _Strict(string.Template):
    """Holes are `${name}`, so that JSON braces in a prompt stay as they are."""


def render(name: str, **values: str) -> str:
    """The text of `prompts/<name>.md` filled in; a missing or spare name is an error."""
    template = _Strict(resources.files(__name__).joinpath(f"{name}.md").read_text("utf-8"))
    spare = set(values) - set(template.get_identifiers())
    if spare:
        raise KeyError(f"prompt {name!r} has no hole named {', '.join(sorted(spare))}")
    return template.substitute(values).strip()
