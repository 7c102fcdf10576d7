"""The floor of a read: the same bytes from a bare WSGI function, under the same gunicorn.

The bodies are the files that the benchmark wrote to FLOOR_DIR, one for each path.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

Start = Callable[[str, list[tuple[str, str]]], object]

BODIES = {f"/{path.name}": path.read_bytes() for path in Path(os.environ["FLOOR_DIR"]).iterdir()}


def application(environ: dict[str, object], start_response: Start) -> Iterable[bytes]:
    body = BODIES[str(environ["PATH_INFO"])]
    start_response(
        "200 OK",
        [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
    )
    return [body]
