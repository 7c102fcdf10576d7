import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from reputation.actors import record_claims, record_outcome, status_of
from reputation.admin import ActorAdmin
from reputation.models import Actor, StatusChange
from reputation.transitions import Outcome
from tests.support.clock import Clock

IPV4, IPV6 = "203.0.113.9", "2001:db8:1:2::/64"
LIST = "/admin/reputation/actor/"
ADD = "/admin/reputation/actor/add/"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("clean_server"),
]


def page(actor: Actor) -> str:
    return reverse("admin:reputation_actor_change", args=[actor.pk])


class Inputs(HTMLParser):
    """What a browser would post for a page's inputs, text areas and choices aside."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("name"):
            self.values[str(given["name"])] = given.get("value") or ""


def submit(client: Client, actor: Actor, **fields: Any) -> Any:
    """Open the actor's page and press one of its buttons."""
    inputs = Inputs(client.get(page(actor)).content.decode()).values
    return client.post(page(actor), {**inputs, **fields}, follow=True)


def act(client: Client, action: str, *chosen: Actor, method: str = "post") -> Any:
    data = {"action": action, "_selected_action": [actor.pk for actor in chosen]}
    return getattr(client, method)(LIST, data)


@pytest.fixture
def log_in() -> Callable[..., Client]:
    def log_in(name: str, *permissions: str) -> Client:
        user = User.objects.create_user(name, is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        assert user.user_permissions.count() == len(permissions)
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def operator(log_in: Callable[..., Client]) -> Client:
    return log_in("eve", "view_actor", "change_actor", "add_actor")


@pytest.fixture
def viewer(log_in: Callable[..., Client]) -> Client:
    return log_in("vic", "view_actor", "view_statuschange")


@pytest.fixture
def actor() -> Actor:
    return Actor.objects.create(address=IPV4)


class TestFinding:
    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("2001:db8:1:2::77", {IPV6}),
            ("2001:0DB8:0001:0002::1", {IPV6}),
            ("2001:db8:1:2::/64", {IPV6}),
            ("2001:db8:9::77", set()),
            ("::ffff:203.0.113.9", {IPV4}),
            ("203.0.113.9", {IPV4, "203.0.113.99"}),
            ("203.0.113", {IPV4, "203.0.113.99"}),
            ("db8:1", {IPV6}),
            ("nonsense", set()),
            ("", {IPV4, IPV6, "203.0.113.99"}),
        ],
    )
    def test_any_address_or_part_of_it_finds_the_actor(
        self, operator: Client, words: str, found: set[str]
    ) -> None:
        for address in (IPV4, IPV6, "203.0.113.99"):
            Actor.objects.create(address=address)
        response = operator.get(LIST, {"q": words})
        assert {actor.address for actor in response.context["cl"].queryset} == found

    def test_the_list_is_filtered_by_status_together_with_a_search(self, operator: Client) -> None:
        Actor.objects.create(address=IPV4, status="BANNED")
        Actor.objects.create(address=IPV6)
        response = operator.get(LIST, {"status__exact": "BANNED"})
        assert [actor.address for actor in response.context["cl"].queryset] == [IPV4]
        response = operator.get(LIST, {"status__exact": "BANNED", "q": "2001:db8:1:2::77"})
        assert not response.context["cl"].queryset.exists()


