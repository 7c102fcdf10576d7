"""The command doctor looks at what this node needs, and says what is wrong and what helps."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from proxy_site.doctor import machine, network, servers
from proxy_site.doctor.findings import Finding, Severity, as_json, worst
from proxy_site.local import embedded_redis


class Command(BaseCommand):
    help = (
        "Look at settings, files, Redis, database, upstream, peers and clock: a line each, with "
        "the remedy. Exits with 0 when all is fine, with 1 after warnings, with 2 after errors."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.USES_EMBEDDED_SERVER:
            embedded_redis.ensure(settings.DATA_DIR)
        found = []
        for finding in self.look():
            found.append(finding)
            if not options["json"]:
                self.stdout.write(finding.line(), self.style_of(finding.severity))
                self.stdout.flush()  # in a pipe too: a server that hangs takes its time
        if options["json"]:
            self.stdout.write(json.dumps(as_json(found), indent=2))
        if worst(found):
            sys.exit(worst(found))

    def look(self) -> Iterator[Finding]:
        yield from machine.look()
        yield from servers.look()
        yield from network.look()

    def style_of(self, severity: Severity) -> Any:
        return {Severity.WARNING: self.style.WARNING, Severity.ERROR: self.style.ERROR}.get(
            severity
        )
