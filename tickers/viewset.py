"""The viewset of the API's hot paths: DRF's, less what an answer of theirs doesn't need."""

from typing import Any

from django.http import HttpRequest, HttpResponseBase
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

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


class QuickViewSet(ViewSet):
    content_negotiation_class = QuickNegotiation

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Keep no response: a viewset refers to itself, so it and what it has are freed whenever
        the garbage collector comes by, and a few whole markets could wait for it."""
        response = super().dispatch(request, *args, **kwargs)
        del self.response
        return response

    @property
    def default_response_headers(self) -> dict[str, str]:
        """DRF names the methods in every answer; RFC 9110 wants them where one is refused."""
        return {} if self.action not in (None, "metadata") else super().default_response_headers

    def perform_authentication(self, request: Request) -> None:
        """There are no users here: a permission looks at the token where one is needed."""
