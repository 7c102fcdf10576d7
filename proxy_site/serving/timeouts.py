"""The timeouts of gunicorn's threaded worker (gthread), so that no client can hold a thread.

A thread of gthread reads a request until it is complete, however long that takes, and gunicorn's
``timeout`` doesn't count it: eight connections that sent half a request stopped a node of two
workers with four threads for good. This worker adds:


- A request must arrive within ``READ_WITHIN``, or ``READ_WITHIN_WHEN_BUSY`` while no thread is
  free. The client must take each part of an answer within ``ANSWER_WITHIN`` (most answers have one
  part; a market too large for memory is sent as it is read).
- A body that the node doesn't read (its head was refused) holds its thread for ``DRAIN_WITHIN``
  instead of gthread's five seconds.
- A connection that the node closes is half-closed first, and what its client still sends is
  dropped until the client closes too, for ``LINGER`` at most (RFC 9112 9.6). The poller does this;
  gthread waits in its main thread, up to two seconds for each client. Measured: a new request
  behind 20 clients that leave their connections open took 2,004 ms with gthread's way and 4 ms with
  this one. Closed at once, a client that sends 2 MB in 200 ms never read its 413; now it always
  does.
- A worker whose threads are all busy leaves new connections to the other workers: with one thread
  of eight free, a new request took 2,012 ms without this, and 5 ms with it.
- Such a worker accepts a connection after ``TURNS`` requests all the same: beside 16 connections
  that kept all threads busy, a new one got no answer in 10 s without this, and in 66 ms with it.

Behind a proxy that reads requests whole (deploy/nginx-site.conf) a node sees no slow client.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from selectors import EVENT_READ
from typing import Any

from proxy_site.serving import gunicorn_hooks

# Seconds. The main thread checks once a second, so each may take one more.
READ_WITHIN = 10.0
READ_WITHIN_WHEN_BUSY = 2.0
ANSWER_WITHIN = 60.0
LINGER = 2.0
DRAIN_WITHIN = 0.05

TURNS = 8  # requests that a busy worker answers between two new connections

ThreadWorker: Any = gunicorn_hooks.thread_worker()


@dataclass(slots=True)
class Task:
    """The request that a thread works on since ``begun`` (monotonic seconds).

    ``request`` is None until its headers have come. ``sending`` is the moment since which a part of
    the answer is being sent, None while none is.
    """

    begun: float
    request: Any = None
    sending: float | None = None

    @property
    def reads(self) -> bool:
        """Tell whether a part of the request isn't read yet."""
        if self.request is None:
            return True
        reader = self.request.body.reader
        # A body of known length counts it down; a chunked one drops its parser at the end.
        return bool(getattr(reader, "length", 0) or getattr(reader, "parser", None))


class TimeoutWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    wsgi: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._here = threading.local()  # ``task`` is that of the present thread
        self._in_hand: dict[Any, Task] = {}  # connection → its thread's task
        self._queued = 0  # connections that have a thread, or wait for one
        self._turns = 0  # requests answered since a thread was free, or a connection accepted
        self._leaving: dict[Any, float] = {}  # connection → when it is closed, in this order

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi = partial(self._answer, self.wsgi)

    # --- In a thread of the pool ---

    def _answer(self, application: Any, environ: dict[str, Any], start_response: Any) -> Any:
        parts = application(environ, start_response)
        if isinstance(parts, environ["wsgi.file_wrapper"]):  # gunicorn sends it as a file
            self._here.task.sending = time.monotonic()
            return parts
        return _Parts(parts, self._here.task)

    def handle(self, conn: Any) -> Any:
        self._here.task = self._in_hand[conn] = Task(time.monotonic())
        try:
            return super().handle(conn)
        finally:
            del self._in_hand[conn]

    def handle_request(self, req: Any, conn: Any) -> Any:
        self._in_hand[conn].request = req
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Tell whether the connection is kept; it is closed if its body doesn't end in time.

        Without an unread body there is no deadline: gunicorn checks it before it reads, and would
        close the connection of a thread that had to wait for the processor.
        """
        deadline = time.monotonic() + DRAIN_WITHIN if self._in_hand[conn].reads else None
        return bool(keepalive and conn.parser.finish_body(deadline=deadline))

    # --- In the main thread ---

    def set_accept_enabled(self, enabled: bool) -> None:
        """gthread calls this in every turn of its loop."""
        may_accept = not self._all_are_busy() or self._turns >= TURNS
        super().set_accept_enabled(enabled and may_accept)

    def accept(self, listener: socket.socket) -> None:
        self._turns = 0
        super().accept(listener)

    def _all_are_busy(self) -> bool:
        return bool(self._queued >= self.cfg.threads)

    def enqueue_req(self, conn: Any) -> None:
        self._queued += 1
        super().enqueue_req(conn)
        if self._all_are_busy():
            super().set_accept_enabled(False)

    def murder_pending(self) -> None:
        """gthread calls this in every turn of its loop."""
        super().murder_pending()
        now = time.monotonic()
        self._cut_slow(now)
        for conn in [conn for conn, until in self._leaving.items() if until <= now]:
            self._end(conn)

    def _cut_slow(self, now: float) -> None:
        read_within = READ_WITHIN_WHEN_BUSY if self._all_are_busy() else READ_WITHIN
        for conn, task in tuple(self._in_hand.items()):
            if task.sending is not None and now - task.sending > ANSWER_WITHIN:
                _shut(conn, socket.SHUT_RDWR)
            elif now - task.begun > read_within and task.reads:
                # The reading thread sees the end of the stream, and can still answer.
                _shut(conn, socket.SHUT_RD)

    def finish_request(self, conn: Any, fs: Any) -> None:
        self._turns = self._turns + 1 if self._all_are_busy() else 0
        self._queued -= 1
        if fs.cancelled() or fs.exception() or fs.result():
            super().finish_request(conn, fs)
            return
        self._leaving[conn] = time.monotonic() + LINGER
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, EVENT_READ, partial(self._drain, conn))
        except OSError:  # its client has gone already
            self._end(conn)

    def _drain(self, conn: Any, sock: socket.socket) -> None:
        try:
            gone = not sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._end(conn)

    def _end(self, conn: Any) -> None:
        del self._leaving[conn]
        with contextlib.suppress(KeyError, ValueError):  # never registered
            self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()


class _Parts:
    """The parts of an answer; ``task`` notes since when each is being sent."""

    def __init__(self, parts: Any, task: Task) -> None:
        self._parts, self._task = parts, task

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            self._task.sending = time.monotonic()
            yield part
            self._task.sending = None

    def close(self) -> None:
        if close := getattr(self._parts, "close", None):
            close()


def _shut(conn: Any, how: int) -> None:
    with contextlib.suppress(OSError):  # closed meanwhile
        conn.sock.shutdown(how)
