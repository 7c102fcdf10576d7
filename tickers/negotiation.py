"""Content negotiation that costs nothing for the Accept headers that clients really send."""

from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request

# DRF's choice among our renderers, of which JSON is the first, for whoever takes anything.
ANYTHING = ("", "*/*", "application/json")


class QuickNegotiation(DefaultContentNegotiation):
    """DRF's negotiation, which is asked only when there is something to negotiate."""

    def select_renderer(
        self,
        request: Request,
        renderers: Any,
        format_suffix: str | None = None,
    ) -> Any:
        if format_suffix is None and request.META.get("HTTP_ACCEPT", "") in ANYTHING:
            return renderers[0], renderers[0].media_type
        return super().select_renderer(request, renderers, format_suffix)
