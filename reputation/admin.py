"""The admin of reputation: an operator finds an actor here, sees the reasons of its status, and
changes it.

Every change goes through change_by_operator. Counts, status and status changes can't be edited, and
actors can't be deleted: only prune_actors knows which may go.
"""

import contextlib
import datetime as dt
import functools
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from reputation import admin_chart, evidence
from reputation.actors import change_by_operator, is_due, scores_now
from reputation.address import AddressError, actor_named
from reputation.models import Actor, DailyTotal, HourlyCount, StatusChange
from reputation.transitions import OperatorEvent, Status
from reputation.update_counts import hour_of

if TYPE_CHECKING:
    ActorAdminBase = admin.ModelAdmin[Actor]
    StatusChangeAdminBase = admin.ModelAdmin[StatusChange]
    DailyTotalAdminBase = admin.ModelAdmin[DailyTotal]
    StatusChangeInlineBase = admin.TabularInline[StatusChange, Actor]
    ActorFormBase = forms.ModelForm[Actor]
else:
    ActorAdminBase = StatusChangeAdminBase = DailyTotalAdminBase = admin.ModelAdmin
    StatusChangeInlineBase = admin.TabularInline
    ActorFormBase = forms.ModelForm

RECORD = (
    "address",
    "status",
    "successful_updates",
    "failed_updates",
    "banned_until",
    "last_seen",
)
EVENT_CHOICES = [(event.value, event.value.capitalize()) for event in OperatorEvent]


class ActorForm(ActorFormBase):
    """The form that adds an actor or changes a known one, whose page has buttons for ``event``."""

    event = forms.ChoiceField(
        choices=[("", "Only add it"), *EVENT_CHOICES], required=False, label="And then"
    )
    # A textarea, because Enter in an <input> would press the first button, which bans.
    note = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
        max_length=500,
        required=False,
        help_text="Why; kept with the change of status.",
    )

    def clean_address(self) -> str:
        try:
            return actor_named(self.cleaned_data["address"])
        except AddressError as error:
            raise ValidationError(f"{error}. Example: 203.0.113.9 or 2001:db8:1:2::77") from error


