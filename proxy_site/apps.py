from django.apps import AppConfig
from django.conf import settings


class ProxySiteConfig(AppConfig):
    name = "proxy_site"

    def ready(self) -> None:
        # SQLite makes its file, but not the folder that it lies in; whitenoise wants its folder.
        for folder in (settings.DATA_DIR, settings.STATIC_ROOT):
            folder.mkdir(parents=True, exist_ok=True)
        # Imported late: it needs models, which are loaded by now.
        from proxy_site.middleware import release_signals

        release_signals()
