"""The command prune_actors deletes idle actors, old counts and deleted actors' old history.

Once a day is enough.
"""

import datetime as dt
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from reputation.prune import Limits, prune, to_prune


class Command(BaseCommand):
    help = (
        "Forgets actors on probation that sent nothing for long, their counts (the totals of each "
        "day stay) and, later, their history. Banned and trusted actors stay, and whomever an "
        "operator had to do with. May run beside a working node."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        for option, default, what in (
            ("--idle-days", settings.KEEP_IDLE_ACTORS, "actors on probation that send nothing"),
            ("--count-days", settings.KEEP_HOURLY_COUNTS, "hourly counts"),
            ("--history-days", settings.KEEP_HISTORY, "changes of status of forgotten actors"),
        ):
            parser.add_argument(
                option,
                type=int,
                default=default,
                metavar="DAYS",
                help=f"how long {what} are kept (default: {default})",
            )
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")

    def handle(self, *args: Any, **options: Any) -> None:
        days = {name: options[f"{name}_days"] for name in ("idle", "count", "history")}
        for name, value in days.items():
            if not 1 <= value <= 36_500:
                raise CommandError(f"--{name}-days must be from 1 to 36500")
        limits = Limits(
            hourly_counts=dt.timedelta(days=days["count"]),
            idle_actors=dt.timedelta(days=days["idle"]),
            history=dt.timedelta(days=days["history"]),
        )
        pruned = to_prune(limits) if options["dry_run"] else prune(limits)
        self.stdout.write(
            f"{'Would forget' if options['dry_run'] else 'Forgot'}: {pruned.actors} actors idle "
            f"for {days['idle']} days; {pruned.hourly_counts} hourly counts older than "
            f"{days['count']} days; {pruned.status_changes} changes of status older than "
            f"{days['history']} days, of actors that are gone."
        )
