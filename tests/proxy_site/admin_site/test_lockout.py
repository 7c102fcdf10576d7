"""Logins of the admin are throttled by address."""

from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from proxy_site.admin_site.lockout import client_ip

pytestmark = pytest.mark.django_db

HOME, AWAY, PROXY = "203.0.113.9", "198.51.100.7", "192.0.2.1"
LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def operator(settings: Any) -> None:
    # The real one takes a quarter of a second, on purpose.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    get_user_model().objects.create_superuser("operator", password="right-password-1")


def log_in(password: str, *, address: str = HOME, user: str = "operator", **options: Any) -> Any:
    form = {"username": user, "password": password}
    return Client().post(LOGIN, form, REMOTE_ADDR=address, **options)


def fail(times: int, **options: Any) -> Any:
    for _ in range(times):
        answer = log_in("wrong", **options)
    return answer


def test_the_right_password_is_let_in() -> None:
    assert log_in("right-password-1").status_code == 302


def test_an_address_that_fails_too_often_is_locked_out_for_a_while(settings: Any) -> None:
    assert fail(settings.LOGIN_FAILURES - 1).status_code == 200  # the form again
    answer = fail(1)
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"
    assert answer.json()["detail"].startswith("Too many failed logins from your address")
    assert log_in("right-password-1").status_code == 429
    assert log_in("right-password-1", address=AWAY).status_code == 302
    past = timezone.now() - settings.AXES_COOLOFF_TIME
    AccessAttempt.objects.update(attempt_time=past)
    assert log_in("right-password-1").status_code == 302


def test_trying_other_names_doesnt_help(settings: Any) -> None:
    for number in range(settings.LOGIN_FAILURES):
        answer = log_in("wrong", user=f"name-{number}")
    assert answer.status_code == 429


def test_nobody_can_lock_out_who_owns_a_name(settings: Any) -> None:
    fail(settings.LOGIN_FAILURES)
    assert log_in("right-password-1", address=AWAY).status_code == 302


def test_a_success_forgets_the_failures_before_it(settings: Any) -> None:
    fail(settings.LOGIN_FAILURES - 1)
    assert log_in("right-password-1").status_code == 302
    assert fail(settings.LOGIN_FAILURES - 1).status_code == 200


def test_an_ipv6_network_is_one_address(settings: Any) -> None:
    statuses = [
        log_in("wrong", address=f"2001:db8:1:2::{n}").status_code
        for n in range(settings.LOGIN_FAILURES)
    ]
    assert statuses == [200] * (settings.LOGIN_FAILURES - 1) + [429]
    assert log_in("right-password-1", address="2001:db8:1:3::1").status_code == 302


def test_only_a_trusted_proxy_says_who_is_trying(settings: Any) -> None:
    settings.TRUSTED_PROXIES = [PROXY]
    for number in range(settings.LOGIN_FAILURES):
        spoofed = {"X-Forwarded-For": f"10.0.0.{number}"}
        answer = log_in("wrong", headers=spoofed)
    assert answer.status_code == 429
    through: dict[str, Any] = {
        "address": PROXY,
        "headers": {"X-Forwarded-For": f"10.0.0.1, {HOME}"},
    }
    assert log_in("right-password-1", **through).status_code == 429
    through["headers"] = {"X-Forwarded-For": f"{HOME}, {AWAY}"}
    assert log_in("right-password-1", **through).status_code == 302


def test_whom_a_proxy_doesnt_name_are_counted_together(settings: Any) -> None:
    settings.TRUSTED_PROXIES = [PROXY]
    assert fail(settings.LOGIN_FAILURES, address=PROXY).status_code == 429
    assert log_in("right-password-1", address=AWAY).status_code == 302


def test_what_is_kept_and_logged_has_the_address_and_nothing_that_was_typed(
    caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    log_in("mistyped-password", user="typed-name")
    (attempt,) = AccessAttempt.objects.all()
    assert attempt.ip_address == HOME
    assert "mistyped-password" not in attempt.post_data
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("axes")]
    assert any(HOME in line for line in lines)
    assert "typed-name" not in "".join(lines)
    assert "mistyped-password" not in "".join(lines)


def test_an_operator_unlocks_an_address_in_the_admin(settings: Any) -> None:
    fail(settings.LOGIN_FAILURES)
    client = Client()
    client.force_login(get_user_model().objects.get())
    (attempt,) = AccessAttempt.objects.all()
    client.post(f"/admin/axes/accessattempt/{attempt.pk}/delete/", {"post": "yes"})
    assert log_in("right-password-1").status_code == 302


def test_the_actors_first_address_stands_for_its_network(rf: Any) -> None:
    assert client_ip(rf.get("/", REMOTE_ADDR="2001:db8:1:2::77")) == "2001:db8:1:2::"
    assert client_ip(rf.get("/", REMOTE_ADDR="::ffff:203.0.113.9")) == HOME
