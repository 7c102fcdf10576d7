"""An HTTP exchange that ends in time, whatever the other side does: with a deadline for the whole
of it, a stop event, and a way to cut it from outside.

Sockets limit the wait for each byte, so a server that sends one now and then, in the handshake, the
headers or the body, holds its client for ever; and nothing limits a name service. So the exchange
runs in another thread, which its caller leaves when the time is over. A thread that was left finds
its socket shut down, and ends.
"""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_GLANCE = 0.05  # seconds between looks at the stop event
_here = threading.local()

T = TypeVar("T")


class HttpError(Exception):
    """The server gave no usable answer. The message goes on where its name ends: "broke off"."""


class UnreachableError(HttpError):
    """No connection, or it broke before an answer came."""


class TimedOutError(HttpError):
    """Connecting, one read, or the whole exchange took too long."""


class TruncatedError(HttpError):
    """The body ended before its announced length, or before its compression did."""


class TooLargeError(HttpError):
    """The body is larger than any answer to what was asked can be."""


class EncodingError(HttpError):
    """The body has a Content-Encoding that wasn't asked for; it wasn't read."""


class StoppedError(Exception):
    """This node ended the exchange: nothing was learned about the server."""


class Exchange(Generic[T]):
    """Runs ``work`` in another thread, from the moment when it is made.

    ``work`` shows the sockets that it uses (``show``), and may ``settle`` what the outcome is if
    the rest of it takes too long.
    """

    def __init__(self, work: "Callable[[Exchange[T]], T]") -> None:
        self.settled: T | None = None
        self.left = False  # nobody waits for the outcome any more
        self._work = work
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        _start(self)

    def wait(self, within: float, *, stop: threading.Event | None = None, grace: float = 0.0) -> T:
        """The outcome of the work, or what it raised.

        Raises TimedOutError after ``within`` seconds, StoppedError when ``stop`` was set ``grace``
        seconds ago or the exchange was cut.
        """
        deadline = time.monotonic() + within
        stopping = False
        try:
            while (left := deadline - time.monotonic()) > 0:
                if self._over.wait(left if stop is None else min(left, _GLANCE)):
                    return self._result()
                if stop is not None and stop.is_set() and not stopping:
                    stopping = True
                    deadline = min(deadline, time.monotonic() + grace)
        finally:
            if not self._over.is_set():
                self._leave()
        if stopping:
            raise StoppedError("the node is stopping; the answer isn't awaited")
        if self.settled is not None:
            return self.settled
        raise TimedOutError(f"is too slow: its answer wasn't complete after {within:g} s")

    def cut(self) -> None:
        """End the exchange at once; for any thread."""
        self._leave()
        self._over.set()

    def settle(self, outcome: T) -> None:
        """Say early what the outcome is; raises if nobody waits."""
        with self._lock:
            if self.left:  # headers that were cut off look like complete ones
                raise ConnectionAbortedError("the exchange was left")
            self.settled = outcome

    def use(self, connection: socket.socket) -> None:
        """Note the socket that the exchange waits on from now on; raises if nobody waits."""
        with self._lock:
            if self.left:
                raise ConnectionAbortedError("the exchange was left")
            if self._handle is not None:
                self._handle.close()
            # A descriptor of our own: TLS takes the socket's away while it shakes hands, and has a
            # shutdown that isn't made for two threads.
            self._handle = socket.fromfd(connection.fileno(), connection.family, connection.type)

    def _leave(self) -> None:
        with self._lock:
            self.left = True
            if self._handle is not None:
                with contextlib.suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)

    def _result(self) -> T:
        if self.left:  # what was cut off may look complete
            raise StoppedError("the exchange was cut")
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    def run(self) -> None:
        """Called once, in the thread that works."""
        _here.exchange = self
        try:
            self._outcome.append(self._work(self))
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self._error = error
        _here.exchange = None
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = None

    def end(self) -> None:
        """Called once, after ``run``: who waits gets the outcome."""
        self._over.set()


def show(connection: socket.socket) -> None:
    """Show the exchange of this thread, if it has one, the socket that it waits on.

    Raises ConnectionAbortedError, and closes the socket, when the exchange was left.
    """
    exchange: Exchange[Any] | None = getattr(_here, "exchange", None)
    if exchange is None:
        return
    try:
        exchange.use(connection)
    except ConnectionAbortedError:
        connection.close()
        raise


# --- Threads --------------------------------------------------------------------------------------


class _Thread(threading.Thread):
    """Works on one exchange after the other: a thread for each would cost as much as a short post.
    It ends when it was left, or had nothing to do for a while."""

    IDLE = 5.0  # seconds

    def __init__(self) -> None:
        super().__init__(name="http-exchange", daemon=True)
        self.orders: queue.SimpleQueue[Exchange[Any]] = queue.SimpleQueue()

    def run(self) -> None:
        while (exchange := self._next()) is not None:
            exchange.run()
            was_left = exchange.left
            if not was_left:
                _idle.append(self)  # before the end, after which the next exchange may begin
            exchange.end()
            if was_left:
                return
            del exchange  # an answer isn't kept while there is nothing to do

    def _next(self) -> Exchange[Any] | None:
        try:
            return self.orders.get(timeout=self.IDLE)
        except queue.Empty:
            try:
                _idle.remove(self)
            except ValueError:  # somebody has just taken it, and is about to give it something
                return self.orders.get()
            return None


_idle: list[_Thread] = []  # its methods are atomic
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a child has none of its parent's threads


def _start(exchange: Exchange[Any]) -> None:
    try:
        thread = _idle.pop()
    except IndexError:
        thread = _Thread()
        thread.start()
    thread.orders.put(exchange)
