"""The tables of reputation: actors, the history of their status, their appeals and their counts.

Only reputation.actors, appeals, update_counts and prune write rows: they keep the shared cache in
step, and the history whole.
"""

from typing import Any, NoReturn, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from reputation.transitions import Status

# These are plain strings, since a migration must not import code that may be renamed later.
STATUSES = [status.value for status in Status]
STATUS_CHOICES = [(status, status.capitalize()) for status in STATUSES]


class Actor(models.Model):
    """A public contributor with its record and status; ``reputation.transitions`` has the rules."""

    address = models.CharField(
        max_length=43, unique=True, help_text="An IPv4 address, or an IPv6 /64 network."
    )
    status = models.CharField(
        max_length=9, choices=STATUS_CHOICES, default=Status.PROBATION.value, editable=False
    )
    successful_updates = models.PositiveBigIntegerField(default=0, editable=False)
    failed_updates = models.PositiveBigIntegerField(default=0, editable=False)
    failure_score = models.FloatField(
        default=0.0, editable=False, help_text="Implausible updates, fading since scored_at."
    )
    confirmed_score = models.FloatField(
        default=0.0, editable=False, help_text="Confirmed bars, fading since scored_at."
    )
    scored_at = models.DateTimeField(null=True, blank=True, editable=False)
    bans = models.PositiveIntegerField(
        default=0, editable=False, help_text="For failures, since an operator's last reset."
    )
    trusted_by_hand = models.BooleanField(
        default=False, editable=False, help_text="Trust that doesn't fade."
    )
    banned_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Empty for a ban without end."
    )
    touched_by_operator = models.BooleanField(
        default=False, editable=False, help_text="An operator's actor is never pruned."
    )
    first_seen = models.DateTimeField(
        default=timezone.now, editable=False, help_text="First update, or added by an operator."
    )
    last_seen = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Last update that was judged."
    )

    class Meta:
        indexes = [models.Index(fields=["status", "-last_seen"], name="actor_by_status")]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=STATUSES),
                name="actor_status_known",
                violation_error_message="The status must be one of the three.",
            ),
            # A ban needn't have an end: an operator's has none.
            models.CheckConstraint(
                condition=Q(status=Status.BANNED.value) | Q(banned_until__isnull=True),
                name="actor_only_a_ban_ends",
                violation_error_message="Only a banned actor has an end of its ban.",
            ),
            models.CheckConstraint(
                condition=Q(status=Status.TRUSTED.value) | Q(trusted_by_hand=False),
                name="actor_only_trust_is_by_hand",
                violation_error_message="Only a trusted actor is trusted by hand.",
            ),
            models.CheckConstraint(
                condition=Q(failure_score__gte=0) & Q(confirmed_score__gte=0),
                name="actor_scores_from_0",
                violation_error_message="A score is at least 0.",
            ),
        ]

    def __str__(self) -> str:
        return self.address


class AppendOnlyError(Exception):
    """A change of the history was tried and refused."""


def _refuse() -> NoReturn:
    raise AppendOnlyError("changes of status are added, never changed or deleted")


class AppendOnly(models.QuerySet["StatusChange"]):
    def update(self, **kwargs: Any) -> NoReturn:
        _refuse()

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse()

    def delete(self) -> NoReturn:
        _refuse()

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list["StatusChange"]:
        if args or kwargs.get("update_conflicts"):
            _refuse()
        return super().bulk_create(objs, **kwargs)

    def without_actor(self) -> Self:
        """Select the changes of addresses that have no actor any more."""
        known = Actor.objects.filter(address=models.OuterRef("actor_id"))
        return self.filter(~models.Exists(known))


class StatusChange(models.Model):
    """A change of an actor's status, with its reason. Rows are added, never changed.

    Rows belong to the address: pruning an actor leaves its history, which belongs to the actor
    again when the address comes back. So there is no database constraint, and ``actor`` may not be
    found; ``actor_id`` is the address. The model refuses to delete an actor that has a history.
    """

    actor = models.ForeignKey(
        Actor,
        to_field="address",
        on_delete=models.PROTECT,
        related_name="status_changes",
        db_index=False,
        db_constraint=False,
    )
    at = models.DateTimeField(default=timezone.now, db_index=True)
    from_status = models.CharField(max_length=9, choices=STATUS_CHOICES)
    to_status = models.CharField(max_length=9, choices=STATUS_CHOICES)
    reason = models.TextField()
    evidence = models.JSONField(default=dict, blank=True, help_text="What was sent.")
    by_operator = models.CharField(
        max_length=150, blank=True, help_text="Empty for a change that the rules made."
    )

    objects = AppendOnly.as_manager()

    class Meta:
        indexes = [models.Index(fields=["actor", "-at"], name="status_change_by_actor")]
        constraints = [
            models.CheckConstraint(
                condition=Q(from_status__in=STATUSES) & Q(to_status__in=STATUSES),
                name="status_change_statuses_known",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="status_change_has_reason"),
        ]

    def __str__(self) -> str:
        return f"{self.from_status} → {self.to_status}: {self.reason}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            _refuse()
        super().save(*args, **{**kwargs, "force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse()


class Appeal(models.Model):
    """A failure that the market may yet show to be none; ``content`` is what the request said.

    It is deleted when it is granted, and a day after the failure.
    """

    actor = models.ForeignKey(Actor, on_delete=models.CASCADE, related_name="appeals")
    network = models.CharField(max_length=43, db_index=True)
    failed_at = models.DateTimeField(db_index=True)
    content = models.JSONField()
    size = models.PositiveIntegerField(help_text="How many bars its request was refused for.")

    def __str__(self) -> str:
        return f"{self.failed_at:%Y-%m-%d %H:%M}: {self.size} bars"


class HourlyCount(models.Model):
    """An actor's bars that were accepted, and refused as implausible, in the hour from ``hour``."""

    actor = models.ForeignKey(Actor, on_delete=models.CASCADE, related_name="hourly_counts")
    hour = models.DateTimeField(db_index=True)
    accepted = models.PositiveBigIntegerField(default=0)
    refused = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["actor", "hour"], name="hourly_count_once"),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:%M}: {self.accepted} accepted, {self.refused} refused"


class DailyTotal(models.Model):
    """The sums of one day (UTC) over the hourly counts and actors that were pruned."""

    day = models.DateField(primary_key=True)
    accepted = models.PositiveBigIntegerField(default=0, help_text="Bars of that day.")
    refused = models.PositiveBigIntegerField(default=0, help_text="Bars of that day.")
    actors = models.PositiveBigIntegerField(
        default=0, help_text="Forgotten actors that were last seen on that day."
    )

    def __str__(self) -> str:
        return f"{self.day}: {self.accepted} accepted, {self.refused} refused"
