"""Scores that fade, bans that are counted, hourly counts, and a history that outlives its actor.

Whoever was judged by the first rules keeps what they gave it: its failures begin to fade where they
stood, its bans are counted, and trust by hand stays. Trust that accepted bars earned ends with the
next look at it, for none of them was confirmed.

Backwards it goes while there is no history: that has lost the numbers of its actors.
"""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery


def give_scores(apps, schema_editor):
    actor_model = apps.get_model("reputation", "Actor")
    changes = apps.get_model("reputation", "StatusChange").objects.filter(actor=OuterRef("pk"))
    by_operator = changes.exclude(by_operator="")
    last_trust = changes.filter(to_status="TRUSTED").order_by("-at", "-pk")
    bans = (
        changes.filter(to_status="BANNED", by_operator="")
        .order_by()
        .values("actor")
        .annotate(bans=Count("pk"))
    )
    actors = actor_model.objects.all()
    actors.update(failure_score=F("failed_updates"), scored_at=F("last_seen"))
    actors.filter(Exists(bans)).update(bans=Subquery(bans.values("bans")))
    # Who was never seen was added by hand.
    actors.filter(Exists(by_operator) | Q(last_seen__isnull=True)).update(touched_by_operator=True)
    actors.filter(status="TRUSTED").annotate(
        truster=Subquery(last_trust.values("by_operator")[:1])
    ).exclude(truster="").exclude(truster__isnull=True).update(trusted_by_hand=True)


def name_actors_by_address(apps, schema_editor):
    actors = apps.get_model("reputation", "Actor").objects.filter(pk=OuterRef("actor_id"))
    apps.get_model("reputation", "StatusChange").objects.update(
        known_as_id=Subquery(actors.values("address")[:1])
    )


# A later migration that makes SQLite copy this table must create the trigger again.
REFUSE_UPDATES_SQLITE = """
CREATE TRIGGER status_change_never_changes BEFORE UPDATE ON reputation_statuschange
BEGIN SELECT RAISE(ABORT, 'changes of status are never changed'); END
"""
# TRUNCATE (manage.py flush) passes; pruning deletes what no actor is left of. SQLite has no such
# trigger: there flush is a DELETE.
REFUSE_CHANGES_POSTGRESQL = """
CREATE FUNCTION reputation_keep_history() RETURNS trigger AS $$
BEGIN
    IF TG_OP = 'UPDATE'
        OR EXISTS (SELECT 1 FROM reputation_actor WHERE address = OLD.actor_id)
    THEN
        RAISE EXCEPTION 'changes of status are never changed, nor deleted with their actor there'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END
$$ LANGUAGE plpgsql;
CREATE TRIGGER status_change_never_changes BEFORE UPDATE OR DELETE ON reputation_statuschange
FOR EACH ROW EXECUTE FUNCTION reputation_keep_history()
"""


def keep_history(apps, schema_editor):
    refuse = {"sqlite": REFUSE_UPDATES_SQLITE, "postgresql": REFUSE_CHANGES_POSTGRESQL}
    if schema_editor.connection.vendor in refuse:
        schema_editor.execute(refuse[schema_editor.connection.vendor], params=None)


def let_history_change(apps, schema_editor):
    if schema_editor.connection.vendor == "sqlite":
        schema_editor.execute("DROP TRIGGER status_change_never_changes", params=None)
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP FUNCTION reputation_keep_history() CASCADE", params=None)


def to_actor_by_address(related_name, *, null):
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        null=null,
        on_delete=django.db.models.deletion.PROTECT,
        related_name=related_name,
        to="reputation.actor",
        to_field="address",
    )


class Migration(migrations.Migration):
    dependencies = [("reputation", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="DailyTotal",
            fields=[
                ("day", models.DateField(primary_key=True, serialize=False)),
                (
                    "accepted",
                    models.PositiveBigIntegerField(default=0, help_text="Bars of that day."),
                ),
                (
                    "refused",
                    models.PositiveBigIntegerField(default=0, help_text="Bars of that day."),
                ),
                (
                    "actors",
                    models.PositiveBigIntegerField(
                        default=0, help_text="Forgotten actors that were last seen on that day."
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Flushed",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("batch", models.CharField(max_length=32)),
            ],
        ),
        migrations.CreateModel(
            name="HourlyCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hour", models.DateTimeField(db_index=True)),
                ("accepted", models.PositiveBigIntegerField(default=0)),
                ("refused", models.PositiveBigIntegerField(default=0)),
                (
                    "actor",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="hourly_counts",
                        to="reputation.actor",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("actor", "hour"), name="hourly_count_once")
                ]
            },
        ),
        migrations.AddField(
            model_name="actor",
            name="bans",
            field=models.PositiveIntegerField(
                default=0,
                editable=False,
                help_text="For failures, since an operator's last reset.",
            ),
        ),
        migrations.AddField(
            model_name="actor",
            name="confirmed_score",
            field=models.FloatField(
                default=0.0, editable=False, help_text="Confirmed bars, fading since scored_at."
            ),
        ),
        migrations.AddField(
            model_name="actor",
            name="failure_score",
            field=models.FloatField(
                default=0.0,
                editable=False,
                help_text="Implausible updates, fading since scored_at.",
            ),
        ),
        migrations.AddField(
            model_name="actor",
            name="scored_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="actor",
            name="touched_by_operator",
            field=models.BooleanField(
                default=False,
                editable=False,
                help_text="An operator's actor is never pruned.",
            ),
        ),
        migrations.AddField(
            model_name="actor",
            name="trusted_by_hand",
            field=models.BooleanField(
                default=False, editable=False, help_text="Trust that doesn't fade."
            ),
        ),
        migrations.RunPython(give_scores, migrations.RunPython.noop),
        # The history's actor, from a number to its address.
        migrations.RemoveIndex(model_name="statuschange", name="status_change_by_actor"),
        migrations.AddField(
            model_name="statuschange",
            name="known_as",
            field=to_actor_by_address("+", null=True),
        ),
        migrations.RunPython(name_actors_by_address, migrations.RunPython.noop),
        migrations.RemoveField(model_name="statuschange", name="actor"),
        migrations.RenameField(model_name="statuschange", old_name="known_as", new_name="actor"),
        migrations.AlterField(
            model_name="statuschange",
            name="actor",
            field=to_actor_by_address("status_changes", null=False),
        ),
        migrations.AddIndex(
            model_name="statuschange",
            index=models.Index(fields=["actor", "-at"], name="status_change_by_actor"),
        ),
        migrations.AddConstraint(
            model_name="actor",
            constraint=models.CheckConstraint(
                condition=Q(("status", "TRUSTED"), ("trusted_by_hand", False), _connector="OR"),
                name="actor_only_trust_is_by_hand",
                violation_error_message="Only a trusted actor is trusted by hand.",
            ),
        ),
        migrations.AddConstraint(
            model_name="actor",
            constraint=models.CheckConstraint(
                condition=Q(("failure_score__gte", 0), ("confirmed_score__gte", 0)),
                name="actor_scores_from_0",
                violation_error_message="A score is at least 0.",
            ),
        ),
        migrations.RunPython(keep_history, let_history_change),
    ]
