"""The URLs of a node."""

from django.conf import settings
from django.contrib import admin
from django.urls import path
from rest_framework.routers import SimpleRouter

from gossip.doors.views import PublicGossip, TrustedGossip
from proxy_site.health import Health
from proxy_site.home import Home
from proxy_site.openapi.api_document import ApiDocument
from proxy_site.probes import Live, Ready
from tickers.api import TickersViewSet

router = SimpleRouter(trailing_slash=False)
router.register("tickers", TickersViewSet, basename="tickers")
router.register("gossip", TrustedGossip, basename="gossip")
router.register("public/gossip", PublicGossip, basename="public-gossip")

router.register("health", Health, basename="health")
router.register("livez", Live, basename="live")
router.register("readyz", Ready, basename="ready")
router.register(r"openapi\.json", ApiDocument, basename="openapi")

urlpatterns = [
    path("", Home.as_view(), name="home"),
    *router.urls,
    path(settings.ADMIN_PATH, admin.site.urls),
]

handler400 = "proxy_site.exception_handler.bad_request"
handler404 = "proxy_site.exception_handler.not_found"
handler500 = "proxy_site.exception_handler.server_error"