class TestActorPage:
    def test_shows_why_an_actor_stands_where_it_stands(self, operator: Client) -> None:
        for close in range(6):
            record_outcome(
                address=IPV4,
                outcome=Outcome.IMPLAUSIBLE,
                evidence={"symbol": "<b>VCB", "close": close},
            )
        html = operator.get(page(Actor.objects.get())).content.decode()
        assert "6 implausible updates, more than the 5 allowed" in html
        assert "&quot;symbol&quot;: &quot;&lt;b&gt;VCB&quot;" in html
        assert "<b>VCB" not in html
        assert "Banned since" in html

    def test_says_so_when_a_ban_has_ended(self, operator: Client) -> None:
        actor = Actor.objects.create(address=IPV4, status="BANNED", banned_until=timezone.now())
        assert "Its ban has ended" in operator.get(page(actor)).content.decode()

    def test_says_so_when_merit_has_faded(self, operator: Client, clock: Clock) -> None:
        record_claims(confirmed={IPV4: 100}, contradicted={})
        actor = Actor.objects.get()
        assert "Trusted since" in operator.get(page(actor)).content.decode()
        clock.move(hours=24 * 13)
        assert "Trusted since" in operator.get(page(actor)).content.decode()
        Actor.objects.update(confirmed_score=49)
        assert "Its merit has faded" in operator.get(page(actor)).content.decode()

    @pytest.mark.parametrize(
        ("event", "status"), [("BAN", "BANNED"), ("TRUST", "TRUSTED"), ("RESET", "PROBATION")]
    )
    def test_has_a_button_for_each_event(
        self, operator: Client, actor: Actor, event: str, status: str
    ) -> None:
        assert f'name="event" value="{event}"' in operator.get(page(actor)).content.decode()
        status_of(address=IPV4)
        response = submit(operator, actor, event=event, note="seen it lie")
        assert f"{IPV4} is now {status.capitalize()}." in response.content.decode()
        assert status_of(address=IPV4).status == status
        change = StatusChange.objects.get()
        assert (change.to_status, change.by_operator) == (status, "eve")
        assert change.reason.endswith(". seen it lie")

    def test_shows_no_field_to_edit_but_the_note(self, operator: Client, actor: Actor) -> None:
        form = operator.get(page(actor)).context["adminform"]
        editable = {
            name
            for _, options in form.fieldsets
            for name in options["fields"]
            if name not in form.readonly_fields
        }
        assert editable == {"note"}

    def test_ignores_counts_and_status_that_are_posted(
        self, operator: Client, actor: Actor
    ) -> None:
        before = Actor.objects.values().get()
        forged = {
            "status": "TRUSTED",
            "successful_updates": 9,
            "address": "198.51.100.7",
            "banned_until_0": "2030-01-01",
        }
        response = submit(operator, actor, **forged)
        assert "Nothing was changed" in response.content.decode()
        assert Actor.objects.values().get() == before

    def test_refuses_an_unknown_event(self, operator: Client, actor: Actor) -> None:
        assert "Please correct" in submit(operator, actor, event="FORGIVE").content.decode()
        assert not StatusChange.objects.exists()

    def test_does_nothing_by_get(self, operator: Client, actor: Actor) -> None:
        operator.get(page(actor), {"event": "BAN"})
        assert not StatusChange.objects.exists()

    def test_needs_a_csrf_token(self, operator: Client, actor: Actor) -> None:
        operator.handler.enforce_csrf_checks = True
        assert operator.post(page(actor), {"event": "BAN"}).status_code == 403
        assert not StatusChange.objects.exists()

    def test_loses_no_outcome_that_came_while_it_was_open(
        self, operator: Client, actor: Actor
    ) -> None:
        inputs = Inputs(operator.get(page(actor)).content.decode()).values
        for outcome in [Outcome.ACCEPTED, *[Outcome.IMPLAUSIBLE] * 6]:
            record_outcome(address=IPV4, outcome=outcome, evidence={})
        operator.post(page(actor), {**inputs, "event": "TRUST"})
        changed = Actor.objects.get()
        assert (changed.status, changed.successful_updates) == ("TRUSTED", 1)
        assert StatusChange.objects.count() == 2

    def test_loses_no_outcome_that_comes_while_it_is_posted(
        self, operator: Client, actor: Actor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = ActorAdmin.get_object

        def read_before_another_counts(*args: Any, **kwargs: Any) -> Any:
            found = read(*args, **kwargs)
            Actor.objects.update(successful_updates=F("successful_updates") + 1)
            return found

        monkeypatch.setattr(ActorAdmin, "get_object", read_before_another_counts)
        submit(operator, actor, event="BAN")
        before = Actor.objects.get().successful_updates
        submit(operator, actor, event="TRUST")
        # Each time the page was opened, pressed, and shown again.
        assert (before, Actor.objects.get().successful_updates) == (3, 6)


class TestActivity:
    def test_is_drawn_and_told(self, viewer: Client, actor: Actor) -> None:
        record_outcome(address=IPV4, outcome=Outcome.IMPLAUSIBLE, evidence={}, bars=(1_200, 3))
        html = viewer.get(page(actor)).content.decode()
        assert html.count('role="img"') == 1
        text = "In the last 7 days 1,200 bars were accepted and 3 bars were refused."
        assert html.count(text) == 2  # the drawing's own text, and beside it
        assert "<td>1200</td><td>3</td>" in html

    def test_of_nothing_is_an_empty_chart(self, viewer: Client, actor: Actor) -> None:
        html = viewer.get(page(actor)).content.decode()
        assert "0 bars were accepted and 0 bars were refused." in html

    def test_is_nothing_that_a_strict_policy_blocks(self, viewer: Client, actor: Actor) -> None:
        record_outcome(address=IPV4, outcome=Outcome.IMPLAUSIBLE, evidence={})
        html = viewer.get(page(actor)).content.decode()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)[^>]*>\s*\w", html)

    def test_of_another_actor_isnt_shown(self, viewer: Client, actor: Actor) -> None:
        record_outcome(address=IPV6, outcome=Outcome.ACCEPTED, evidence={})
        assert "0 bars were accepted" in viewer.get(page(actor)).content.decode()

    @pytest.mark.parametrize("pk", ["999999", "nonsense"])
    def test_of_an_actor_that_isnt_there_is_no_error(self, operator: Client, pk: str) -> None:
        assert operator.get(f"{LIST}{pk}/change/").status_code == 302

    def test_shows_scores_as_they_are_now(self, viewer: Client, actor: Actor, clock: Clock) -> None:
        for _ in range(4):
            record_outcome(address=IPV4, outcome=Outcome.IMPLAUSIBLE, evidence={})
        clock.move(hours=24)
        html = viewer.get(page(actor)).content.decode()
        assert "2.00 of 5 failures allowed, 0.0 of 100 confirmed bars needed" in html


