"""The command line: a command that a server or a folder stopped ends with one line, which names
the setting to correct."""

import sys
from collections.abc import Sequence

from django.core.management import execute_from_command_line

from proxy_site import reasons


def run(argv: Sequence[str]) -> None:
    """Run a command of Django's or the node's own; with --traceback every error is shown whole."""
    try:
        execute_from_command_line(list(argv))
    except Exception as error:
        reason = reasons.of(error)
        if not reason or "--traceback" in argv:
            raise
        sys.exit(f"aipriceaction-proxy: {reason}")
