"""The command line: a command that a server or a folder stopped ends with one line, which names
the setting to correct."""

import json
import logging
import sys
from collections.abc import Sequence

from django.core.management import execute_from_command_line

from proxy_site import reasons
from proxy_site.doctor.findings import Severity, as_json, error


def run(argv: Sequence[str]) -> None:
    """Run a command of Django's or the node's own; with --traceback every error is shown whole."""
    if argv[1:2] == ["doctor"]:
        logging.disable(logging.CRITICAL)  # programs read what it writes
    try:
        execute_from_command_line(list(argv))
    except SystemExit as refusal:
        if isinstance(refusal.code, str):  # a setting is missing or wrong
            _end(argv, refusal.code)
        raise
    except Exception as failure:
        reason = reasons.of(failure)
        if not reason or "--traceback" in argv:
            raise
        _end(argv, f"aipriceaction-proxy: {reason}")


def _end(argv: Sequence[str], line: str) -> None:
    """End the process with a line; the doctor's is a finding, whose exit code says how bad."""
    if argv[1:2] != ["doctor"]:
        sys.exit(line)
    text, _, example = line.removeprefix("aipriceaction-proxy: ").partition(". Example: ")
    finding = error("settings", text, f"for example {example}" if example else "")
    told = json.dumps(as_json([finding]), indent=2) if "--json" in argv else finding.line()
    sys.stdout.write(f"{told}\n")
    sys.exit(Severity.ERROR)
