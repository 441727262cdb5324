"""Neutral openings: the same prompt in several surroundings, so that one number has an interval.

A next-token probability is exact, but it hangs on context that should not matter. Each opening is
text after which a fresh sentence may begin; the spread over them is what an interval is made of.
"""

from typing import Final

OPENINGS: Final = (
    "",
    "Here is a note.\n\n",
    "The following is a short text.\n",
    "From a book:\n",
    "Read this carefully. ",
    "- The first item of a list.\n- ",
    "It was late in the day. ",
    "Question and answer.\n",
)


def opened(prompt: str) -> list[str]:
    """`prompt` after each opening; the first is the bare prompt."""
    return [opening + prompt for opening in OPENINGS]
