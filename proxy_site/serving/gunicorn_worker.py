"""The worker class of gunicorn.conf.py: timeouts, cooldown, and no quotes of broken requests."""

from typing import Any

from gunicorn.http.errors import ParseException

from proxy_site.serving.cooldown import CooldownWorker


class GunicornWorker(CooldownWorker):
    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Log and answer a broken request by its kind of mistake only.

        gunicorn quotes the request in both, and a header without its colon may hold a peer's token.
        """
        if isinstance(exc, ParseException):
            for name, value in vars(exc).items():
                if isinstance(value, str | bytes):
                    setattr(exc, name, "...")
        super().handle_error(req, client, addr, exc)