class TestListActions:
    @pytest.mark.parametrize(
        ("action", "status"), [("ban", "BANNED"), ("trust", "TRUSTED"), ("reset", "PROBATION")]
    )
    def test_change_every_chosen_actor_in_the_operators_name(
        self, operator: Client, actor: Actor, action: str, status: str
    ) -> None:
        other = Actor.objects.create(address=IPV6)
        spared = Actor.objects.create(address="198.51.100.7")
        act(operator, action, actor, other)
        for address in (IPV4, IPV6):
            assert status_of(address=address).status == status
        changes = StatusChange.objects.all()
        assert {(change.actor.address, change.by_operator) for change in changes} == {
            (IPV4, "eve"),
            (IPV6, "eve"),
        }
        assert not spared.status_changes.exists()

    def test_do_nothing_by_get(self, operator: Client, actor: Actor) -> None:
        act(operator, "ban", actor, method="get")
        assert not StatusChange.objects.exists()

    def test_are_the_three_and_no_deletion(self, operator: Client, actor: Actor) -> None:
        choices = operator.get(LIST).context["action_form"].fields["action"].choices
        assert {name for name, _ in choices if name} == {"ban", "trust", "reset"}


class TestAdding:
    @pytest.mark.parametrize(
        ("typed", "address"),
        [
            ("::ffff:203.0.113.9", IPV4),
            (" 2001:DB8:1:2::77 ", IPV6),
            ("2001:db8:1:2::/64", IPV6),
        ],
    )
    def test_an_actor_bans_it_before_it_ever_sends(
        self, operator: Client, typed: str, address: str
    ) -> None:
        assert status_of(address=address).status == "PROBATION"
        response = operator.post(ADD, {"address": typed, "event": "BAN", "note": "known liar"})
        assert response.status_code == 302
        assert status_of(address=address).banned
        assert Actor.objects.get().last_seen is None
        change = StatusChange.objects.get()
        assert (change.actor.address, change.by_operator) == (address, "eve")

    def test_an_actor_only_leaves_it_on_probation(self, operator: Client) -> None:
        operator.post(ADD, {"address": IPV4, "event": "", "note": "", "status": "TRUSTED"})
        assert Actor.objects.get().status == "PROBATION"
        assert not StatusChange.objects.exists()

    @pytest.mark.parametrize("typed", ["", "nonsense", "203.0.113.0/24", "2001:db8::/32"])
    def test_nonsense_is_refused(self, operator: Client, typed: str) -> None:
        response = operator.post(ADD, {"address": typed, "event": "BAN"})
        assert response.context["adminform"].form.errors["address"]
        assert not Actor.objects.exists()

    def test_a_known_actor_by_another_of_its_addresses_is_refused(
        self, operator: Client, actor: Actor
    ) -> None:
        response = operator.post(ADD, {"address": "::ffff:203.0.113.9", "event": "BAN"})
        assert "already exists" in str(response.context["adminform"].form.errors["address"])
        assert not StatusChange.objects.exists()


