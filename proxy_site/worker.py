"""The worker leads while it holds the lease: it fetches or follows in cycles, and delivers.

``run`` reads top to bottom: stand by, lead, run a cycle, report it, wait. The source makes the
cycle (tickers.core_fetch or tickers.follower), and delivery sends.
"""

import contextlib
import functools
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import redis

from proxy_site import reasons, redis_checks
from proxy_site.addresses import Addresses, backoff
from proxy_site.housekeeping import Housekeeping
from proxy_site.ownership import NotOursError
from proxy_site.problem_webhook import ProblemWebhook
from tickers.clock_skew import ClockSkew
from tickers.cycle_report import CycleReport
from tickers.follower import FollowError
from tickers.market_clock import MarketClock
from tickers.store.lease import LIFETIME, TRY_AGAIN, Lease
from tickers.store.store import FencedError, Store

logger = logging.getLogger(__name__)

NAMED = 20  # symbols that each list of the status names at most
LED_BY_ANOTHER = "standing by: another worker leads"
LONGEST_MESSAGE = 200  # characters of an unexpected error's text that are shown

Progress = Callable[[int, int], None]


class Source(Protocol):
    """A source of trusted bars."""

    def cycle(self, fence: str, progress: Progress | None = None) -> CycleReport: ...

    def contact(self, fence: str) -> CycleReport:
        """Make the cheapest request that shows the source alive and renews the trust window."""
        ...


