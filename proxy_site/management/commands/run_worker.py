"""The command run_worker fetches (core node) or follows (public node), and delivers."""

import logging
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from tqdm import tqdm

from gossip.delivery.delivery import Delivery
from gossip.delivery.peer import Peer, PeerKind
from gossip.doors.appeals import Hearing
from gossip.doors.claims import Claims
from proxy_site import ownership
from proxy_site.health import leaders_problems
from proxy_site.housekeeping import (
    ContradictedPeers,
    Duty,
    Housekeeping,
    forget_gossiped,
    settle_claims,
    withdraw_bars_of_banned,
)
from proxy_site.local import embedded_redis
from proxy_site.problem_webhook import ProblemWebhook
from proxy_site.serving import process_memory
from proxy_site.worker import Pace, Worker
from reputation import actors
from tickers import wiring
from tickers.bar import epoch_of
from tickers.clock_skew import ClockSkew
from tickers.core_fetch import CoreFetch
from tickers.follower import Follower
from tickers.upstream_choice import UpstreamChoice
from tickers.vci.client import VciClient, source_name
from tickers.vci.request_budget import RequestBudget

logger = logging.getLogger(__name__)

# Seconds that the current cycle may take after SIGTERM. The store's steps are atomic, so that only
# a request is cut off then.
PATIENCE = 4.0


class Command(BaseCommand):
    help = "Fetch or follow the market, and deliver it to peers, until SIGTERM or SIGINT."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="one cycle, then leave")

    def handle(self, *args: Any, once: bool, **options: Any) -> None:
        if settings.USES_EMBEDDED_SERVER:
            embedded_redis.ensure(settings.DATA_DIR)
        ownership.end_unless_ours()
        stop = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
        worker = make_worker(stop)
        process_memory.freeze_imported_objects()
        outcome: list[bool] = []
        work = worker.run_once if once else worker.run
        thread = threading.Thread(target=lambda: outcome.append(work()), name="worker", daemon=True)
        thread.start()
        while thread.is_alive() and not stop.is_set():
            thread.join(0.2)
            if settings.USES_EMBEDDED_SERVER and embedded_redis.mend(settings.DATA_DIR):
                logger.warning("the embedded server had died; it runs again")
        thread.join(PATIENCE)
        logger.info("the worker has left")
        if outcome != [True] and not stop.is_set():
            sys.exit(1)


def make_worker(stop: threading.Event) -> Worker:
    store, clock, skew = wiring.store(), wiring.market_clock(), ClockSkew()
    delivery = Delivery(
        store=store,
        peers=peers(),
        clock=clock,
        trust_window=settings.TRUST_WINDOW,
        clock_skew=skew,
    )
    return Worker(
        store=store,
        clock=clock,
        sources=followers(stop, skew)
        if settings.IS_PUBLIC_NODE
        else [upstreams(stop, skew, on_change=delivery.wake)],
        delivery=delivery,
        housekeeping=housekeeping(),
        pace=Pace(
            office_hours=settings.CYCLE,
            otherwise=settings.CYCLE_OUTSIDE_HOURS,
            longest_pause=settings.TRUST_WINDOW / 2,
        ),
        mode="public" if settings.IS_PUBLIC_NODE else "core",
        stop=stop,
        admit=ownership.require,
        progress=progress_bar() if sys.stderr.isatty() else None,
        clock_skew=skew,
        exchanges={entry.symbol: entry.exchange.value for entry in settings.UNIVERSE},
        webhook=problem_webhook(stop) if settings.PROBLEM_WEBHOOK else None,
    )


def problem_webhook(stop: threading.Event) -> ProblemWebhook:
    return ProblemWebhook(
        url=settings.PROBLEM_WEBHOOK,
        name=settings.NODE_NAME,
        environment=settings.ENVIRONMENT,
        store=wiring.store(),
        problems=leaders_problems,
        stop=stop,
    )


def upstreams(
    stop: threading.Event, skew: ClockSkew, *, on_change: Callable[[], None]
) -> UpstreamChoice:
    return UpstreamChoice(
        [core_fetch(stop, skew, url=url, on_change=on_change) for url in settings.VCI_BASE_URLS]
    )


def core_fetch(
    stop: threading.Event, skew: ClockSkew, *, url: str, on_change: Callable[[], None]
) -> CoreFetch:
    return CoreFetch(
        store=wiring.store(),
        clock=wiring.market_clock(),
        client=vci_client(stop, skew, url=url),
        symbols=settings.UNIVERSE.symbols,
        history_start=settings.HISTORY_START,
        stop=stop,
        on_change=on_change,
    )


def vci_client(stop: threading.Event, skew: ClockSkew, *, url: str, **limits: Any) -> VciClient:
    """Return the client of one upstream, whose requests count in the node's budget for it."""
    store = wiring.store()
    return VciClient(
        base_url=url,
        budget=RequestBudget(
            limit=settings.VCI_RATE_LIMIT,
            server=store.client,
            source="" if url == settings.VCI_BASE_URLS[0] else source_name(url),
        ),
        batch_size=settings.VCI_BATCH_SIZE,
        largest_batch=len(settings.UNIVERSE),
        stop=stop,
        clock_skew=skew,
        spellings=settings.UNIVERSE.spellings,
        indices=settings.UNIVERSE.indices,
        own_id=store.node_id,
        oldest=settings.TRUST_WINDOW,
        **limits,
    )


def housekeeping() -> Housekeeping:
    store = wiring.store()
    claims = Claims(store)
    duties: dict[str, Duty] = {
        "ending what the banned have standing": lambda: withdraw_bars_of_banned(store),
        "counting bars in the database": actors.flush,
        "hearing appeals": Hearing(store).turn,
        "settling claims": lambda: settle_claims(claims, lifetime=settings.TRUST_WINDOW),
        "naming contradicted peers": ContradictedPeers(store).tell,
    }
    if not settings.IS_PUBLIC_NODE:  # a public node's universe is what its core serves
        duties["forgetting what only peers know"] = lambda: forget_gossiped(
            store, settings.UNIVERSE, wiring.market_clock()
        )
    return Housekeeping(duties)


def followers(
    stop: threading.Event, skew: ClockSkew, *, urls: Sequence[str] | None = None
) -> list[Follower]:
    """Return a follower of each core network; ``urls``: by default those of the settings."""
    return [
        Follower(
            wiring.store(),
            url=url,
            refresh_interval=settings.PUBLIC_REFRESH_INTERVAL,
            history_start=epoch_of(settings.HISTORY_START),
            stop=stop,
            clock_skew=skew,
        )
        for url in urls or settings.CORE_NETWORK_URLS
    ]


def peers() -> list[Peer]:
    """Return the peers of the settings; a public node has none, as it delivers nothing."""
    if settings.IS_PUBLIC_NODE:
        return []
    internal = [
        Peer(url, PeerKind.INTERNAL, settings.PRIMARY_TOKEN) for url in settings.INTERNAL_PEER_URLS
    ]
    return internal + [Peer(url, PeerKind.PUBLIC) for url in settings.PUBLIC_PEER_URLS]


def progress_bar() -> Any:
    """Return a function that shows the first load of the histories on a terminal."""
    bar = tqdm(desc="loading history", unit="symbol", leave=False)

    def show(done: int, total: int) -> None:
        bar.total, bar.n = total, done
        bar.refresh()
        if done >= total:
            bar.clear()

    return show
