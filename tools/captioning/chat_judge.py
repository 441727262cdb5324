"""A chat model as judge of captions: what it is asked, and what its answers come to.

An endpoint answers about several texts a call (`batch_judge`), the local model about one
(`one_text_judge`): small models tell texts apart badly when they judge many at once.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.chat_calls import CountedChat
from dragoman.tools.captioning.scoring import Detection

Task: TypeAlias = Literal["judge_text", "judge_marks"]
"""The question, named as its prompt: is the unit active in this text, or at these marked tokens?"""


class ChatJudge(Protocol):
    """Says which texts go with a caption."""

    texts_a_call: int
    """How many texts a call is about at most."""
    calls: CountedChat

    def ask(self, task: Task, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """For each text the log-odds of yes in nats, or 1 for yes and -1 for no.

        NaN where the chat model was asked and answered neither. Marked tokens of `texts` stand
        between « and ». Raises `ChatError` or `Interrupted`.
        """
        ...


def decided(active: Float[ndarray, " active"], silent: Float[ndarray, " silent"]) -> Detection:
    """Yes to the upper half of the log-odds; answers without probabilities keep their own zero.

    As many active as silent texts must have been asked about; what failed counts as wrong.
    """
    known = np.concatenate([active, silent])
    known = known[~np.isnan(known)]
    told = bool(len(known)) and not np.isin(known, (-1.0, 1.0)).all()
    limit = float(np.median(known)) if told else 0.0
    return Detection(
        hits=int((active > limit).sum()),
        n_active=len(active),
        rejections=int((silent <= limit).sum()),
        n_silent=len(silent),
        n_failed=int(np.isnan(active).sum() + np.isnan(silent).sum()),
    )
