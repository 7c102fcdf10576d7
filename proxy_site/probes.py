"""GET /livez and /readyz tell a supervisor or a balancer by their status how a process is.

They are asked every few seconds, by any Host header (proxy_site/middleware.py), and use no
database. Whether the whole node is well, its worker too, is asked of /health?strict=true.
"""

from rest_framework.request import Request
from rest_framework.response import Response

from tickers import wiring
from tickers.api import EmptyMarket
from tickers.viewset import QuickViewSet


class Probe(QuickViewSet):
    def finalize_response(
        self, request: Request, response: Response, *args: object, **kwargs: object
    ) -> Response:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "no-store"
        return response


class Live(Probe):
    def list(self, request: Request) -> Response:
        """Answer 200: the process answers. Nothing else is looked at, so that no process is
        restarted for what another one lacks."""
        return Response({"status": "alive"})


class Ready(Probe):
    def list(self, request: Request) -> Response:
        """Answer 200 while there is a market to serve, also one of a store that is away; else
        503."""
        refresher = wiring.snapshots()
        if not (refresher.is_away and refresher.has_market) and not refresher.current().series:
            raise EmptyMarket
        return Response({"status": "ready"})
