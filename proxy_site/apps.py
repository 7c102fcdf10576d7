import logging
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings

from proxy_site import file_modes

logger = logging.getLogger(__name__)


class ProxySiteConfig(AppConfig):
    name = "proxy_site"

    def ready(self) -> None:
        make_files()
        # Imported late: it needs models, which are loaded by now.
        from proxy_site.middleware import release_signals

        release_signals()


def make_files() -> None:
    """Make the node's folders, and its database's file before SQLite does, for every reader."""
    file_modes.keep_others_from_writing()
    # SQLite makes its file, but not the folder that it lies in; whitenoise wants its folder.
    file_modes.make_folder(settings.DATA_DIR, file_modes.DATA_FOLDER)
    file_modes.make_folder(settings.STATIC_ROOT, file_modes.STATIC_FOLDER)
    database = settings.DATABASES["default"]
    if database["ENGINE"] == "django.db.backends.sqlite3":
        try:
            file_modes.make_database(Path(database["NAME"]))
        except OSError as error:
            # Whoever needs it is told so by SQLite; commands that need none go on.
            logger.warning("%s can't be made (%s)", database["NAME"], error.strerror)
