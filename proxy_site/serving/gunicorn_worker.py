"""gunicorn's threaded worker, which waits for nobody for long, and keeps what it can't parse to
itself."""

from typing import Any

from gunicorn.http.errors import ParseException

from proxy_site.serving.cooldown import CooldownWorker


class GunicornWorker(CooldownWorker):
    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """gunicorn quotes a broken request in its log and in its answer: a header without its colon
        may hold a peer's token. What kind of mistake it is stays."""
        if isinstance(exc, ParseException):
            for name, value in vars(exc).items():
                if isinstance(value, str | bytes):
                    setattr(exc, name, "...")
        super().handle_error(req, client, addr, exc)
