"""The admin under gunicorn: its pages in a real browser, under the policy for pages, and its second
factor."""

import base64
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import requests
from django_otp.oath import TOTP

from proxy_site.local import embedded_redis
from proxy_site.local.processes import Processes
from tests.proxy_site.test_home import Browser, browser
from tests.support.environment import clean
from tests.support.nodes import ROOT, free_port, wait_for

__all__ = ["browser"]  # a fixture

PASSWORD = "correct-horse-battery-1"


@dataclass
class Office:
    """A node's API, and the commands of its operator."""

    url: str
    environment: dict[str, str]

    def manage(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/", timeout=10).status_code == 200
        except requests.ConnectionError:
            return False


@contextmanager
def office(folder: Path, **settings: str) -> Iterator[Office]:
    port = free_port()
    environment = clean(
        PRIMARY_TOKEN="office-primary-token",
        SECONDARY_TOKEN="office-secondary-token",
        SECRET_KEY="office-secret-key",
        DATA_DIR=str(folder),
        PORT=str(port),
        DJANGO_SUPERUSER_PASSWORD=PASSWORD,
        **settings,
    )
    office = Office(f"http://127.0.0.1:{port}", environment)
    with Processes() as processes:
        try:
            for command in (
                ["migrate", "--verbosity=0"],
                ["createsuperuser", "--noinput", "--username=chief", "--email=chief@node.test"],
            ):
                done = office.manage(*command)
                assert done.returncode == 0, done.stderr
            gunicorn = ("-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "1")
            log = folder / "node.log"
            processes.start(
                "the API", sys.executable, *gunicorn, env=environment, cwd=ROOT, log=log
            )
            wait_for(office.answers, "the API to answer")
            yield office
        finally:
            embedded_redis.stop(folder)  # gunicorn has started one


# --- In a browser ---------------------------------------------------------------------------------

PAGES = [
    "",
    "password_change/",
    "auth/",
    "auth/user/",
    "auth/user/add/",
    "auth/user/1/change/",
    "auth/user/1/history/",
    "auth/user/1/delete/",
    "auth/user/?is_staff__exact=1",
    "axes/accessattempt/",
    "axes/accesslog/",
    "reputation/statuschange/",
    "reputation/actor/",
    "reputation/actor/?q=203",
    "reputation/actor/add/",
]


RECORD_LIES = """
from reputation.actors import Outcome, record_outcome
for _ in range(6):
    lies = [{"symbol": "VCB", "close": 99000}, "x" * 500]
    record_outcome(address="198.51.100.7", outcome=Outcome.IMPLAUSIBLE, evidence=lies)
"""


def submit(browser: Browser, button: str, **fields: str) -> None:
    for name, value in fields.items():
        browser.evaluate(f"document.querySelector('[name={name}]').value = {value!r}")
    browser.press(button)


def test_every_page_works_in_a_browser_and_none_breaks_the_policy(
    browser: Browser, tmp_path: Path
) -> None:
    with office(tmp_path / "office", ADMIN_PATH="back/office/") as node:
        root = f"{node.url}/back/office/"
        browser.open(root)
        browser.wait_for("document.querySelector('#login-form')")
        submit(browser, "#login-form [type=submit]", username="chief", password=PASSWORD)
        browser.wait_for("document.querySelector('#user-tools')")

        browser.open(f"{root}reputation/actor/add/")
        submit(browser, "[name=_save]", address="203.0.113.9", note="a test", event="BAN")
        browser.wait_for("document.querySelector('.success')")
        browser.open(f"{root}reputation/actor/1/change/")
        assert "203.0.113.9" in browser.text("#content")
        submit(browser, "button[value=TRUST]")
        browser.wait_for("document.querySelector('.success')")

        # What an actor sent is wide, and chosen by it.
        done = node.manage("shell", "--verbosity=0", "--command", RECORD_LIES)
        assert done.returncode == 0, done.stderr
        for page in ("actor/2/change/", "statuschange/3/change/"):
            browser.open(f"{root}reputation/{page}")
            assert '{"symbol": "VCB", "close": 99000}' in browser.text(".evidence")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), page

        for page in PAGES:
            browser.open(f"{root}{page}")
            assert browser.evaluate("document.querySelector('#user-tools') !== null"), page
            # Styled, so the style sheet was let in.
            colour = "getComputedStyle(document.querySelector('#header')).backgroundColor"
            assert browser.evaluate(colour) != "rgba(0, 0, 0, 0)"
        # The widgets that scripts make are there.
        browser.open(f"{root}auth/user/1/change/")
        browser.wait_for("document.querySelectorAll('.selector-chosen').length === 2")
        browser.wait_for("document.querySelectorAll('.vDateField + .datetimeshortcuts').length > 0")

        submit(browser, "#logout-form button")
        browser.wait_for("!document.querySelector('#user-tools')")
        assert complaints(browser) == []

        # Which sees what is refused.
        browser.evaluate(
            "document.body.append(Object.assign(document.createElement('script'),"
            " {textContent: 'window.ran = true'}))"
        )
        assert browser.evaluate("window.ran") is None
        (refusal,) = complaints(browser)
        assert "Content Security Policy" in refusal


def complaints(browser: Browser) -> list[str]:
    """But the browser's own wish for an icon."""
    return [text for text in browser.complaints() if "/favicon.ico" not in text]


# --- The second factor ----------------------------------------------------------------------------


def log_in(node: Office, session: requests.Session, code: str = "") -> bool:
    """As a person would; whether the admin opens."""
    answered(node, session, code=code)
    return is_open(node, session)


def answered(
    node: Office, session: requests.Session, *, password: str = PASSWORD, code: str = ""
) -> requests.Response:
    """What the login page answers."""
    page = session.get(f"{node.url}/admin/login/", timeout=10)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert token
    form = {
        "username": "chief",
        "password": password,
        "otp_token": code,
        "csrfmiddlewaretoken": token[1],
    }
    return session.post(f"{node.url}/admin/login/?next=/admin/", data=form, timeout=10)


def is_open(node: Office, session: requests.Session) -> bool:
    answer = session.get(f"{node.url}/admin/", timeout=10, allow_redirects=False)
    return answer.status_code == 200


def code_of(uri: str, *, steps: int = 0) -> str:
    """What an authenticator app shows, ``steps`` of 30 s from now."""
    (secret,) = parse_qs(urlsplit(uri).query)["secret"]
    totp = TOTP(base64.b32decode(secret))
    totp.time = time.time() + 30 * steps
    return f"{totp.token():06}"


def uri_in(output: str) -> str:
    found = re.search(r"^otpauth://totp/\S+$", output, re.MULTILINE)
    assert found, output
    return found[0]


def test_with_the_second_factor_a_password_alone_opens_nothing(tmp_path: Path) -> None:
    settings = {"ADMIN_SECOND_FACTOR": "true", "NODE_NAME": "saigon", "LOGIN_FAILURES": "1000"}
    with office(tmp_path / "office", **settings) as node:
        session = requests.Session()
        assert not log_in(node, session)

        enrolled = node.manage("second_factor", "chief")
        assert enrolled.returncode == 0, enrolled.stderr
        uri = uri_in(enrolled.stdout)
        assert uri.startswith("otpauth://totp/saigon%3Achief?secret=")
        assert "▀" in enrolled.stdout  # the picture to scan
        assert not log_in(node, session)
        assert not log_in(node, session, "000000")
        # A wrong code makes the next try wait a second.
        wait_for(lambda: log_in(node, session, code_of(uri)), "the second factor to open")
        assert not log_in(node, requests.Session(), code_of(uri))  # the same code again

        again = node.manage("second_factor", "chief")
        assert again.returncode == 1
        assert "--replace" in again.stderr
        replaced = node.manage("second_factor", "chief", "--replace")
        assert not is_open(node, session)
        assert log_in(node, requests.Session(), code_of(uri_in(replaced.stdout)))
        assert not log_in(node, requests.Session(), code_of(uri, steps=1))
        assert node.manage("second_factor", "nobody").returncode == 1
        assert requests.get(f"{node.url}/tickers/group", timeout=10).status_code == 200


def test_a_wrong_code_tells_nothing_and_locks_out_like_a_wrong_password(tmp_path: Path) -> None:
    settings = {"ADMIN_SECOND_FACTOR": "true", "LOGIN_FAILURES": "3"}
    with office(tmp_path / "office", **settings) as node:
        uri = uri_in(node.manage("second_factor", "chief").stdout)
        pages = set()
        for password in (PASSWORD, "a guess"):
            answer = answered(node, requests.Session(), password=password, code="000000")
            assert answer.status_code == 200
            assert "Please enter the name and password" in answer.text
            pages.add(re.sub(r'csrfmiddlewaretoken" value="[^"]+"', "", answer.text))
        assert len(pages) == 1
        assert answered(node, requests.Session(), code="000000").status_code == 429
        assert not log_in(node, requests.Session(), code_of(uri))


def test_without_it_a_login_is_its_password(tmp_path: Path) -> None:
    with office(tmp_path / "office") as node:
        assert log_in(node, requests.Session())
        refused = node.manage("second_factor", "chief")
        assert refused.returncode == 1
        assert "ADMIN_SECOND_FACTOR=true" in refused.stderr
