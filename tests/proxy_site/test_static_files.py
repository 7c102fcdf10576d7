"""Static files in production: what pages name, and what is told of those that aren't collected."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command

from proxy_site import static_files

FILE = "proxy_site/home.js"


@pytest.fixture
def root(settings: Any, tmp_path: Path) -> Path:
    settings.ENVIRONMENT = "production"
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "proxy_site.static_files.CollectedFiles"},
    }
    return Path(settings.STATIC_ROOT)


def test_an_uncollected_file_has_its_plain_name(root: Path) -> None:
    assert staticfiles_storage.url(FILE) == f"/static/{FILE}"


def test_what_isnt_collected_is_told_until_it_is(root: Path) -> None:
    assert static_files.complaint().startswith("static files aren't collected: run manage.py coll")
    call_command("collectstatic", interactive=False, verbosity=0)
    assert static_files.complaint() == ""

    (root / FILE).write_text("// of an older version")
    os.utime(root / "staticfiles.json", ns=(1, 1))
    assert static_files.complaint().startswith(
        f"static files of another version are collected ({FILE}): run manage.py collectstatic"
    )
    (root / "staticfiles.json").write_text("no JSON")
    assert "(staticfiles.json)" in static_files.complaint()


def test_outside_production_nothing_need_be_collected(root: Path, settings: Any) -> None:
    settings.ENVIRONMENT = "development"
    assert static_files.complaint() == ""
