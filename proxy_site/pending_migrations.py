"""Pending migrations: those of the code that the database lacks."""

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from proxy_site import reasons

_none_pending_at: list[int] = []  # how many were applied when none was pending


def names() -> list[str]:
    """Return the pending migrations, as ``reputation.0001_initial``; raise the database's Error.

    Once none is pending, one small query shows that nothing has changed.
    """
    try:
        if _none_pending_at and _applied() == _none_pending_at[0]:
            return []
    except Error as error:
        if not reasons.lacks_tables(error):
            raise
    _none_pending_at.clear()
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        _none_pending_at.append(_applied())
    return [str(migration) for migration, _ in plan]


def complaint() -> str:
    """Return what is wrong with the database's tables; "" for nothing. Raises its Error."""
    pending = names()
    return f"migrations aren't applied ({len(pending)}): {reasons.MIGRATE}" if pending else ""


def _applied() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM django_migrations")
        return int(cursor.fetchone()[0])
