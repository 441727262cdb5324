"""Two calm themes; text colours keep at least 4.5 : 1 against every background used."""

from typing import Final

from textual.theme import Theme

DARK: Final = Theme(
    name="dragoman-dark",
    dark=True,
    primary="#7fb0d8",
    secondary="#a99bd0",
    accent="#d9b36c",
    success="#8cc28c",
    warning="#d9b36c",
    error="#e08787",
    foreground="#d8dbe0",
    background="#14171c",
    surface="#1a1e25",
    panel="#232934",
    variables={"text-muted": "#98a1ae", "text-disabled": "#4b5462"},
)
LIGHT: Final = Theme(
    name="dragoman-light",
    dark=False,
    primary="#235a8c",
    secondary="#5d4a94",
    accent="#8a5a00",
    success="#226b35",
    warning="#8a5a00",
    error="#a32d2d",
    foreground="#24272c",
    background="#fbfaf7",
    surface="#f3f1ec",
    panel="#e6e2d9",
    variables={"text-muted": "#595e66", "text-disabled": "#b4afa4"},
)
