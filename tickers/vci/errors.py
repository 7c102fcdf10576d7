"""What can go wrong between a node and the exchange broker's chart API.

Each message says what the upstream did; ``kind`` is the short name under which it is counted.
"""


class StoppedError(Exception):
    """The node is stopping: nothing was learned about the upstream."""


class UpstreamError(Exception):
    """The upstream gave no usable answer."""

    kind = "other"
    worth_retrying = False


class UnreachableError(UpstreamError):
    """No connection, or it broke before an answer came."""

    kind = "unreachable"
    worth_retrying = True


class UpstreamTimeoutError(UpstreamError):
    """Connecting, one read, or the whole answer took too long."""

    kind = "timeout"
    worth_retrying = True


class StatusError(UpstreamError):
    """An answer with another status than 200; retried when it is 403, 429 or 5xx.

    ``retry_after`` is the wait, in seconds, that the upstream asked for.
    """

    def __init__(self, status: int, *, retry_after: float | None = None) -> None:
        super().__init__(f"the upstream answered {status}")
        self.status = status
        self.retry_after = retry_after
        self.kind = f"status {status}"
        self.worth_retrying = status in (403, 429) or status >= 500


class RefusedError(StatusError):
    """A 4xx that is about what was asked: too many symbols, or one that the upstream rejects."""

    NOT_ABOUT_THE_ORDER = frozenset({401, 403, 408, 429})


class TruncatedError(UpstreamError):
    """The body ended before the length that its headers announced."""

    kind = "truncated"
    worth_retrying = True


class TooLargeError(UpstreamError):
    """The body is larger than any answer to what was asked can be."""

    kind = "too large"


class AnswerError(UpstreamError):
    """A whole answer with status 200 that isn't what the protocol says."""

    kind = "wrong answer"


class HtmlError(AnswerError):
    """A page for people: a challenge, a maintenance notice."""

    kind = "html"


class NotJsonError(AnswerError):
    """Broken or cut JSON."""

    kind = "not json"


class DoorError(UpstreamError):
    """Another node's door that leads back to this one, is too old, or doesn't say what it is."""

    kind = "door"


class NothingAnsweredError(UpstreamError):
    """Request after request, in ever smaller batches, brought no symbol at all."""

    kind = "nothing answered"


def status_error(status: int, *, retry_after: float | None = None) -> StatusError:
    """The error for an answer whose status isn't 200."""
    refused = 400 <= status < 500 and status not in RefusedError.NOT_ABOUT_THE_ORDER
    kind = RefusedError if refused else StatusError
    return kind(status, retry_after=retry_after)
