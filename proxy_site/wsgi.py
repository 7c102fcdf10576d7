"""The application that gunicorn serves."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from proxy_site.local import embedded_redis
from proxy_site.serving import process_memory
from tickers import wiring

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_site.settings")
process_memory.give_back_large_blocks()
application = get_wsgi_application()
if settings.USES_EMBEDDED_SERVER:
    embedded_redis.ensure(settings.DATA_DIR)
get_resolver().url_patterns  # noqa: B018 - imports every view, which the first request would do
wiring.market_clock().trading_day()  # imports the holidays of all countries, likewise
process_memory.spare_collections()
