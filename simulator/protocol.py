"""The HTTP server of the simulator, which speaks the protocol of the broker's chart API (VCI).

POST /api/chart/OHLCChart/gap-chart with {"timeFrame", "symbols", "to", "countBack"} answers a list
with an object a symbol: columns o h l c v and t (epoch seconds, as strings). Browser headers are
required, symbols it doesn't know are left out. POST /_control and GET /_stats are the simulator's
own; see Controls.
"""

import json
import logging
import sys
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from simulator.controls import Controls
from simulator.faults import IN_SENDING, BodyFault, encode
from simulator.loopback import LoopbackServer
from simulator.market import Frame

logger = logging.getLogger(__name__)

CHART_PATH = "/api/chart/OHLCChart/gap-chart"
DROPS = 60  # of a slow body
SECONDS_A_DROP = 1.0


class _Refused(Exception):  # noqa: N818 - an answer, not an error of ours
    def __init__(self, status: int, message: str, *, html: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.body = (
            f"<html><body>{status} {message}</body></html>"
            if html
            else json.dumps({"message": message})
        ).encode()
        self.kind = "text/html" if html else "application/json"


@dataclass(frozen=True, slots=True)
class _Order:
    """A client's request for bars, checked as leniently as the upstream does."""

    frame: Frame
    symbols: list[str]
    to: int
    count_back: int

    @classmethod
    def parse(cls, body: bytes, *, max_symbols: int) -> "_Order":
        try:
            fields = json.loads(body)
            order = cls(
                frame=Frame(fields["timeFrame"]),
                symbols=fields["symbols"],
                to=int(fields["to"]),
                count_back=int(fields["countBack"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError):
            raise _Refused(400, "Bad Request") from None
        if not isinstance(order.symbols, list) or not order.symbols:
            raise _Refused(400, "Bad Request")
        if 0 < max_symbols < len(order.symbols):
            raise _Refused(400, f"at most {max_symbols} symbols a request")
        return order


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes; the second must not wait for the first one's acknowledgement.
    disable_nagle_algorithm = True
    server: "Listener"

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)

    def do_GET(self) -> None:
        if self.path == "/_stats":
            self._answer(200, json.dumps(self.server.controls.stats()).encode())
        else:
            self._answer(404, b'{"message": "not found"}')

    def do_POST(self) -> None:
        try:
            body = self._read_body()
            if self.path == "/_control":
                self.server.controls.obey(json.loads(body or b"{}"))
                self._answer(200, b'{"ok": true}')
            else:
                self._chart(body)
        except _Refused as refused:
            self._answer(refused.status, refused.body, refused.kind)
        except ValueError as error:  # broken JSON, or SimulationError
            self._answer(400, json.dumps({"message": str(error)}).encode())

    def _read_body(self) -> bytes:
        try:
            return self.rfile.read(max(0, int(self.headers.get("Content-Length") or 0)))
        except ValueError:
            self.close_connection = True  # where the next request begins is unknown
            raise _Refused(400, "Bad Request") from None

    def _chart(self, body: bytes) -> None:
        controls = self.server.controls
        controls.count(requests=1)
        try:
            self._admit()
            if controls.pause():
                self.close_connection = True
                return
            fault = controls.take_fault()
            if fault is not None and fault.status is not None:
                controls.count(**{fault.name: 1})
                self._answer(fault.status, b"<html><body>error</body></html>", "text/html")
                return
            order = _Order.parse(body, max_symbols=controls.max_symbols)
        except _Refused as refused:
            controls.count(**{"refused": 1, f"refused_{refused.status}": 1})
            raise
        if fault is not None:
            controls.count(**{fault.name: 1})
        body_fault = fault.body if fault is not None else None
        whole, kind = encode(self._reply(order), body_fault)
        if body_fault in IN_SENDING:
            self._send_badly(whole, body_fault)
        else:
            self._answer(200, whole, kind)

    def _admit(self) -> None:
        if self.path != CHART_PATH:
            raise _Refused(404, "not found")
        browser = "Mozilla/" in self.headers.get("User-Agent", "")
        if not browser or "vietcap.com.vn" not in self.headers.get("Referer", ""):
            raise _Refused(403, "Forbidden", html=True)
        if not self.server.controls.admit():
            raise _Refused(429, "Too Many Requests")

    def _reply(self, order: _Order) -> list[dict[str, Any]]:
        controls = self.server.controls
        reply: list[dict[str, Any]] = []
        bars_sent = 0
        for symbol in order.symbols:
            if not isinstance(symbol, str) or symbol not in controls.market:
                continue
            if symbol in controls.dropped:
                continue
            bars = controls.market.bars(
                symbol, frame=order.frame, to=order.to, count_back=order.count_back
            )
            columns = [list(column) for column in zip(*bars, strict=True)] or [[] for _ in range(6)]
            times, opens, highs, lows, closes, volumes = columns
            reply.append(
                {
                    "symbol": symbol,
                    "o": opens,
                    "h": highs,
                    "l": lows,
                    "c": closes,
                    "v": volumes,
                    "t": [str(time) for time in times],
                    "accumulatedVolume": [],
                    "accumulatedValue": [],
                }
            )
            bars_sent += len(bars)
        controls.count(symbols_asked=len(order.symbols), bars_sent=bars_sent)
        return reply

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self._send_head(status, len(body), kind)
        # The count comes first, since a client that has the answer may read the counters at once.
        self.server.controls.count(bytes_sent=len(body))
        self.wfile.write(body)

    def _send_head(self, status: int, length: int, kind: str | None = None) -> None:
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_badly(self, whole: bytes, fault: BodyFault | None) -> None:
        self.close_connection = fault is not BodyFault.SLOW_BODY
        if fault is BodyFault.RESET:
            return
        self._send_head(200, len(whole))
        if fault is BodyFault.TRUNCATED:
            self.wfile.write(whole[: len(whole) // 2])
            return
        drop = max(1, len(whole) // DROPS)
        for at in range(0, len(whole), drop):
            self.wfile.write(whole[at : at + drop])
            if self.server.controls.pause(SECONDS_A_DROP):
                self.close_connection = True
                return


class Listener(LoopbackServer):
    def __init__(self, controls: Controls, *, host: str, port: int) -> None:
        self.controls = controls
        super().__init__(_Handler, host=host, port=port)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            logger.debug("a client left before its answer was complete")
        else:
            logger.exception("the simulator failed to answer")
