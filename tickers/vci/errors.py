"""The errors of asking the exchange broker's chart API.

Each message says what the upstream did; ``kind`` is the short name under which it is counted.
"""


class StoppedError(Exception):
    """The node is stopping, and nothing was learned about the upstream."""


class UpstreamError(Exception):
    """The upstream gave no usable answer."""

    kind = "other"
    worth_retrying = False


class UnreachableError(UpstreamError):
    """There was no connection, or it broke before an answer came."""

    kind = "unreachable"
    worth_retrying = True


class UpstreamTimeoutError(UpstreamError):
    """Connecting, one read, or the whole answer took too long."""

    kind = "timeout"
    worth_retrying = True


class StatusError(UpstreamError):
    """The upstream answered with another status than 200; 403, 429 and 5xx are worth retrying.

    ``retry_after`` is the wait, in seconds, that the upstream asked for.
    """

    def __init__(self, status: int, *, retry_after: float | None = None) -> None:
        super().__init__(f"the upstream answered {status}")
        self.status = status
        self.retry_after = retry_after
        self.kind = f"status {status}"
        self.worth_retrying = status in (403, 429) or status >= 500


class RefusedError(StatusError):
    """A 4xx refuses what was asked: too many symbols, or one that the upstream rejects."""

    NOT_ABOUT_THE_ORDER = frozenset({401, 403, 408, 429})


class TruncatedError(UpstreamError):
    """The body ended before the length that its headers announced."""

    kind = "truncated"
    worth_retrying = True


class TooLargeError(UpstreamError):
    """The body is larger than any answer to what was asked can be."""

    kind = "too large"


class AnswerError(UpstreamError):
    """The answer came whole with status 200 and isn't what the protocol says."""

    kind = "wrong answer"


class HtmlError(AnswerError):
    """The answer is a page for people: a challenge, a maintenance notice."""

    kind = "html"


class NotJsonError(AnswerError):
    """The answer is empty, or JSON that is broken, cut short or too deep."""

    kind = "not json"


class DoorError(UpstreamError):
    """Another node's door leads back to this one, is too old, or lacks a header."""

    kind = "door"


class NothingAnsweredError(UpstreamError):
    """Request after request, in ever smaller batches, brought no symbol at all."""

    kind = "nothing answered"


def status_error(status: int, *, retry_after: float | None = None) -> StatusError:
    """Return the error for an answer whose status isn't 200."""
    refused = 400 <= status < 500 and status not in RefusedError.NOT_ABOUT_THE_ORDER
    kind = RefusedError if refused else StatusError
    return kind(status, retry_after=retry_after)
