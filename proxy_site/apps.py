"""The Django app of a node: it makes the folders and files, and sets up signals, at the start."""

import logging
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings

from proxy_site import file_modes, reasons
from proxy_site.environment import SettingsError

logger = logging.getLogger(__name__)


class ProxySiteConfig(AppConfig):
    name = "proxy_site"

    def ready(self) -> None:
        make_files()
        # These need models, which aren't loaded when the module is imported.
        from proxy_site import checks  # noqa: F401 - the import registers them
        from proxy_site.middleware import release_signals

        release_signals()


def make_files() -> None:
    """Make the node's folders and its SQLite file, with modes that keep other users out.

    Raises SettingsError when a folder can't be made.
    """
    file_modes.keep_others_from_writing()
    try:
        # SQLite makes its file, but not its folder; whitenoise warns when its own is missing.
        file_modes.make_folder(settings.DATA_DIR, file_modes.DATA_FOLDER)
        file_modes.make_folder(settings.STATIC_ROOT, file_modes.STATIC_FOLDER)
    except OSError as error:
        raise SettingsError("DATA_DIR", reasons.of_folder(error), "/srv/node") from None
    database = settings.DATABASES["default"]
    if database["ENGINE"] == "django.db.backends.sqlite3":
        try:
            file_modes.make_database(Path(database["NAME"]))
        except OSError as error:
            # SQLite says so to a command that needs the file; the others go on.
            logger.warning("%s can't be made (%s)", database["NAME"], error.strerror)
