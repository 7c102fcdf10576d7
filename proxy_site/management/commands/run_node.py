"""The command run_node runs a whole node: migrations, the API under gunicorn, and the worker.

A process that ends by itself is started again; the command ends on Ctrl-C or SIGTERM only.
"""

import sys
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from proxy_site.local import embedded_redis
from proxy_site.local.processes import Processes, is_free, stop_on_signals


class Command(BaseCommand):
    help = "Migrate, then run the API and the worker until Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        if not is_free(settings.PORT):
            sys.exit(
                f"aipriceaction-proxy: port {settings.PORT} is in use; "
                "set PORT to another, or stop what listens there"
            )
        stop = stop_on_signals()
        if settings.USES_EMBEDDED_SERVER:
            embedded_redis.ensure(settings.DATA_DIR)
        call_command("migrate", verbosity=0)
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
            self.stdout.write(f"{settings.NODE_NAME} listens on http://127.0.0.1:{settings.PORT}")
            while not stop.wait(0.5):
                for line in processes.mend():
                    self.stderr.write(f"aipriceaction-proxy: {line}; its lines above say why")
