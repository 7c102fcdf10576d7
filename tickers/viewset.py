"""The viewset of the API's hot paths is DRF's without the work that they don't need."""

from typing import Any

from django.http import HttpRequest, HttpResponseBase
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

# Values of Accept for which DRF chooses the first of our renderers, JSON.
ANYTHING = ("", "*/*", "application/json")


class QuickNegotiation(DefaultContentNegotiation):
    """DRF's content negotiation, which is skipped when the client takes JSON or anything."""

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
        """Answer and keep no response: a viewset refers to itself, so only the garbage collector
        frees it, and several whole markets could wait for that."""
        response = super().dispatch(request, *args, **kwargs)
        del self.response
        return response

    @property
    def default_response_headers(self) -> dict[str, str]:
        """The headers of every answer, without DRF's Allow where RFC 9110 doesn't need it: it does
        where a method is refused."""
        return {} if self.action not in (None, "metadata") else super().default_response_headers

    def perform_authentication(self, request: Request) -> None:
        """Do nothing: there are no users, and a permission checks the token where one is needed."""
