"""The live table, as HTTP answers it and as a real browser shows it."""

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import redis
from django.conf import settings
from django.test import Client

from tests.support import environment
from tickers import wiring
from tickers.bar import Bar
from tickers.store.store import ROOT, Store
from tickers.suspects import Reason, Suspect
from tickers.verdict import Authority

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 20.0  # seconds for what should come at once
HOUR = 3_600.0
TODAY, YESTERDAY = dt.date(2025, 8, 15), dt.date(2025, 8, 14)


class Page(HTMLParser):
    """What a page loads, links to and carries."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self._reading = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self._reading = given.get("id") or "" if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self._reading = ""

    def handle_data(self, data: str) -> None:
        if self._reading:
            self.data[self._reading] = data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [v for name, attrs in self.tags if name == tag and (v := attrs.get(attribute))]


@pytest.fixture
def page(client: Client) -> Page:
    return Page(client.get("/").content.decode())


class TestThePage:
    def test_is_served_with_a_policy_that_allows_only_the_nodes_own_files(
        self, client: Client
    ) -> None:
        answer = client.get("/")
        assert answer.status_code == 200
        assert answer["Content-Type"] == "text/html; charset=utf-8"
        policy = [part.strip() for part in answer["Content-Security-Policy"].split(";")]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in answer["Content-Security-Policy"]

    def test_has_no_inline_script_style_or_handler(self, page: Page) -> None:
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert [s for s in scripts if not s.get("src")] == [
            {"id": "listings", "type": "application/json"}
        ]
        assert "style" not in [tag for tag, _ in page.tags]
        attributes = {name for _, attrs in page.tags for name in attrs}
        assert not [name for name in attributes if name == "style" or name.startswith("on")]

    def test_loads_nothing_from_elsewhere(self, page: Page) -> None:
        addresses = [
            *page.values("script", "src"),
            *page.values("link", "href"),
            *page.values("a", "href"),
        ]
        assert len(addresses) >= 3
        assert [a for a in addresses if not re.match(r"/(?!/)", a)] == []

    def test_names_each_symbols_exchange_and_sector_and_where_its_bars_come_from(
        self, page: Page
    ) -> None:
        listings = json.loads(page.data["listings"])
        assert listings == {s.symbol: [s.exchange.value, s.sector] for s in settings.UNIVERSE}
        assert listings["VCB"] == ["HOSE", "NGAN_HANG"]
        assert page.values("table", "data-source") == ["/tickers?limit=2"]

    def test_tells_the_nodes_name_mode_and_trading_day(self, client: Client, settings: Any) -> None:
        settings.NODE_NAME, settings.IS_PUBLIC_NODE = "<saigon>", True
        html = client.get("/").content.decode()
        assert "&lt;saigon&gt;" in html
        assert "<saigon>" not in html
        assert "public node" in html
        assert 'datetime="2025-08-15">Fri, 15 Aug 2025<' in html
        assert "market clock set to 15 Aug 2025, 10:00" in html

    def test_links_to_addresses_of_the_node_that_exist(self, page: Page, client: Client) -> None:
        links = set(page.values("a", "href"))
        assert {"/tickers?limit=1", "/tickers/group", "/health"} <= links
        assert client.get("/tickers/group").status_code == 200

    def test_does_not_say_where_the_admin_is(self, client: Client) -> None:
        """It may have a path that nobody guesses."""
        html = client.get("/").content.decode()
        assert settings.ADMIN_PATH.strip("/") not in html.lower()

    def test_is_served_to_an_operators_session_while_redis_and_the_database_are_away(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The database is away as for every test without the mark django_db: its use raises.
        def refuse(*_: object, **__: object) -> None:
            raise redis.ConnectionError("away")

        monkeypatch.setattr(redis.Connection, "connect", refuse)
        monkeypatch.setattr(redis.UnixDomainSocketConnection, "connect", refuse)
        client.cookies["sessionid"] = "0123456789abcdef0123456789abcdef"
        assert client.get("/").status_code == 200


# A file's answer is closed like any other: Django looks after its connections then.
@pytest.mark.django_db
class TestStaticFiles:
    @pytest.mark.parametrize(
        ("kind", "content_type"),
        [("css", "text/css"), ("js", "text/javascript"), ("svg", "image/svg+xml")],
    )
    def test_are_found_and_typed(
        self, page: Page, client: Client, kind: str, content_type: str
    ) -> None:
        addresses = [*page.values("script", "src"), *page.values("link", "href")]
        (address,) = [a for a in addresses if a.endswith(f".{kind}")]
        answer = client.get(address)
        assert answer.status_code == 200
        assert answer["Content-Type"].split(";")[0] == content_type
        assert len(answer.getvalue()) > 100
        answer.close()


# --- In a browser ---------------------------------------------------------------------------------


@pytest.fixture
def market(clean_server: redis.Redis) -> tuple[Store, str]:
    """The store that the node under test serves, and the fence to write to it as CORE."""
    store = wiring.store()
    fence = store.acquire_lease(HOUR)
    assert fence
    return store, fence


@pytest.fixture
def node(server: redis.Redis) -> Iterator[str]:
    """The address of a node's API, served by gunicorn on a free port of loopback."""
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-w", "1"]
    process = subprocess.Popen(
        [*gunicorn, "-b", "127.0.0.1:0"],
        cwd=settings.BASE_DIR,
        env=environment.clean(**environment.VARIABLES),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield _listening_address(process)
    finally:
        process.terminate()
        process.communicate(timeout=WAIT)


def _listening_address(process: "subprocess.Popen[str]") -> str:
    assert process.stderr
    told = []
    for line in process.stderr:
        told.append(line)
        if found := re.search(r"Listening at: (http://[\d.:]+)", line):
            return found[1]
    raise AssertionError("gunicorn doesn't start: " + "".join(told))


class Browser:
    """A headless Chromium, told what to do over a pair of pipes: the DevTools protocol's messages
    are JSON, each ended by a zero byte, read from descriptor 3 and written to descriptor 4."""

    def __init__(self, profile: Path) -> None:
        to_browser, self._commands = os.pipe()
        answers, from_browser = os.pipe()

        def give_pipes() -> None:
            # By way of copies: one of these may itself be descriptor 3 or 4.
            reads, writes = os.dup(to_browser), os.dup(from_browser)
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        assert CHROMIUM
        self._process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-breakpad",
                "--no-first-run",
                "--window-size=1280,900",
                "--remote-debugging-pipe",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={profile}",
            ],
            pass_fds=(3, 4),
            preexec_fn=give_pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._answers = os.fdopen(answers, "rb")
        self._last_id = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        # A browser that hangs ends, and the read that waits for it with it.
        self._watchdog = threading.Timer(3 * WAIT, self._process.kill)
        self._watchdog.start()
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._commands)  # which ends the browser; the watchdog, one that doesn't
        self._answers.read()
        self._answers.close()
        self._process.wait()
        self._watchdog.cancel()

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._last_id:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def evaluate(self, expression: str) -> Any:
        answer = self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        before = self._loads()
        self.command("Page.navigate", url=address)
        self._wait_for_load(before)
        self.wait_for("document.readyState === 'complete'")

    def wait_for(self, condition: str) -> None:
        """Wait until the page's ``condition`` holds; it is looked at with every change of the
        page."""
        held = self.evaluate(
            """new Promise((resolve) => {
              const holds = () => { try { return CONDITION } catch { return false } };
              const look = () => holds() && resolve(true);
              new MutationObserver(look).observe(document,
                { subtree: true, childList: true, characterData: true, attributes: true });
              document.addEventListener("readystatechange", look);
              look();
              setTimeout(() => resolve(holds()), MILLISECONDS);
            })""".replace("CONDITION", condition).replace("MILLISECONDS", str(WAIT * 1000))
        )
        assert held, f"{condition} never held; the page says: {self.text('body')[:500]}"

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def row(self, symbol: str) -> list[str]:
        """The visible texts of a symbol's row."""
        cells = self.evaluate(f"[...{_row(symbol)}.cells].map((cell) => cell.innerText)")
        return [str(cell) for cell in cells]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console: broken addresses, exceptions, refusals by policy."""
        self.command("Runtime.evaluate", expression="0")
        return [
            json.dumps(event["params"])
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
            or (
                event["method"] == "Runtime.consoleAPICalled"
                and event["params"]["type"] in ("error", "warning")
            )
            or (
                event["method"] == "Log.entryAdded"
                and event["params"]["entry"]["level"] in ("error", "warning")
            )
        ]

    def press(self, selector: str) -> None:
        """Click on what leads to another page, and wait until that is there."""
        before = self._loads()
        self.evaluate(f"setTimeout(() => document.querySelector({json.dumps(selector)}).click())")
        self._wait_for_load(before)

    def _wait_for_load(self, before: int) -> None:
        while self._loads() == before:
            self.events.append(self._read())

    def _loads(self) -> int:
        return sum(event["method"] == "Page.loadEventFired" for event in self.events)

    def wait_for_statuses(self, path: str, count: int) -> list[int]:
        while len(statuses := self._statuses(path)) < count:
            self.events.append(self._read())
        return statuses

    def _statuses(self, path: str) -> list[int]:
        """What the node answered on the wire to the requests for ``path``."""
        asked = {
            event["params"]["requestId"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
            and event["params"]["request"]["url"].endswith(path)
        }
        return [
            event["params"]["statusCode"]
            for event in self.events
            if event["method"] == "Network.responseReceivedExtraInfo"
            and event["params"]["requestId"] in asked
        ]


def _row(symbol: str) -> str:
    return f"[...document.querySelectorAll('#rows tr')].find((row) => row.querySelector('.symbol').textContent === '{symbol}')"  # noqa: E501


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH: the page's script isn't tested")
    with Browser(tmp_path / "profile") as opened:
        yield opened


def bar(symbol: str, day: dt.date, close: float, volume: int) -> Bar:
    return Bar(symbol, day, open=close, high=close, low=close, close=close, volume=volume)


def fill(store: Store, fence: str, *, age: float = 0) -> None:
    store.merge(
        [
            bar("VCB", YESTERDAY, 62_000, 5_000_000),
            bar("VCB", TODAY, 64_300, 16_667_800),
            bar("FPT", YESTERDAY, 100_000, 3_000_000),
            bar("FPT", TODAY, 99_000, 4_000_000),
            bar("VNINDEX", YESTERDAY, 1_640.69, 1_500_000_000),
            bar("VNINDEX", TODAY, 1_630.0, 1_600_000_000),
            bar("SHS", YESTERDAY, 25_000, 900),
        ],
        Authority.CORE,
        fence=fence,
        age=age,
    )
    store.complete_cycle(fence=fence, age=age)


class TestInABrowser:
    def test_the_table_shows_the_market_and_follows_it(
        self, market: tuple[Store, str], node: str, browser: Browser
    ) -> None:
        store, fence = market
        browser.open(f"{node}/")
        browser.wait_for("document.querySelector('#state').textContent.includes('empty')")

        fill(store, fence)
        browser.wait_for("document.querySelectorAll('#rows tr').length === 4")
        browser.wait_for("document.querySelector('#state').textContent === 'Live'")
        assert browser.row("VCB") == [
            *("VCB", "HOSE", "NGAN HANG", "64,300", "+2,300", "+3.71%"),
            *("64,300", "64,300", "16,667,800"),
        ]
        assert browser.row("FPT")[3:6] == ["99,000", "−1,000", "−1.00%"]  # noqa: RUF001
        assert browser.row("VNINDEX")[3:6] == ["1,630.00", "−10.69", "−0.65%"]  # noqa: RUF001
        assert browser.row("SHS")[0].split() == ["SHS", "14", "Aug"]
        assert browser.row("SHS")[4:6] == ["–", "–"]  # noqa: RUF001

        store.merge([bar("VCB", TODAY, 64_500, 16_700_000)], Authority.CORE, fence=fence)
        browser.wait_for(f"{_row('VCB')}.dataset.flash === 'up'")
        assert browser.row("VCB")[3:5] == ["64,500", "+2,500"]
        assert browser.evaluate(f"{_row('FPT')}.dataset.flash ?? 'still'") == "still"
        browser.wait_for(f"!{_row('VCB')}.dataset.flash")
        # Browsers complain of each 503, and an empty market is one.
        others = [told for told in browser.complaints() if "503" not in told]
        assert others == []

    def test_a_suspect_is_marked(
        self, market: tuple[Store, str], node: str, browser: Browser
    ) -> None:
        store, fence = market
        fill(store, fence)
        suspect = Suspect(store.now(), Reason.BEYOND)
        store.note_suspects({"VCB": suspect}, fence=fence)
        browser.open(f"{node}/")
        browser.wait_for("document.querySelectorAll('#rows tr').length === 4")
        browser.wait_for(f"{_row('VCB')}.classList.contains('suspect')")
        assert browser.evaluate(f"{_row('FPT')}.classList.contains('suspect')") is False
        title = browser.evaluate(f"{_row('VCB')}.querySelector('.symbol').title")
        assert "more than ten times" in title

    def test_one_odd_row_is_no_new_day(
        self, market: tuple[Store, str], node: str, browser: Browser
    ) -> None:
        store, fence = market
        fill(store, fence)
        odd = bar("SHS", TODAY + dt.timedelta(days=3), 25_000, 900)
        text = f"{odd.epoch} CORE {odd.volume} {odd.high} {odd.low} {odd.close} 0 1 "
        store.client.hset(f"{ROOT}:last", "SHS", text.encode() + odd.encode())
        browser.open(f"{node}/")
        browser.wait_for("document.querySelectorAll('#rows tr').length === 4")
        day = browser.evaluate("document.querySelector('#trading-day').dateTime")
        assert day == TODAY.isoformat()

    def test_an_unchanged_market_costs_a_304(
        self, market: tuple[Store, str], node: str, browser: Browser
    ) -> None:
        fill(*market)
        browser.open(f"{node}/")
        browser.wait_for("document.querySelectorAll('#rows tr').length === 4")
        assert browser.wait_for_statuses("/tickers?limit=2", 3)[:3] == [200, 304, 304]
        assert browser.text("#state") == "Live"

    def test_columns_sort_and_filters_narrow(
        self, market: tuple[Store, str], node: str, browser: Browser
    ) -> None:
        fill(*market)
        browser.open(f"{node}/")
        browser.wait_for("document.querySelectorAll('#rows tr').length === 4")
        assert symbols(browser) == ["FPT", "SHS", "VCB", "VNINDEX"]

        press(browser, "percent", "Enter")
        assert symbols(browser) == ["VCB", "VNINDEX", "FPT", "SHS"]
        assert sorted_column(browser) == ["percent descending"]
        press(browser, "percent", "Enter")
        assert symbols(browser) == ["FPT", "VNINDEX", "VCB", "SHS"]
        assert sorted_column(browser) == ["percent ascending"]

        choose(browser, "filter-exchange", "HOSE")
        assert symbols(browser) == ["FPT", "VCB"]
        choose(browser, "filter-sector", "NGAN_HANG")
        assert symbols(browser) == ["VCB"]
        choose(browser, "filter-text", "fp")
        assert symbols(browser) == []
        assert browser.text("#message") == "No symbol matches."
        choose(browser, "filter-sector", "")
        assert symbols(browser) == ["FPT"]
        assert browser.text("#count") == "1 of 4 symbols"

    def test_old_data_is_said(self, market: tuple[Store, str], node: str, browser: Browser) -> None:
        store, fence = market
        fill(store, fence, age=180)
        browser.open(f"{node}/")
        browser.wait_for("document.querySelector('#state').textContent === 'The data is old'")
        assert browser.text("#age") == "last trusted update 3 min ago"
        assert browser.row("VCB")[3] == "64,300"

        store.complete_cycle(fence=fence)
        browser.wait_for("document.querySelector('#state').textContent === 'Live'")

    def test_a_node_that_goes_away_is_said_and_what_was_seen_stays(
        self, market: tuple[Store, str], node: str, browser: Browser
    ) -> None:
        fill(*market)
        browser.open(f"{node}/")
        browser.wait_for("document.querySelectorAll('#rows tr').length === 4")
        block(browser, f"{node}/tickers?limit=2")
        browser.wait_for("document.querySelector('#state').textContent.includes('answer')")
        assert "trying again in" in browser.text("#state")
        assert browser.row("VCB")[3] == "64,300"
        block(browser)
        browser.wait_for("document.querySelector('#state').textContent === 'Live'")


def symbols(browser: Browser) -> list[str]:
    """The symbols shown, from top to bottom."""
    found = browser.evaluate(
        "[...document.querySelectorAll('#rows tr')].filter((row) => row.checkVisibility())"
        ".map((row) => row.querySelector('.symbol').textContent)"
    )
    return [str(symbol) for symbol in found]


def sorted_column(browser: Browser) -> list[str]:
    found = browser.evaluate(
        "[...document.querySelectorAll('th[aria-sort]')]"
        ".map((th) => `${th.dataset.key} ${th.getAttribute('aria-sort')}`)"
    )
    return [str(column) for column in found]


def press(browser: Browser, column: str, key: str) -> None:
    """Press a key on a column's heading, as the keyboard does."""
    browser.evaluate(f"document.querySelector('th[data-key={column}] button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.command(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            code=key,
            text="\r",
            windowsVirtualKeyCode=13,
        )


def choose(browser: Browser, control: str, value: str) -> None:
    browser.evaluate(
        f"(() => {{ const control = document.getElementById('{control}');"
        f" control.value = '{value}'; control.dispatchEvent(new Event('input')); }})()"
    )


def block(browser: Browser, *addresses: str) -> None:
    """Let requests for these addresses fail, and no others."""
    browser.command("Network.setBlockedURLs", urls=list(addresses))