class Sender(Protocol):
    """The part of delivery that the worker uses."""

    def start(self, fence: str) -> None: ...

    def stop(self, timeout: float) -> None: ...

    def status(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """The seconds between the starts of two cycles, and the longest pause between contacts."""

    office_hours: float
    otherwise: float
    longest_pause: float

    def interval(self, clock: MarketClock) -> float:
        return self.office_hours if clock.in_office_hours() else self.otherwise


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to a source; ``is_ours``: it failed because of our store or lease."""

    cycle: CycleReport
    is_ours: bool = False

    @property
    def failed(self) -> bool:
        return self.cycle.brought_nothing


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of error: its class, and the function that raised it."""

    error: type[Exception]
    file: str
    function: str


class Worker:
    """One worker process's loop over ``sources``, until ``stop`` is set.

    ``admit`` raises NotOursError when the store isn't this node's.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: MarketClock,
        sources: Sequence[Source],
        delivery: Sender,
        housekeeping: Housekeeping,
        pace: Pace,
        mode: str,
        stop: threading.Event,
        progress: Progress | None = None,
        admit: Callable[[], None] = lambda: None,
        clock_skew: ClockSkew | None = None,
        exchanges: Mapping[str, str] | None = None,
        webhook: ProblemWebhook | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._addresses = Addresses(sources)
        self._delivery = delivery
        self._housekeeping = housekeeping
        self._status: dict[str, Any] = {}  # as /health was told last
        self._pace = pace
        self._mode = mode
        self._stop = stop
        self._admit = admit
        self._is_admitted = False
        self._progress = progress
        self._clock_skew = clock_skew or ClockSkew()
        self._exchanges = dict(exchanges or {})  # symbol → exchange, as the universe has it
        self._webhook = webhook
        self._server_was_checked = False
        self._obstacle = ""  # why this worker doesn't lead, as the log has it
        self._faults: set[Fault] = set()  # kinds whose traceback is in the log
        self._iterations = 0
        self._least_interval = 0.0  # seconds that the request budget needs for a cycle
        self._own_failures = 0  # cycles in a row that failed because of our store or lease
        self._started = 0.0  # the last cycle's start; seconds of the monotonic clock
        # When to ask again after a cycle in which all addresses failed; None: one answered.
        self._resumes_at: float | None = None

    def run(self) -> bool:
        """Lead whenever the lease is free, until ``stop`` is set.

        Returns False, at once, when the store isn't this node's.
        """
        if self._webhook:
            self._webhook.start()
        with Lease(self._store) as lease:
            while not self._stop.is_set():
                try:
                    fence = self._try_to_lead(lease)
                except NotOursError as error:
                    logger.error("%s", error)
                    return False
                if fence:
                    logger.info("leading: this worker fetches and delivers")
                    self._lead(lease, fence)
                else:
                    self._stop.wait(TRY_AGAIN)
        return True

    def run_once(self) -> bool:
        """Run one cycle; return False when it had errors, or this worker can't lead."""
        with Lease(self._store) as lease:
            try:
                fence = self._wait_to_lead(lease)
            except NotOursError as error:
                logger.error("%s", error)
                return False
            if fence is None:
                if self._obstacle == LED_BY_ANOTHER:
                    logger.error("another worker leads: stop it first, or leave the work to it")
                else:
                    logger.error("no cycle was run: %s", self._obstacle or "it was to stop")
                return False
            self._note_listings(fence)
            self._delivery.start(fence)
            try:
                return self._cycle(fence)
            finally:
                self._delivery.stop(timeout=5)
                self._housekeeping.run_once()

    def _wait_to_lead(self, lease: Lease) -> str | None:
        deadline = time.monotonic() + LIFETIME + TRY_AGAIN
        while not self._stop.is_set():
            fence = self._try_to_lead(lease)
            if fence or self._obstacle != LED_BY_ANOTHER or time.monotonic() > deadline:
                return fence
            self._stop.wait(TRY_AGAIN)
        return None

    def _try_to_lead(self, lease: Lease) -> str | None:
        """Return a fence, or None and leave in the log why not: once, however often it is tried."""
        obstacle, level = "", logging.INFO
        fence = None
        try:
            self._ask_whose_store()
            self._check_server()
            fence = lease.try_acquire()
            if fence is None:
                obstacle = LED_BY_ANOTHER
        except redis.RedisError as error:
            obstacle, level = reasons.of_store(error), logging.ERROR
        if obstacle and obstacle != self._obstacle:
            logger.log(level, "%s; this worker tries again every %g s", obstacle, TRY_AGAIN)
        self._obstacle = obstacle
        return fence

    def _ask_whose_store(self) -> None:
        """Ask until it is known; a cache that is away keeps no worker from leading."""
        if not self._is_admitted:
            with contextlib.suppress(redis.RedisError):
                self._admit()
                self._is_admitted = True

    def _check_server(self) -> None:
        """Log once which settings of the server endanger the market; /health shows them."""
        if not self._server_was_checked:
            for danger in redis_checks.complaints(self._store.client.info()):
                logger.warning("%s", danger)
            self._server_was_checked = True

    def _lead(self, lease: Lease, fence: str) -> None:
        self._note_listings(fence)
        self._delivery.start(fence)
        self._housekeeping.start()
        if self._webhook:
            self._webhook.lead(fence)
        try:
            while lease.fence == fence and not self._stop.is_set():
                self._cycle(fence)
                self._wait(lease, fence)
        finally:
            if self._webhook:
                self._webhook.retire()
            self._delivery.stop(timeout=2)
            self._housekeeping.stop(timeout=2)

    def _note_listings(self, fence: str) -> None:
        """A move between exchanges shows when a worker with another universe begins to lead."""
        try:
            moved = self._store.note_listings(self._exchanges, fence=fence)
        except (redis.RedisError, FencedError) as error:
            logger.warning("the symbols' exchanges aren't noted before the next lead (%s)", error)
            return
        if moved:
            logger.info("moved to another exchange: %s", ", ".join(moved))

    def _cycle(self, fence: str) -> bool:
        """Run one cycle, which may fail but never raises; return whether it had no errors."""
        self._started = time.monotonic()
        cycle, self._resumes_at = self._ask(lambda source: source.cycle(fence, self._progress))
        self._iterations += 1
        self._least_interval = cycle.least_interval
        self._report(cycle, fence)
        return not cycle.errors

    def _ask(self, request: Callable[[Source], CycleReport]) -> tuple[CycleReport, float | None]:
        """Ask one address, and if it fails the next at once.

        Returns the report of the one asked last, with the errors of those before, and when to ask
        again if all failed (else None).
        """
        errors: list[str] = []
        interval = self._usual_interval()
        for address in self._addresses.to_ask(time.monotonic()):
            attempt = self._attempt(functools.partial(request, address.source))
            now = time.monotonic()
            errors += attempt.cycle.errors
            attempt.cycle.errors = errors
            if attempt.is_ours:
                self._own_failures += 1
                return attempt.cycle, now + self._pause(self._own_failures, interval)
            self._own_failures = 0
            if not attempt.failed:
                self._addresses.answered(address)
                return attempt.cycle, None
            pause = self._pause(address.failures + 1, interval)
            self._addresses.failed(address, now=now, pause=pause)
            if self._stop.is_set():
                break
        return attempt.cycle, self._addresses.due_at

    def _pause(self, failures: int, interval: float) -> float:
        return min(backoff(failures, interval=interval), self._pace.longest_pause)

    def _attempt(self, work: Callable[[], CycleReport]) -> Attempt:
        failed = CycleReport()
        is_ours = True
        try:
            return Attempt(work())
        except FencedError:
            failed.errors.append("the lease was lost in the cycle; what it fetched late is dropped")
        except redis.RedisError as error:
            failed.errors.append(f"the store can't be written ({error})")
        except FollowError as error:
            is_ours = False
            failed.errors.append(str(error))
        except Exception as error:  # noqa: BLE001 - nothing that others send may end the worker
            is_ours = False
            failed.errors.append(self._describe_fault(error))
        return Attempt(failed.finish(), is_ours)

    def _describe_fault(self, error: Exception) -> str:
        """Return an unexpected error in a line; log the traceback of the first of its kind."""
        *_, place = traceback.walk_tb(error.__traceback__)
        code = place[0].f_code
        kind = Fault(type(error), code.co_filename, code.co_name)
        if kind not in self._faults:
            self._faults.add(kind)
            logger.error("a cycle raised what nobody expected", exc_info=error)
        text = f"{kind.error.__name__} in {code.co_name} ({Path(code.co_filename).name})"
        return f"{text}: {str(error)[:LONGEST_MESSAGE]!r}"

    def _wait(self, lease: Lease, fence: str) -> None:
        """Wait for the next cycle, an interval after the last one's start.

        The wait is shorter when office hours begin meanwhile. During a long one the source is
        contacted often enough to keep the trust window open.
        """
        contact_at = time.monotonic() + self._pace.longest_pause
        until = self._started + self._next_interval()
        while (now := time.monotonic()) < until and lease.fence == fence:
            if now >= contact_at:
                contact, _ = self._ask(lambda source: source.contact(fence))
                for error in contact.errors:
                    logger.warning("the contact between cycles failed: %s", error)
                contact_at = time.monotonic() + self._pace.longest_pause
            self._tell_of_duties(fence)
            if self._stop.wait(min(TRY_AGAIN, max(0.0, until - now))):
                return
            until = min(until, self._started + self._next_interval())

    def _usual_interval(self) -> float:
        """Return the longer of the pace and what the request budget allows, in seconds."""
        return max(self._pace.interval(self._clock), self._least_interval)

    def _next_interval(self) -> float:
        """Return the seconds from the last cycle's start to the next one's."""
        interval = self._usual_interval()
        if self._resumes_at is None:
            return interval
        return min(max(interval, self._resumes_at - self._started), self._pace.longest_pause)

    def _report(self, cycle: CycleReport, fence: str) -> None:
        """Log a cycle, and write the status that /health shows."""
        for error in cycle.errors:
            logger.error("cycle %d: %s", self._iterations, error)
        if cycle.symbol_errors:
            symbol, error = min(cycle.symbol_errors.items())
            logger.warning(
                "cycle %d: %d symbols in error, among them %s: %s",
                self._iterations,
                len(cycle.symbol_errors),
                symbol,
                error,
            )
        logger.info("cycle %d: %s", self._iterations, cycle.summary())
        self._status = {
            "mode": self._mode,
            "told_at": time.time(),
            "pid": os.getpid(),
            "iterations": self._iterations,
            "interval": self._next_interval(),
            "cycle": {
                "started_at": cycle.started_at.isoformat(),
                "duration": round(cycle.duration, 3),
                "requests": cycle.requests,
                "bars_received": cycle.bars_received,
                "bars_changed": cycle.bars_changed,
                "bars_dropped": cycle.bars_dropped,
                "series_replaced": cycle.series_replaced,
                "symbols_missing": cycle.symbols_missing,
                "missing": sorted(cycle.missing)[:NAMED],
                "symbols_in_error": len(cycle.symbol_errors),
                "symbol_errors": dict(sorted(cycle.symbol_errors.items())[:NAMED]),
                "errors": cycle.errors[:10],
            },
            "addresses": {"count": len(self._addresses), "failing": self._addresses.failing},
            "upstream": cycle.upstream,
            "unseen": dict(sorted(cycle.unseen.items())),
            "delivery": self._delivery.status(),
            "clock_skew_secs": self._clock_skew.seconds(),
            **self._duties(),
        }
        self._write_status(fence)

    def _duties(self) -> dict[str, Any]:
        """Return what of the status changes between two cycles."""
        return {
            "housekeeping_failing": self._housekeeping.failing,
            "webhook_failure": self._webhook.failure if self._webhook else "",
        }

    def _tell_of_duties(self, fence: str) -> None:
        """Write the status again when a duty began to fail, or works again, since it was told."""
        told = {**self._status, **self._duties()}
        if told != self._status:
            self._status = told
            self._write_status(fence)

    def _write_status(self, fence: str) -> None:
        try:
            self._store.write_status(self._status, fence=fence)
        except FencedError:
            logger.info("what this worker did isn't told: another one leads")
        except redis.RedisError as error:
            logger.error("the worker's status can't be written (%s)", error)
