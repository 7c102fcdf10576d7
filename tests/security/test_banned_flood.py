"""A banned actor that sends as fast as it can: refused each time, without a look into the database,
while trusted peers are served."""

import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.conftest import needs_nginx, nginx
from tests.network.nodes import ROOT
from tests.security.target import Target, a_bar, connect, read_answer, request, send, target

LIAR, INNOCENT = "127.0.0.1", "127.0.0.7"  # wrk calls from nowhere else
CONNECTIONS, SECONDS = 16, 3
HIGH = dict.fromkeys(("open", "high", "low", "close"), 99_000)
LIE = json.dumps(a_bar(**HIGH, volume=20_000_000)).encode()
WRK = shutil.which("wrk")


def by_wrk(port: int) -> Counter[int]:
    """How many answers had which status; 0 for none, or any but 403 and 429."""
    command = [WRK or "", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", "benchmarks/flood.lua"]
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/public/gossip"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(line for line in output.splitlines() if line.startswith("FLOOD "))
    _duration, forbidden, limited, others = map(int, line.split()[1:])
    return +Counter({403: forbidden, 429: limited, 0: others})


def by_threads(port: int, source: str = LIAR) -> Counter[int]:
    counts: Counter[int] = Counter()
    deadline = time.monotonic() + SECONDS

    def send_on() -> None:
        mine: Counter[int] = Counter()
        data = request("/public/gossip", LIE)
        with connect(port, source=source) as client:
            while time.monotonic() < deadline:
                client.sendall(data)
                answer = read_answer(client)
                mine[answer.status if answer else 0] += 1
        counts.update(mine)

    threads = [threading.Thread(target=send_on) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


@contextmanager
def database_gone(node: Target) -> Iterator[None]:
    """Another, empty one is in its place: whatever is asked of it fails."""
    files = [node.database.with_name(node.database.name + end) for end in ("", "-wal", "-shm")]
    moved = [(file, file.with_name(f"{file.name}.away")) for file in files if file.exists()]
    for file, away in moved:
        file.rename(away)
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        for file, away in moved:
            away.rename(file)


def flood(node: Target, port: int, *, source: str = LIAR) -> Counter[int]:
    """The statuses that a flood is answered, while a trusted peer posts changes."""
    counts: Counter[int] = Counter()

    def attack() -> None:
        use_wrk = WRK and source == LIAR
        counts.update(by_wrk(port) if use_wrk else by_threads(port, source))

    attacker = threading.Thread(target=attack)
    attacker.start()
    posts = 0
    try:
        while attacker.is_alive():
            posts += 1
            body = json.dumps(a_bar(volume=1_000_000 + posts)).encode()
            answer = send(port, request("/gossip", body))
            assert answer is not None
            assert (answer.status, json.loads(answer.body)["verdict"]) == (200, "replaced")
    finally:
        attacker.join()
    assert posts > 10 * SECONDS
    return counts


def test_it_is_refused_without_the_database_and_trusted_gossip_goes_on(tmp_path: Path) -> None:
    with target(tmp_path) as node:
        node.ban(LIAR)  # which makes its standing known for a minute
        before = node.records()
        with database_gone(node):
            # Who isn't known must be looked up, and can't be.
            stranger = node.send(request("/public/gossip", LIE), source=INNOCENT)
            assert stranger is not None
            assert stranger.status == 503
            counts = flood(node, node.port)
        assert set(counts) == {403, 429}
        assert counts.total() > 100 * SECONDS
        assert node.records() == before
        answer = node.send(request("/public/gossip", LIE), source=INNOCENT)
        assert answer is not None
        assert answer.detail == "Implausible price change"


@needs_nginx
def test_behind_nginx_most_of_it_reaches_no_node(tmp_path: Path) -> None:
    liar = "127.0.0.66"  # nginx doesn't limit its own machine
    with (
        target(tmp_path, TRUSTED_PROXIES="127.0.0.1") as node,
        nginx(node.folder / "front", node.port) as front,
    ):
        node.ban(liar)
        before = node.records()
        with database_gone(node):
            counts = flood(node, front.port, source=liar)
        assert set(counts) == {403, 429}
        assert front.log().count("limiting requests") > counts.total() / 2
        assert node.records() == before
