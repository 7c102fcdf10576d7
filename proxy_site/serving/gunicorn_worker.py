"""The worker class of gunicorn.conf.py: timeouts, cooldown, no quotes of broken requests, and the
settings that the master doesn't have (proxy_site/serving/reload.py)."""

import sys
import time
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import ParseException

from proxy_site.serving.cooldown import CooldownWorker

# Seconds until the master starts another worker for one whose settings are wrong.
PAUSE_AFTER_WRONG_SETTINGS = 2.0
# Who calls on a unix socket has no address. It runs on this machine, so it is called as one that
# comes by TCP is: TRUSTED_PROXIES names it as 127.0.0.1.
LOCAL_CLIENT = ("127.0.0.1", 0)
_MAPPED = "::ffff:"  # as the system writes IPv4 clients of an IPv6 socket (RFC 4291 2.5.5.2)


class GunicornWorker(CooldownWorker):
    def load_wsgi(self) -> None:
        """Load the application, and then what the worker itself needs of its settings.

        The master's first worker ends the master where the node can't start.
        """
        try:
            super().load_wsgi()
        except SystemExit as error:  # a setting is wrong, in one line
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
            if self.age == 1:
                sys.exit(Arbiter.APP_LOAD_ERROR)
            time.sleep(PAUSE_AFTER_WRONG_SETTINGS)
            sys.exit(1)
        # The master, which imports this module, must not have the settings.
        from django.conf import settings

        self.trusted_proxies = settings.TRUSTED_PROXIES
        self.cfg.set("forwarded_allow_ips", ",".join(self.trusted_proxies))

    def enqueue_req(self, conn: Any) -> None:
        """Have the client's address as the settings write it, before anybody looks at it."""
        if not isinstance(conn.client, tuple):
            conn.client = LOCAL_CLIENT
        elif conn.client[0].startswith(_MAPPED) and "." in conn.client[0]:
            conn.client = (conn.client[0].removeprefix(_MAPPED), *conn.client[1:])
        super().enqueue_req(conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Log and answer a broken request by its kind of mistake only.

        gunicorn quotes the request in both, and a header without its colon may hold a peer's token.
        """
        if isinstance(exc, ParseException):
            for name, value in vars(exc).items():
                if isinstance(value, str | bytes):
                    setattr(exc, name, "...")
        super().handle_error(req, client, addr, exc)
