"""The home page, GET /: a live table of the market for a person's first look at a node.

The page has only what the settings know; its script reads the market from GET /tickers, as any
client does. So it is served, and says what is wrong, while Redis and the SQL database are away.
"""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views import View

from tickers import wiring


class Home(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        # Without the request no context processor runs; one would load the session's user.
        response = HttpResponse(render_to_string("proxy_site/home.html", page()))
        response["Cache-Control"] = "no-cache"
        return response


def page() -> dict[str, Any]:
    """Return the page's context; its ``listings`` is {symbol: [exchange, sector]}."""
    return {
        "node_name": settings.NODE_NAME,
        "mode": "public" if settings.IS_PUBLIC_NODE else "core",
        "trading_day": wiring.market_clock().trading_day(),
        "debug_system_time": settings.DEBUG_SYSTEM_TIME,
        "listings": {
            listing.symbol: [listing.exchange, listing.sector] for listing in settings.UNIVERSE
        },
    }
