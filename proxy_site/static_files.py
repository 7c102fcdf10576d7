"""Static files: the pages work before they are collected, and what isn't collected is told.

In production pages name collected files, which have a hash of their content in the name, so that
browsers keep them for good. The API serves uncollected ones too, under their plain names.
"""

import filecmp
import functools
import json
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles import finders
from whitenoise.storage import CompressedManifestStaticFilesStorage

COLLECT = "run manage.py collectstatic --noinput, then restart the API"


class CollectedFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # it ships no types
    """A storage that gives a file's plain name where the collected one isn't known."""

    def stored_name(self, name: str) -> str:
        try:
            return str(super().stored_name(name))
        except ValueError:
            return name


def complaint() -> str:
    """Return what is wrong with the collected files; "" for nothing, and outside production."""
    if settings.ENVIRONMENT != "production":
        return ""
    manifest = Path(settings.STATIC_ROOT) / CollectedFiles.manifest_name
    try:
        read_at = manifest.stat().st_mtime_ns
    except OSError:
        return f"static files aren't collected: {COLLECT}"
    wrong = _wrong(manifest, read_at)
    if not wrong:
        return ""
    return f"static files of another version are collected ({wrong[0]}): {COLLECT}"


@functools.lru_cache(maxsize=1)
def _wrong(manifest: Path, read_at: int) -> list[str]:
    """Return the names of files that aren't collected as the code has them.

    ``read_at`` is the manifest's time, with which the cached result ends.
    """
    try:
        collected = json.loads(manifest.read_text(encoding="utf-8"))["paths"]
        return [
            name
            for finder in finders.get_finders()
            for name, storage in finder.list(None)
            if name not in collected or not _are_equal(storage.path(name), manifest.parent / name)
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return [manifest.name]


def _are_equal(source: str, copy: Path) -> bool:
    return filecmp.cmp(source, copy, shallow=False)
