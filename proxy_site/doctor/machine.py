"""What the doctor sees of this machine without asking a server: settings, files, limits."""

import os
import pwd
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core import checks

from proxy_site import reasons, static_files
from proxy_site.doctor.findings import Finding, error, ok, split_remedy, warning

# A web process takes up to 1,000 connections (gunicorn's worker_connections), beside its own files.
FILES_NEEDED = 1_024
OURS = "proxy_site."  # how the ids of this module's findings begin as Django's checks

OTHERS_READ = stat.S_IROTH
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def look() -> list[Finding]:
    return [*of_settings(), *of_files()]


def of_files() -> list[Finding]:
    """Return the findings that ``manage.py check --deploy`` shows too."""
    return [of_environment_file(), of_data_dir(), of_static_files(), of_open_files()]


def of_settings() -> list[Finding]:
    """Return what the settings' own remarks and Django's checks say.

    A wrong value has ended the command before.
    """
    check, in_production = "settings", settings.ENVIRONMENT == "production"
    messages = [
        message
        for message in checks.run_checks(include_deployment_checks=in_production)
        if not message.is_silenced() and not (message.id or "").startswith(OURS)
    ]
    found = [warning(check, remark) for remark in settings.REMARKS]
    for message in messages:
        make = error if message.is_serious() else warning
        found.append(make(check, f"{message.msg} ({message.id})", message.hint or ""))
    mode = "public" if settings.IS_PUBLIC_NODE else "core"
    return found or [ok(check, f"{settings.NODE_NAME}, a {mode} node in {settings.ENVIRONMENT}")]


def of_environment_file() -> Finding:
    """Return whether others may read or change the file with the tokens."""
    check, file = "env file", settings.ENV_FILE
    try:
        mode = file.stat().st_mode
    except OSError:
        return ok(check, f"there is no {file}; the environment has the settings")
    if not stat.S_ISREG(mode):
        return ok(check, f"{file} holds nothing")
    if mode & (OTHERS_READ | OTHERS_WRITE):
        may = "write" if mode & OTHERS_WRITE else "read"
        return warning(
            check, f"other users may {may} {file}, which has the tokens", f"chmod 600 {file}"
        )
    return ok(check, f"{file} is closed to other users")


def of_data_dir() -> Finding:
    """Return whether this user may write what the node keeps, and no other may."""
    check, folder = "data folder", settings.DATA_DIR
    for path in _kept():
        owner = path.stat().st_uid
        if owner != os.geteuid():
            return warning(
                check,
                f"{path} belongs to {_name(owner)}, and this is {reasons.user()}",
                f"run every command as {_name(owner)}, or chown -R {reasons.user()} {folder}",
            )
        if not os.access(path, os.W_OK):
            return error(check, f"{path} can't be written", f"chmod u+w {path}")
    for path in _kept():
        mode = path.stat().st_mode
        if mode & OTHERS_WRITE and not mode & stat.S_ISVTX:
            return warning(check, f"other users may write {path}", f"chmod go-w {path}")
        if path.is_file() and mode & OTHERS_READ:
            return warning(check, f"other users may read {path}", f"chmod 600 {path}")
    return ok(check, f"{folder} is this user's alone")


def _kept() -> Iterator[Path]:
    """Yield what a node keeps on this machine, as far as it is there."""
    paths = [settings.DATA_DIR, settings.DATA_DIR / "appendonlydir"]
    database = settings.DATABASES["default"]
    if database["ENGINE"] == "django.db.backends.sqlite3":
        paths.append(Path(database["NAME"]))
    return (path for path in paths if path.exists())


def of_static_files() -> Finding:
    check = "static files"
    if complaint := static_files.complaint():
        return warning(check, *split_remedy(complaint))
    if settings.ENVIRONMENT != "production":
        return ok(check, "they needn't be collected outside production")
    return ok(check, f"collected in {settings.STATIC_ROOT}")


def of_open_files() -> Finding:
    """Return whether this process's limit, which a node's processes have too, is high enough."""
    check = "open files"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_NEEDED:
        return warning(
            check,
            f"a process may open {soft} files, and one of the API needs {FILES_NEEDED}",
            "raise the limit: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit",
        )
    return ok(check, f"a process may open {soft if soft != resource.RLIM_INFINITY else 'any'}")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
