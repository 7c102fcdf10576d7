"""What is remembered of public contributors, in SQL: it survives every restart.

Rows change through reputation.actors only; it keeps the shared cache in step with them.
"""

from django.db import models
from django.db.models import Q
from django.utils import timezone

from reputation.transitions import Status

# Members' plain values: a migration must not import code that may be renamed later.
STATUSES = [status.value for status in Status]
STATUS_CHOICES = [(status, status.capitalize()) for status in STATUSES]


class Actor(models.Model):
    """A public contributor, its record and status; ``reputation.transitions`` has the rules."""

    address = models.CharField(
        max_length=43, unique=True, help_text="An IPv4 address, or an IPv6 /64 network."
    )
    status = models.CharField(
        max_length=9, choices=STATUS_CHOICES, default=Status.PROBATION.value, editable=False
    )
    successful_updates = models.PositiveBigIntegerField(default=0, editable=False)
    failed_updates = models.PositiveBigIntegerField(default=0, editable=False)
    banned_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Empty for a ban without end."
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
            # One way only: an operator's ban has no end.
            models.CheckConstraint(
                condition=Q(status=Status.BANNED.value) | Q(banned_until__isnull=True),
                name="actor_only_a_ban_ends",
                violation_error_message="Only a banned actor has an end of its ban.",
            ),
        ]

    def __str__(self) -> str:
        return self.address


class StatusChange(models.Model):
    """Why an actor stands where it stands. Rows are added, never changed or deleted."""

    actor = models.ForeignKey(
        Actor, on_delete=models.PROTECT, related_name="status_changes", db_index=False
    )
    at = models.DateTimeField(default=timezone.now, db_index=True)
    from_status = models.CharField(max_length=9, choices=STATUS_CHOICES)
    to_status = models.CharField(max_length=9, choices=STATUS_CHOICES)
    reason = models.TextField()
    evidence = models.JSONField(default=dict, blank=True, help_text="What was sent.")
    by_operator = models.CharField(
        max_length=150, blank=True, help_text="Empty for a change that the rules made."
    )

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
