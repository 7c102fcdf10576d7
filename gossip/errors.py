"""The one way in which a door refuses."""

from rest_framework.exceptions import APIException

from gossip.wire import DETAILS, Code


class Refusal(APIException):
    """A refusal with its HTTP status and code.

    ``detail`` is the text that the client reads, by default the code's own; ``retry_after`` in
    seconds.
    """

    def __init__(
        self, status: int, code: Code, detail: str = "", *, retry_after: int | None = None
    ) -> None:
        super().__init__(detail or DETAILS[code], code.value)
        self.status_code = status
        self.code = code
        if retry_after is not None:
            self.wait = retry_after  # DRF's exception handler sends it as Retry-After