class ReadOnly:
    """A mixin for models that users who may view actors can see, and nobody can change."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        permissions = ("reputation.view_actor", "reputation.change_actor")
        return any(request.user.has_perm(permission) for permission in permissions)


class ShowsEvidence(ReadOnly):
    class Media:
        css: ClassVar = {"all": ["reputation/evidence.css"]}

    @admin.display(description="What was sent")
    def sent(self, change: StatusChange) -> str:
        lines = [(line,) for line in evidence.lines(change.evidence)]
        if not lines:
            return "-"
        return format_html(
            '<ul class="evidence">{}</ul>', format_html_join("", "<li>{}</li>", lines)
        )


class StatusChangeInline(ShowsEvidence, StatusChangeInlineBase):
    model = StatusChange
    verbose_name_plural = "Changes of its status, and why"
    fields = ("at", "from_status", "to_status", "reason", "sent", "by_operator")
    readonly_fields = fields
    ordering = ["-at", "-pk"]
    extra = 0
    can_delete = False


class Activity:
    """An actor's bars of the last days, as a chart, in words, and day by day.

    The template asks for each of them, and only where it may be seen, so none is made before.
    """

    def __init__(self, actor_pk: int) -> None:
        self._actor_pk = actor_pk
        self._until = hour_of(timezone.now())

    @functools.cached_property
    def _hours(self) -> dict[dt.datetime, admin_chart.Hour]:
        since = self._until - dt.timedelta(hours=admin_chart.HOURS)
        rows = HourlyCount.objects.filter(actor=self._actor_pk, hour__gt=since)
        return {row.hour: admin_chart.Hour(row.accepted, row.refused) for row in rows}

    def text(self) -> str:
        return admin_chart.describe(self._hours, until=self._until)

    def svg(self) -> SafeString:
        return admin_chart.draw(self._hours, until=self._until, text=self.text())

    def days(self) -> list[admin_chart.Day]:
        return admin_chart.by_day(self._hours, until=self._until)


@admin.register(Actor)
class ActorAdmin(ActorAdminBase):
    form = ActorForm
    list_display = RECORD
    list_filter = ["status"]
    search_fields = ["address"]
    search_help_text = "Any address of the actor, or a part of it."
    ordering = ["-pk"]
    actions = ["ban", "trust", "reset"]

    def get_fields(self, request: HttpRequest, obj: Actor | None = None) -> list[Any]:
        if obj is None:
            return ["address", "event", "note"]
        # The note belongs to the buttons, which only users who may change the actor have.
        note = ["note"] if self.has_change_permission(request, obj) else []
        return [*self.get_readonly_fields(request, obj), *note]

    def get_readonly_fields(self, request: HttpRequest, obj: Actor | None = None) -> list[str]:
        if obj is None:
            return []
        return [*RECORD, "first_seen", "scores", "bans", "status_reason"]

    def get_inlines(self, request: HttpRequest, obj: Actor | None) -> list[Any]:
        return [] if obj is None else [StatusChangeInline]

    @admin.display(description="Status")
    def status_reason(self, actor: Actor) -> str:
        """Say in a sentence what the actor's status is, since when, and why."""
        if is_due(actor=actor):
            what = "ban has ended" if actor.status == Status.BANNED else "merit has faded"
            return f"Its {what}: its next request finds it on probation."
        latest = actor.status_changes.order_by("-at", "-pk").first()
        if latest is None:
            return "On probation since it was first seen."
        who = f" ({latest.by_operator})" if latest.by_operator else ""
        return f"{actor.get_status_display()} since {latest.at:%Y-%m-%d %H:%M} UTC{who}: " + (
            latest.reason
        )

    @admin.display(description="Scores now")
    def scores(self, actor: Actor) -> str:
        now = scores_now(actor=actor)
        trust = "; trusted by hand" if now.trusted_by_hand else ""
        return (
            f"{now.failure_score:.2f} of {settings.BAN_AFTER_FAILURES} failures allowed, "
            f"{now.confirmed_score:.1f} of {settings.TRUST_AFTER_CONFIRMED} confirmed bars needed"
            f"{trust}"
        )

    def has_delete_permission(self, request: HttpRequest, obj: Actor | None = None) -> bool:
        return False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # Django answers an id that isn't a number as it answers one that has no actor.
        activity = Activity(int(object_id)) if object_id.isdecimal() else None
        context = {**(extra_context or {}), "activity": activity}
        return super().change_view(request, object_id, form_url, context)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Actor], search_term: str
    ) -> tuple[QuerySet[Actor], bool]:
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        with contextlib.suppress(AddressError):  # a part of an address, or none
            found |= queryset.filter(address=actor_named(search_term))
        return found, may_repeat

    def save_model(self, request: HttpRequest, obj: Actor, form: ActorForm, change: bool) -> None:
        # A known actor isn't saved, since its counts may have grown after the form was read.
        if not change:
            obj.touched_by_operator = True
            super().save_model(request, obj, form, change)
        if event := form.cleaned_data["event"]:
            change_by_operator(
                actor=obj,
                event=OperatorEvent(event),
                operator=request.user.get_username(),
                note=form.cleaned_data["note"].strip(),
            )

    def response_change(self, request: HttpRequest, obj: Actor) -> HttpResponse:
        obj.refresh_from_db()
        if request.POST.get("event"):
            message, level = f"{obj.address} is now {obj.get_status_display()}.", messages.SUCCESS
        else:
            message, level = "Nothing was changed: press Ban, Trust or Reset.", messages.WARNING
        self.message_user(request, message, level)
        return HttpResponseRedirect(request.path)

    @admin.action(description="Ban the selected actors, without end", permissions=["change"])
    def ban(self, request: HttpRequest, queryset: QuerySet[Actor]) -> None:
        self._change(request, queryset, OperatorEvent.BAN)

    @admin.action(description="Trust the selected actors", permissions=["change"])
    def trust(self, request: HttpRequest, queryset: QuerySet[Actor]) -> None:
        self._change(request, queryset, OperatorEvent.TRUST)

    @admin.action(description="Reset the selected actors to probation", permissions=["change"])
    def reset(self, request: HttpRequest, queryset: QuerySet[Actor]) -> None:
        self._change(request, queryset, OperatorEvent.RESET)

    def _change(
        self, request: HttpRequest, queryset: QuerySet[Actor], event: OperatorEvent
    ) -> None:
        operator = request.user.get_username()
        changed = [
            change_by_operator(actor=actor, event=event, operator=operator) for actor in queryset
        ]
        self.message_user(
            request, f"{event.value.capitalize()}: {len(changed)} changed.", messages.SUCCESS
        )


@admin.register(StatusChange)
class StatusChangeAdmin(ShowsEvidence, StatusChangeAdminBase):
    list_display = ["at", "address", "from_status", "to_status", "reason", "by_operator"]
    list_filter = ["to_status", "at"]
    # The actor itself is left out, since it may have been pruned.
    fields = ["at", "address", "from_status", "to_status", "reason", "sent", "by_operator"]
    readonly_fields = ["address", "sent"]
    search_fields = ["reason"]
    search_help_text = "Any address of an actor, or a part of the reason."
    ordering = ["-at", "-pk"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[StatusChange], search_term: str
    ) -> tuple[QuerySet[StatusChange], bool]:
        try:
            return queryset.filter(actor_id=actor_named(search_term)), False
        except AddressError:
            return super().get_search_results(request, queryset, search_term)

    @admin.display(description="Actor", ordering="actor_id")
    def address(self, change: StatusChange) -> str:
        return change.actor_id


@admin.register(DailyTotal)
class DailyTotalAdmin(ReadOnly, DailyTotalAdminBase):
    list_display = ["day", "accepted", "refused", "actors"]
    ordering = ["-day"]
