"""The simulator's server on loopback, which is started and stopped here."""

import ipaddress

from simulator.controls import Controls
from simulator.loopback import Started
from simulator.market import SimulatedMarket, SimulationError
from simulator.protocol import Listener


class SimulatorServer(Started, Controls):
    """A context manager that serves ``market`` until stopped. ``port`` 0 takes a free one.

    Its limits are ``requests_per_minute`` in a sliding 60 s (429) and ``max_symbols`` a request
    (400), 0 for none. ``latency`` is in seconds. Raises SimulationError for a host that isn't this
    machine.
    """

    def __init__(
        self,
        market: SimulatedMarket,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        requests_per_minute: int = 0,
        max_symbols: int = 0,
        latency: float = 0.0,
    ) -> None:
        super().__init__(
            market,
            requests_per_minute=requests_per_minute,
            max_symbols=max_symbols,
            latency=latency,
        )
        if host != "localhost" and not _is_loopback(host):
            raise SimulationError(f"host {host} isn't loopback; use 127.0.0.1")
        self._host = host
        self._port = port
        self._http: Listener | None = None

    @property
    def url(self) -> str:
        """The value for a node's VCI_BASE_URL; raises SimulationError before a port is taken."""
        if not self._port:
            raise SimulationError("the simulator has no port yet: start it first")
        return f"http://{self._host}:{self._port}/api/"

    @property
    def port(self) -> int:
        """The port; 0 before a free one was taken."""
        return self._port

    def start(self) -> None:
        """Listen, after a stop on the same port as before; raises SimulationError."""
        if self._http is not None:
            return
        try:
            self._http = Listener(self, host=self._host, port=self._port)
        except (OSError, OverflowError) as error:
            raise SimulationError(
                f"port {self._port} on {self._host} can't be listened on ({error}); "
                "choose another, or 0 for a free one"
            ) from None
        self._port = self._http.port
        self._stopping.clear()
        self._http.start()

    def stop(self) -> None:
        """Stop listening and end every connection, kept-alive ones and answers under way too."""
        if self._http is None:
            return
        self._stopping.set()
        self._http.stop()
        self._http = None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False
