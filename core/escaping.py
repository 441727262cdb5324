r"""Foreign text made visible: no control, bidi or zero-width character reaches a screen.

Escaping is reversible in spirit and lossless to the eye: what was removed stands there as `\xNN`,
`\uNNNN` or `\U000NNNNN`.
"""

import unicodedata

_KEPT = frozenset("\n\t")
# Cc control, Cf format (bidi, zero-width, tags), Cs lone surrogates, Co private use, Zl Zp.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def visible(text: str, *, one_line: bool = False) -> str:
    """`text` with every hidden character spelled out; `one_line` spells out newlines too."""
    kept = frozenset("\t") if one_line else _KEPT
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in kept or unicodedata.category(character) not in _HIDDEN
        else _spelled(character)
        for character in text
    )


def well_formed(text: str) -> str:
    """`text` without lone surrogates: pairs are joined, strays become U+FFFD.

    UTF-8 cannot hold a lone surrogate, so one that entered a record would be stored differently
    or not at all. Foreign text passes here once, where it enters.
    """
    return (
        text
        if text.isascii()
        else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def _spelled(character: str) -> str:
    if character == "\n":
        return "\\n"
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
