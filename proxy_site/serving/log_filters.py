"""Log filters drop refusals and keep failures of the node itself.

Django and gunicorn log a line for each request that they refuse. A flood of those would fill the
disk, and refusals are counted where it matters: a ban has a row, failures of tokens are in /health.
"""

import logging


class OnlyFailures(logging.Filter):
    """A filter for django.request at ERROR that drops the 503.

    proxy_site.exception_handler logs a 503 that is a failure; the others say that the public door
    is closed, and anybody may get them again and again.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", 500) != 503


def is_no_refusal(record: logging.LogRecord) -> bool:
    """Filter gunicorn.error, where a request that isn't HTTP is a warning."""
    return not str(record.msg).startswith("Invalid request from ip=")
