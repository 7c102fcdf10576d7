"""The application that gunicorn serves."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from proxy_site import embedded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_site.settings")
application = get_wsgi_application()
if settings.USES_EMBEDDED_SERVER:
    embedded.ensure(settings.DATA_DIR)
