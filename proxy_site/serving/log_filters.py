"""What isn't logged: that someone was refused. A flood of it would fill the disk, and it is counted
where it matters (a ban has a row, failures of tokens are in /health).

Django and gunicorn log a line for each request that they refuse; these filters and the levels in
the settings keep the failures of the node itself.
"""

import logging


class OnlyFailures(logging.Filter):
    """For django.request at ERROR. Its 503 is what proxy_site.exception_handler logs itself, or a
    public door that is closed: no failure, and asked again by everybody."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", 500) != 503


def is_no_refusal(record: logging.LogRecord) -> bool:
    """For gunicorn.error, where a request that isn't HTTP is a warning."""
    return not str(record.msg).startswith("Invalid request from ip=")
