"""What the doctor sees of other servers: the upstream or core network, the peers, their clocks.

One request goes to each. The upstream's counts in the node's request budget; what an internal peer
is sent (gossip.tokens.rotation.PROBE) changes nothing there.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import redis
from django.conf import settings

from gossip.delivery.connection import Connection
from gossip.delivery.peer import Peer, PeerKind
from gossip.tokens import rotation
from gossip.tokens.rotation import Reaction
from proxy_site.doctor.findings import Finding, error, ok, warning
from proxy_site.management.commands import run_worker
from tickers import bounded_http, clock_skew, wiring
from tickers.bounded_http import HttpError, Limits
from tickers.clock_skew import ClockSkew, SourceKind
from tickers.follower import FollowError
from tickers.vci.client import source_name
from tickers.vci.errors import StoppedError, UpstreamError

WITHIN = 10.0  # seconds for one answer
PATIENCE = 20.0  # seconds for an upstream's, of which the request budget may take the first half
MOST_AT_ONCE = 16
LIMITS = Limits(read_timeout=WITHIN, total_timeout=WITHIN, max_body=1_000_000)


def look() -> list[Finding]:
    """Ask all at once."""
    skew = ClockSkew()
    asks: list[Callable[[], Finding]] = []
    if settings.IS_PUBLIC_NODE:
        asks += [_asking(of_core_network, url, skew) for url in settings.CORE_NETWORK_URLS]
    else:
        asks += [_asking(of_upstream, url, skew) for url in settings.VCI_BASE_URLS]
        asks += [_asking(of_internal_peer, url, skew) for url in settings.INTERNAL_PEER_URLS]
        asks += [_asking(of_public_peer, url, skew) for url in settings.PUBLIC_PEER_URLS]
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        found = list(pool.map(lambda ask: ask(), asks))
    if not settings.IS_PUBLIC_NODE and not settings.INTERNAL_PEER_URLS:
        found.append(ok("peers", "no internal peer is named"))
    return [*found, *of_clock(skew)]


def _asking(
    of: Callable[[str, ClockSkew], Finding], url: str, skew: ClockSkew
) -> Callable[[], Finding]:
    return lambda: of(url, skew)


def of_upstream(url: str, skew: ClockSkew) -> Finding:
    check, stop = "upstream", threading.Event()
    symbol, name = settings.UNIVERSE.symbols[0], source_name(url)
    timer = threading.Timer(PATIENCE, stop.set)
    timer.start()
    try:
        with closing(
            run_worker.vci_client(stop, skew, url=url, max_attempts=1, total_timeout=WITHIN)
        ) as client:
            answer = client.history(
                [symbol], interval="1D", count_back=1, to=wiring.market_clock().now()
            )
    except UpstreamError as failure:
        return error(
            check, f"{name}: {failure}", "check VCI_BASE_URL, and that this machine may reach it"
        )
    except StoppedError:
        return warning(
            check, f"{name} wasn't asked: the request budget is used up", "try again later"
        )
    except redis.RedisError:  # another node's door answered, and our own id isn't known
        return warning(check, f"{name} can't be judged while the store is away")
    finally:
        timer.cancel()
    if symbol not in answer.series:
        return warning(check, f"{name} answered without a bar of {symbol}", "check VCI_BASE_URL")
    return ok(check, f"{name} answered with a bar of {symbol}")


def of_core_network(url: str, skew: ClockSkew) -> Finding:
    check, symbol = "core network", settings.UNIVERSE.symbols[0]
    [follower] = run_worker.followers(threading.Event(), skew, urls=[url])
    try:
        bars = follower.full(symbol)
    except FollowError as failure:
        return error(check, f"{url}: {failure}", "check CORE_NETWORK_URL, or ask its operator")
    return ok(check, f"{url} answered with {len(bars)} bars of {symbol}")


def of_internal_peer(url: str, skew: ClockSkew) -> Finding:
    check, peer = "peer", Peer(url, PeerKind.INTERNAL, settings.PRIMARY_TOKEN)
    with closing(Connection(peer)) as connection:
        answer = connection.post(rotation.PROBE)
    skew.observe(kind=SourceKind.INTERNAL_PEERS, source=peer.name, date=answer.date)
    reaction = rotation.reaction_to(answer.status)
    if reaction is Reaction.ACCEPTS:
        return ok(check, f"{peer.name} accepts PRIMARY_TOKEN")
    if reaction is Reaction.REFUSES:
        return error(
            check,
            f"{peer.name} refuses PRIMARY_TOKEN",
            "it must be one of that node's two tokens: manage.py rotate_token compares them",
        )
    return warning(
        check,
        f"{peer.name}: {answer.reason}",
        "check its URL in INTERNAL_PEER_URLS, or ask its operator",
    )


def of_public_peer(url: str, skew: ClockSkew) -> Finding:
    check, name = "peer", Peer(url, PeerKind.PUBLIC).name
    remedy = "check its URL in PUBLIC_PEER_URLS, or ask its operator"
    try:
        with bounded_http.new_session() as session:
            answer = bounded_http.ask(
                session, "GET", f"{url}/health", limits=LIMITS, stop=threading.Event()
            )
    except HttpError as failure:
        return warning(check, f"{name} {failure}", remedy)
    skew.observe(kind=SourceKind.PUBLIC_PEERS, source=name, date=answer.headers.get("Date"))
    if answer.status != 200:
        return warning(check, f"{name} answers {answer.status} to /health", remedy)
    return ok(check, f"{name} answers")


def of_clock(skew: ClockSkew) -> Sequence[Finding]:
    """Compare this machine's clock with Redis's, and with those of who answered before."""
    check, remedy = "clock", "check the time synchronisation (NTP) of both machines"
    seconds = skew.seconds()
    found = []
    try:
        before = time.time()
        told, microseconds = wiring.store().client.time()
        of_redis = (before + time.time()) / 2 - (int(told) + int(microseconds) / 1e6)
    except redis.RedisError:
        pass  # the store's finding says so
    else:
        seconds["redis"] = of_redis
        if abs(of_redis) > clock_skew.TOLERANCE:
            text = f"this node's clock is {of_redis:+.0f} s off Redis's"
            found.append(warning(check, text, remedy))
    others = {kind: value for kind, value in seconds.items() if kind != "redis"}
    found += [warning(check, line) for line in clock_skew.complaints(others)]
    if found:
        return found
    if not seconds:
        return [warning(check, "there was no clock to compare this machine's with")]
    return [ok(check, f"it agrees with that of {', '.join(sorted(seconds)).replace('_', ' ')}")]
