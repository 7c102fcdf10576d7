"""The one way in which a door refuses."""

from rest_framework.exceptions import APIException


class Refusal(APIException):
    """``detail`` is the text that the client reads; ``retry_after`` in seconds."""

    def __init__(self, code: int, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status_code = code
        if retry_after is not None:
            self.wait = retry_after  # DRF's exception handler sends it as Retry-After
