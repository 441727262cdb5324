"""How a chat call can fail, as far as its cost and the next step differ."""

from dragoman.core.errors import ChatError, ImagesRefused


class RefusedCall(ChatError):
    """The call was turned down before any text was made: nothing is owed for it."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        detail: str = "",
        temporary: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        """`detail`: the endpoint's own words; `temporary`: the same call may work in a moment."""
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.temporary = temporary
        self.retry_after_seconds = retry_after_seconds


class BlindModel(RefusedCall, ImagesRefused):
    """The call was turned down because of its images."""


class BrokenReply(ChatError):
    """The call was sent and no whole reply came back: it may have to be paid for."""

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        """`temporary`: asking again may work (a lost connection does, a content filter not)."""
        super().__init__(message)
        self.temporary = temporary
