"""The command history shows a symbol's stored series beside its source's; accepts or forgets it."""

import logging
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from proxy_site.management.commands import run_worker
from tickers import wiring
from tickers.bar import Bar
from tickers.clock_skew import ClockSkew
from tickers.core_fetch import CoreFetch
from tickers.follower import Follower, FollowError
from tickers.intake import Intake
from tickers.snapshot.series import bar_of
from tickers.store.lease import operators_fence
from tickers.store.store import Store
from tickers.vci.errors import UpstreamError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SHOWN = 20  # differing days that are printed, the latest first


class Command(BaseCommand):
    help = (
        "Show what is stored of a symbol beside what the upstream, or the core network, says. "
        "--accept takes what it says, also what is suspect or loses days; --forget removes the "
        "symbol from the market."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("symbol", type=str.upper)
        decision = parser.add_mutually_exclusive_group()
        decision.add_argument("--accept", action="store_true", help="take what the source says")
        decision.add_argument("--forget", action="store_true", help="remove the symbol")

    def handle(self, *args: Any, symbol: str, accept: bool, forget: bool, **options: Any) -> None:
        store = wiring.store()
        if forget:
            if not store.forget(symbol):
                raise CommandError(f"{symbol} isn't in the market")
            self.stdout.write(f"{symbol} is removed")
            return
        try:
            self.show(symbol, store, first_answer(lambda source: source.full(symbol)))
            if accept:
                self.accept(symbol, store)
        except (UpstreamError, FollowError) as error:
            raise CommandError(f"{error}") from None

    def show(self, symbol: str, store: Store, said: list[Bar]) -> None:
        [(_, rows)] = store.series([symbol])
        stored = {bar.day: bar for bar in (bar_of(encoded) for _, encoded in rows)}
        answer = {bar.day: bar for bar in said}
        days = sorted(stored.keys() | answer.keys(), reverse=True)
        differing = [day for day in days if stored.get(day) != answer.get(day)]
        if suspect := store.suspects().get(symbol):
            self.stdout.write(f"{symbol} is a suspect: {suspect.reason.value}")
        self.stdout.write(
            f"{len(stored)} bars are stored, the source has {len(answer)}; "
            f"{len(differing)} days differ"
        )
        for day in differing[:SHOWN]:
            self.stdout.write(f"{day}  stored  {_figures(stored.get(day))}")
            self.stdout.write(f"{'':10}  source  {_figures(answer.get(day))}")
        if len(differing) > SHOWN:
            self.stdout.write(f"and {len(differing) - SHOWN} earlier days")

    def accept(self, symbol: str, store: Store) -> None:
        with operators_fence(store) as fence:
            intake = read_in_full(fence, [symbol], accept=True)
        errors = [*intake.cycle.errors, *intake.cycle.symbol_errors.values()]
        if errors:
            raise CommandError(f"{symbol} wasn't taken: {errors[0]}")
        self.stdout.write(f"{symbol} is taken as its source says it")


def read_in_full(fence: str, symbols: Sequence[str], *, accept: bool = False) -> Intake:
    """Return what became of these series, read from the first source that answers.

    Raises as ``first_answer`` does.
    """

    def read(source: CoreFetch | Follower) -> Intake:
        intake = source.read_in_full(fence, symbols, accept=accept)
        if intake.cycle.brought_nothing:
            raise UpstreamError("; ".join(intake.cycle.errors))
        return intake

    return first_answer(read)


def first_answer(ask: Callable[[CoreFetch | Follower], Answer]) -> Answer:
    """Return what the first upstream, or core network, says that answers.

    Raises the last one's UpstreamError or FollowError if none does.
    """
    *preferred, last = sources()
    for source in preferred:
        try:
            return ask(source)
        except (UpstreamError, FollowError) as error:
            logger.warning("%s; asking the next one", error)
    return ask(last)


def sources() -> Sequence[CoreFetch | Follower]:
    """Return the sources of this node's trusted bars, the preferred one first."""
    stop, skew = threading.Event(), ClockSkew()
    if settings.IS_PUBLIC_NODE:
        return run_worker.followers(stop, skew)
    return [
        run_worker.core_fetch(stop, skew, url=url, on_change=lambda: None)
        for url in settings.VCI_BASE_URLS
    ]


def _figures(bar: Bar | None) -> str:
    if bar is None:
        return "-"
    prices = " ".join(f"{price:>12,.2f}" for price in bar.prices)
    return f"{prices} {bar.volume:>15,}"
