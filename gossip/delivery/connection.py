"""The connection to one peer posts a body and turns whatever the peer does into a response.

No peer is trusted to finish what it began: tickers.bounded_connection limits time and size. The
token is sent to its own peer only, and never logged.
"""

from dataclasses import dataclass

from gossip import wire
from gossip.delivery.backoff import seconds_to_wait
from gossip.delivery.peer import Peer
from tickers.bounded_connection import MAX_RECEIPT, BoundedConnection
from tickers.bounded_exchange import HttpError, StoppedError, TimedOutError

MAX_ANSWER = MAX_RECEIPT  # bytes read of an answer's body

CONNECT_WITHIN = 2.0  # seconds
ANSWER_WITHIN = 10.0  # seconds, for the whole exchange


@dataclass(frozen=True, slots=True)
class PeerResponse:
    """A peer's response; with ``status`` None there was none, and ``reason`` says why."""

    status: int | None
    reason: str
    retry_after: float = 0.0  # seconds
    judged: bool = False  # every bar was refused for what it says
    is_plain_ok: bool = False  # the body is OK, as older nodes answer to whatever they are sent
    date: str | None = None  # the Date header


class Connection:
    """A connection to one peer, kept alive between requests.

    ``cut`` may be called from any thread, the rest from one. ``answer_within`` is in seconds.
    """

    def __init__(self, peer: Peer, *, answer_within: float = ANSWER_WITHIN) -> None:
        self._path = peer.path
        self._headers = {"Content-Type": "application/json", "User-Agent": "aipriceaction-proxy"}
        if peer.token:
            self._headers["Authorization"] = f"Bearer {peer.token}"
        self._answer_within = answer_within
        self._connection = BoundedConnection(peer.parts, connect_within=CONNECT_WITHIN)

    def post(self, body: bytes) -> PeerResponse:
        """Send a body and return the response; nothing that a peer does raises."""
        try:
            reply = self._connection.post(
                self._path, body, self._headers, within=self._answer_within
            )
        except (TimedOutError, StoppedError):
            return PeerResponse(None, "no answer in time")
        except HttpError as error:
            return PeerResponse(None, str(error))
        return PeerResponse(
            reply.status,
            f"it answers {reply.status}",
            retry_after=seconds_to_wait(reply.headers.get("Retry-After")),
            judged=wire.refuses_bars(reply.body),
            is_plain_ok=reply.body.strip() == b"OK",
            date=reply.headers.get("Date"),
        )

    def cut(self) -> None:
        """End the current request, and every later one, at once."""
        self._connection.cut()

    def close(self) -> None:
        self._connection.close()
