"""The command take_store makes a store, and its cache, this node's, after a move."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from proxy_site import ownership


class Command(BaseCommand):
    help = (
        "Make the store of REDIS_URL and its cache this node's: after the node has moved or has "
        "another database, or for the store of a node that is gone. The market stays."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            lines = ownership.take()
        except ownership.NotOursError as error:
            raise CommandError(str(error)) from None
        for line in lines or ["the store and the cache are this node's already"]:
            self.stdout.write(line)
