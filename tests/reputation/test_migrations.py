"""What the migrations make of the rows that are there."""

import datetime as dt
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from reputation.actors import status_of
from reputation.models import Actor, StatusChange

THEN = dt.datetime(2025, 8, 15, 3, 0, tzinfo=dt.UTC)


def first_rules() -> Any:
    """The models of 0001, with their tables in the database."""
    call_command("migrate", "reputation", "0001", verbosity=0)
    return MigrationExecutor(connection).loader.project_state(("reputation", "0001_initial")).apps


def test_scores_keep_what_the_first_rules_gave(
    shared_database: None, clean_server: redis.Redis
) -> None:
    old = first_rules()
    actor, change = (old.get_model("reputation", name) for name in ("Actor", "StatusChange"))

    def add(address: str, status: str, *history: tuple[str, str], **fields: Any) -> None:
        row = actor.objects.create(address=address, status=status, **{"last_seen": THEN, **fields})
        before = "PROBATION"
        for minute, (to_status, by) in enumerate(history):
            change.objects.create(
                actor=row,
                at=THEN + dt.timedelta(minutes=minute),
                from_status=before,
                to_status=to_status,
                reason=f"{address} {minute}",
                by_operator=by,
            )
            before = to_status

    add("192.0.2.1", "PROBATION", failed_updates=3, successful_updates=9)
    add("192.0.2.2", "TRUSTED", ("TRUSTED", ""), successful_updates=100)
    add("192.0.2.3", "TRUSTED", ("BANNED", ""), ("TRUSTED", "eve"))
    add("192.0.2.4", "BANNED", ("BANNED", ""), ("PROBATION", ""), ("BANNED", ""))
    add("192.0.2.5", "PROBATION", last_seen=None)
    call_command("migrate", verbosity=0)

    names = ("failure_score", "bans", "trusted_by_hand", "touched_by_operator")
    assert {
        row.pop("address"): tuple(row.values()) for row in Actor.objects.values("address", *names)
    } == {
        "192.0.2.1": (3, 0, False, False),
        "192.0.2.2": (0, 0, False, False),
        "192.0.2.3": (0, 1, True, True),
        "192.0.2.4": (0, 2, False, False),
        "192.0.2.5": (0, 0, False, True),
    }
    first = Actor.objects.get(address="192.0.2.1")
    assert (first.successful_updates, first.failed_updates) == (9, 3)
    assert first.scored_at == THEN
    for row in StatusChange.objects.all():
        assert row.reason.startswith(f"{row.actor.address} ")
    assert StatusChange.objects.count() == 6
    assert status_of(address="192.0.2.3").trusted
    assert status_of(address="192.0.2.4").banned
    assert not status_of(address="192.0.2.2").trusted


def test_models_and_migrations_agree(db: None) -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_an_empty_database_goes_back_and_forth(shared_database: None) -> None:
    first_rules()
    call_command("migrate", verbosity=0)
    actor = Actor.objects.create(address="192.0.2.1")
    StatusChange.objects.create(
        actor=actor, from_status="PROBATION", to_status="BANNED", reason="why"
    )
    with pytest.raises(DatabaseError, match="never changed"), connection.cursor() as cursor:
        cursor.execute("UPDATE reputation_statuschange SET reason = 'forged'")
