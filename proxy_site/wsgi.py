"""The application that gunicorn serves."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from proxy_site import embedded, footprint

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_site.settings")
footprint.give_back_large_blocks()
application = get_wsgi_application()
footprint.spare_imports()
if settings.USES_EMBEDDED_SERVER:
    embedded.ensure(settings.DATA_DIR)
get_resolver().url_patterns  # noqa: B018 - imports every view, which the first request would do
footprint.spare_collections()
