"""The command rotate_token leads an operator through a token rotation, and changes nothing."""

import secrets
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

import redis
from django.conf import settings
from django.core.management.base import BaseCommand

from gossip.tokens import bearer, rotation, secondary_use
from gossip.tokens.rotation import Look
from tickers import wiring

STEPS = """
A rotation has three steps. Do each on every node before the next one begins, and restart a node's
API and worker after each change. Compare nodes by the fingerprints above.
  1. Make a new token (rotate_token --new), and set it as SECONDARY_TOKEN.
  2. Swap PRIMARY_TOKEN and SECONDARY_TOKEN.
  3. Set another new token as SECONDARY_TOKEN. The old one is accepted nowhere from now on.
"""


class Command(BaseCommand):
    help = (
        "Say where this node stands in a rotation of the tokens, ask every internal peer which of "
        "its tokens they accept, and say whether the next step is safe. Exits with 0 only if it "
        "is. Tokens are shown by fingerprint only."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--new", action="store_true", help="make a token, print it, and leave")

    def handle(self, *args: Any, new: bool, **options: Any) -> None:
        if new:
            self.stdout.write(secrets.token_hex(bearer.TOKEN_BYTES))
            return
        primary, secondary = settings.PRIMARY_TOKEN, settings.SECONDARY_TOKEN
        self.stdout.write(f"The tokens of {settings.NODE_NAME}, as its settings are now:")
        self.stdout.write(
            f"  primary    {bearer.fingerprint(primary)}  sent to peers, and accepted"
        )
        self.stdout.write(f"  secondary  {bearer.fingerprint(secondary)}  accepted")
        # A public node sends to nobody, whatever its settings name.
        urls = [] if settings.IS_PUBLIC_NODE else settings.INTERNAL_PEER_URLS
        looks = rotation.look_at(urls, primary=primary, secondary=secondary)
        self.stdout.write(table(looks) + "\n" + STEPS)
        try:
            used = secondary_use.seconds_since(wiring.store(), token=secondary)
        except redis.RedisError as error:
            self.stdout.write(
                f"Not safe to go on: the store can't be asked which token peers send with "
                f"({type(error).__name__})."
            )
            sys.exit(1)
        advice = rotation.advise(looks, secondary_used=used)
        for line in advice.lines:
            self.stdout.write(line)
        if not advice.safe:
            sys.exit(1)


def table(looks: Sequence[Look]) -> str:
    if not looks:
        return "\nIt has no internal peers to send to."
    width = max(len(look.name) for look in looks)
    rows = [f"\n{'peer':{width}}  primary      secondary"]
    rows += [
        f"{look.name:{width}}  {look.primary:11}  {look.secondary:11}  {look.why}".rstrip()
        for look in looks
    ]
    return "\n".join(rows)
