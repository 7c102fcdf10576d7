"""Django's checks of a node: ``manage.py check --deploy`` looks at this machine's files and limits,
and with ``--database default`` at its Redis and database too.

A command that starts a node or migrates runs neither, so that what is wrong keeps nobody from
mending it. manage.py doctor shows the same, and asks the network besides.
"""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register

from proxy_site.doctor import machine
from proxy_site.doctor.findings import Finding, Severity


@register("node", deploy=True)
def files(**options: Any) -> list[CheckMessage]:
    return _messages(machine.of_files())


@register("redis", deploy=True)
def redis_servers(databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    if not databases:
        return []
    from proxy_site.doctor import servers  # every command would wait for what it imports

    return _messages(servers.of_redis())


@register(Tags.database, deploy=True)
def sql_database(databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    if not databases:
        return []
    from proxy_site.doctor import servers

    return _messages(servers.of_database())


def _messages(findings: Sequence[Finding]) -> list[CheckMessage]:
    makes = {Severity.WARNING: (Warning, "W"), Severity.ERROR: (Error, "E")}
    found: list[CheckMessage] = []
    for finding in findings:
        if finding.severity in makes:
            make, letter = makes[finding.severity]
            name = finding.check.replace(" ", "_")
            found.append(
                make(finding.text, hint=finding.remedy or None, id=f"{machine.OURS}{letter}_{name}")
            )
    return found
