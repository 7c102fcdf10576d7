"""The WSGI application that gunicorn serves."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from proxy_site import ownership
from proxy_site.local import embedded_redis
from proxy_site.serving import process_memory
from tickers import wiring

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_site.settings")
process_memory.give_back_large_blocks()
application = get_wsgi_application()
if settings.USES_EMBEDDED_SERVER:
    embedded_redis.ensure(settings.DATA_DIR)
ownership.end_unless_ours()
# The first request would import what these two lines import: every view, and the holidays.
get_resolver().url_patterns  # noqa: B018 - the property imports the views
wiring.market_clock().trading_day()
process_memory.freeze_imported_objects()
