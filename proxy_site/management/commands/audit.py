"""The command audit reads series in full, as the nightly audit does, and prints what it found."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from proxy_site.management.commands.history import read_in_full
from tickers import wiring
from tickers.follower import FollowError
from tickers.store.lease import operators_fence
from tickers.vci.errors import UpstreamError


class Command(BaseCommand):
    help = (
        "Read series in full from the upstream, or the core network: those that are named, or all. "
        "What differs is replaced, as every night; what can't be right becomes a suspect."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("symbols", nargs="*", type=str.upper, metavar="SYMBOL")

    def handle(self, *args: Any, symbols: list[str], **options: Any) -> None:
        store = wiring.store()
        wanted = symbols or store.symbols()
        try:
            with operators_fence(store) as fence:
                intake = read_in_full(fence, wanted)
        except (UpstreamError, FollowError) as error:
            raise CommandError(f"{error}") from None
        self.stdout.write(f"{len(wanted)} series were read, {len(intake.changed)} differed")
        for symbol in sorted(intake.changed):
            self.stdout.write(f"{symbol}: replaced")
        for symbol, wrong in sorted(intake.cycle.symbol_errors.items()):
            self.stdout.write(f"{symbol}: {wrong}")
        for symbol, held in sorted(intake.suspects.items()):
            self.stdout.write(f"{symbol}: a suspect, {held.reason.value}")
        if intake.cycle.errors:
            raise CommandError("; ".join(intake.cycle.errors))
