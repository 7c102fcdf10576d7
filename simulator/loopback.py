"""A server on loopback that is started and stopped: the simulator's, and those of the tests."""

import contextlib
import socket
import socketserver
import sys
import threading
from types import TracebackType
from typing import Any, Self

WAKES_EVERY = 0.02  # seconds: so long a stop takes at most


class Started:
    """A context manager that starts with its block and stops at the end."""

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class LoopbackServer(Started, socketserver.ThreadingTCPServer):
    """A TCP server that listens as soon as it is made, and serves from ``start`` to ``stop``.

    Each connection has a thread. ``port`` 0 takes a free one. It isn't http.server's, which would
    ask the name service for this machine's name.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        handler: type[socketserver.BaseRequestHandler],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__((host, port), handler)
        self._serving = threading.Thread(
            target=self.serve_forever, args=(WAKES_EVERY,), name="loopback", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._serving.start()

    def stop(self) -> None:
        """Stop listening and end every connection, kept-alive ones and answers under way too."""
        self.shutdown()
        self._serving.join()
        with self._connections_lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that leaves before its answer is complete."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
