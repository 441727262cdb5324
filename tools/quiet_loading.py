"""Models are read in silence: what transformers prints would stand amid a run's own progress."""

from transformers.utils import logging


def quieten() -> None:
    """Keep the library's bars and loading tables off the terminal: faults are raised instead."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped in transformers
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # untyped in transformers