class TestViewer:
    def test_sees_the_actor_and_its_changes_but_no_button(
        self, viewer: Client, operator: Client, actor: Actor
    ) -> None:
        submit(operator, actor, event="BAN", note="known liar")
        html = viewer.get(page(actor)).content.decode()
        assert "known liar" in html
        assert 'name="event"' not in html
        assert 'name="note"' not in html

    def test_cant_change_an_actor(self, viewer: Client, actor: Actor) -> None:
        assert viewer.post(page(actor), {"event": "BAN"}).status_code == 403
        assert viewer.post(ADD, {"address": IPV6}).status_code == 403
        act(viewer, "ban", actor)
        assert not StatusChange.objects.exists()
        assert Actor.objects.get().status == "PROBATION"


class TestHistory:
    def test_is_never_edited_added_to_or_deleted_by_hand(
        self, admin_client: Client, actor: Actor
    ) -> None:
        submit(admin_client, actor, event="BAN", note="known liar")
        change = StatusChange.objects.get()
        urls = [
            reverse("admin:reputation_statuschange_add"),
            reverse("admin:reputation_statuschange_change", args=[change.pk]),
            reverse("admin:reputation_statuschange_delete", args=[change.pk]),
            reverse("admin:reputation_actor_delete", args=[actor.pk]),
        ]
        for url in urls:
            assert admin_client.post(url, {"post": "yes", "reason": "none"}).status_code == 403
        # The rows in the actor's page are a formset: what is posted for them must not be read.
        rows = "status_changes-0-"
        forged = {f"{rows}id": change.pk, f"{rows}actor": actor.pk, f"{rows}reason": "forged"}
        submit(admin_client, actor, event="TRUST", **forged, **{f"{rows}DELETE": "on"})
        assert StatusChange.objects.get(pk=change.pk).reason == change.reason
        assert StatusChange.objects.count() == 2

    def test_is_listed(self, viewer: Client, operator: Client, actor: Actor) -> None:
        submit(operator, actor, event="BAN", note="known liar")
        assert "known liar" in viewer.get("/admin/reputation/statuschange/").content.decode()

    def test_of_an_actor_that_was_pruned_is_shown(
        self, log_in: Callable[..., Client], clock: Clock
    ) -> None:
        for _ in range(6):
            record_outcome(address=IPV6, outcome=Outcome.IMPLAUSIBLE, evidence={})
        clock.move(hours=24 * 92)
        call_command("prune_actors", stdout=StringIO())
        assert not Actor.objects.exists()
        change = StatusChange.objects.get()
        viewer = log_in("vic", "view_actor", "view_statuschange")
        for url in (
            "/admin/reputation/statuschange/",
            "/admin/reputation/statuschange/?q=2001:db8:1:2::77",
            reverse("admin:reputation_statuschange_change", args=[change.pk]),
        ):
            assert IPV6 in viewer.get(url).content.decode()

    def test_is_hidden_from_staff_without_permission(self, log_in: Callable[..., Client]) -> None:
        outsider = log_in("oz")
        assert outsider.get("/admin/reputation/statuschange/").status_code == 403
        assert outsider.get(LIST).status_code == 403
