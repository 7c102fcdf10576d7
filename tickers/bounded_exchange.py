"""A bounded HTTP exchange ends in time, whatever the other side does: it has a deadline for the
whole, a stop event, and can be cut from any thread.

A socket's timeout limits the wait for each byte, so a server that sends one now and then, in the
handshake, the headers or the body, holds its client for ever; and nothing limits a name service. So
the exchange runs in another thread, which its caller leaves when the time is over. The thread then
finds its socket shut down, and ends.
"""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_STOP_CHECK = 0.05  # seconds between checks of the stop event
_here = threading.local()

T = TypeVar("T")


class HttpError(Exception):
    """The server gave no usable answer; the message follows its name, as in "broke off"."""


class UnreachableError(HttpError):
    """There was no connection, or it broke before an answer came."""


class TimedOutError(HttpError):
    """Connecting, one read, or the whole exchange took too long."""


class TruncatedError(HttpError):
    """The body ended before its announced length, or before its compression did."""


class TooLargeError(HttpError):
    """The body is larger than any answer to the request can be."""


class EncodingError(HttpError):
    """The body has a Content-Encoding that wasn't asked for, and wasn't read."""


class StoppedError(Exception):
    """This node ended the exchange: nothing was learned about the server."""


class Exchange(Generic[T]):
    """An exchange that runs ``work`` in another thread as soon as it is made.

    ``work`` shows the sockets that it uses (``show``), and may ``settle`` the outcome that counts
    if the rest of it takes too long.
    """

    def __init__(self, work: "Callable[[Exchange[T]], T]") -> None:
        self.settled: T | None = None
        self.left = False  # no thread waits for the outcome any more
        self._work = work
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        _start(self)

    def wait(self, within: float, *, stop: threading.Event | None = None, grace: float = 0.0) -> T:
        """Return the outcome of the work, or raise what it raised.

        Raises TimedOutError after ``within`` seconds, StoppedError when ``stop`` was set ``grace``
        seconds ago or the exchange was cut.
        """
        deadline = time.monotonic() + within
        stopping = False
        try:
            while (left := deadline - time.monotonic()) > 0:
                if self._over.wait(left if stop is None else min(left, _STOP_CHECK)):
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
        """End the exchange at once; any thread may call this."""
        self._leave()
        self._over.set()

    def settle(self, outcome: T) -> None:
        """Set the outcome early; raises if no thread waits for it."""
        with self._lock:
            if self.left:  # headers that were cut off look like complete ones
                raise ConnectionAbortedError("the exchange was left")
            self.settled = outcome

    def use(self, connection: socket.socket) -> None:
        """Note the socket that the exchange waits on from now on; raises if no thread waits."""
        with self._lock:
            if self.left:
                raise ConnectionAbortedError("the exchange was left")
            if self._handle is not None:
                self._handle.close()
            # It gets a descriptor of its own: TLS detaches the socket's during the handshake, and
            # its shutdown isn't safe for two threads.
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
        """Do the work; called once, in the working thread."""
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
        """Give the outcome to the waiting thread; called once, after ``run``."""
        self._over.set()


def show(connection: socket.socket) -> None:
    """Show the exchange of this thread, if there is one, the socket that it waits on.

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
    """A thread that works on one exchange after the other, as a new one costs as much as a post.

    It ends when it was left, or had nothing to do for ``IDLE`` seconds.
    """

    IDLE = 5.0  # seconds

    def __init__(self) -> None:
        super().__init__(name="http-exchange", daemon=True)
        self.orders: queue.SimpleQueue[Exchange[Any]] = queue.SimpleQueue()

    def run(self) -> None:
        while (exchange := self._next()) is not None:
            exchange.run()
            was_left = exchange.left
            if not was_left:
                _idle.append(self)  # the next exchange may begin right after ``end``
            exchange.end()
            if was_left:
                return
            del exchange  # an idle thread must keep no answer in memory

    def _next(self) -> Exchange[Any] | None:
        try:
            return self.orders.get(timeout=self.IDLE)
        except queue.Empty:
            try:
                _idle.remove(self)
            except ValueError:  # a caller has just taken it, and is about to give it an exchange
                return self.orders.get()
            return None


_idle: list[_Thread] = []  # a list's methods are atomic
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a fork copies no threads


def _start(exchange: Exchange[Any]) -> None:
    try:
        thread = _idle.pop()
    except IndexError:
        thread = _Thread()
        thread.start()
    thread.orders.put(exchange)
