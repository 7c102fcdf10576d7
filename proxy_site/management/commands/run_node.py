"""The command run_node runs a whole node: migrations, the API under gunicorn, and the worker.

A process that ends by itself is started again; the command ends on Ctrl-C or SIGTERM only.
"""

import errno
import sys
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from proxy_site import ownership
from proxy_site.local import embedded_redis
from proxy_site.local.processes import Processes, stop_on_signals, why_not_listen


class Command(BaseCommand):
    help = "Migrate, then run the API and the worker until Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        check_addresses(settings.BIND)
        stop = stop_on_signals()
        if settings.USES_EMBEDDED_SERVER:
            embedded_redis.ensure(settings.DATA_DIR)
        call_command("migrate", verbosity=0)
        ownership.end_unless_ours()
        with Processes() as processes:
            processes.start(
                "the API",
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                "gunicorn.conf.py",
                cwd=settings.BASE_DIR,
            )
            processes.start(
                "the worker", sys.executable, "manage.py", "run_worker", cwd=settings.BASE_DIR
            )
            self.stdout.write(f"{settings.NODE_NAME} listens on {', '.join(urls(settings.BIND))}")
            while not stop.wait(0.5):
                for line in processes.mend():
                    self.stderr.write(f"aipriceaction-proxy: {line}; its lines above say why")


def urls(addresses: Sequence[str]) -> list[str]:
    """Return BIND's addresses for people: ``http://127.0.0.1:3000``, ``unix:/run/x.sock``."""
    return [a if a.startswith("unix:") else f"http://{a}" for a in addresses]


def check_addresses(addresses: Sequence[str]) -> None:
    """End the process with one line when gunicorn couldn't listen there."""
    for address in addresses:
        if address.startswith("unix:"):
            continue
        host, _, port = address.rpartition(":")
        error = why_not_listen(host.strip("[]"), int(port))
        if error is None:
            continue
        if error.errno == errno.EADDRINUSE:
            sys.exit(
                f"aipriceaction-proxy: port {port} is in use; "
                "set PORT to another, or stop what listens there"
            )
        sys.exit(
            f"aipriceaction-proxy: BIND names {host}, where this machine can't listen "
            f"({error.strerror}). Example: BIND=127.0.0.1"
        )
