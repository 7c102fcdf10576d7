"""Token rotation as the README describes it: one node restarted at a time, and no bar refused.

Core nodes that gossip to each other fetch from one exchange, which never stops moving. A door in
front of each counts what its peers are answered.
"""

import datetime as dt
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from gossip.tokens import bearer
from gossip.tokens.rotation import PROBE
from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.environment import clean
from tests.support.nodes import ROOT, run, wait_for
from tests.support.proxies import Door, pass_on_to
from tests.support.yard import Process, StoreServer, Yard
from tickers.universe import Universe

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read().only(Universe.read().symbols[:12])

OLD, SPARE, NEW, NEXT = (f"rotation-token-{name}" for name in ("old", "spare", "new", "next"))
# Each step is done on every node before the next one begins: (primary, secondary).
BEGIN = (OLD, SPARE)
STEPS = {
    "the new token as the secondary": (OLD, NEW),
    "the two swapped": (NEW, OLD),
    "another secondary": (NEW, NEXT),
}


class RotatingNode:
    """A core node whose API and worker are restarted with other tokens; its store stays."""

    def __init__(
        self, name: str, yard: Yard, *, door: Door, peers: list[str], upstream: str, port: int
    ) -> None:
        self.name = name
        self.door = door
        self._yard = yard
        self._url = f"http://127.0.0.1:{port}"
        self.store: StoreServer = yard.store(f"{name}-store")
        self._environment = {
            **yard.environment(name),
            "PORT": str(port),
            "REDIS_URL": self.store.url,
            "VCI_BASE_URL": upstream,
            "INTERNAL_PEER_URLS": ",".join(peers),
            "TICKERS": ",".join(UNIVERSE.symbols),
            "HISTORY_START": HISTORY_START.isoformat(),
            "DEBUG_SYSTEM_TIME": NOON.isoformat(),
            "TOKEN_FAILURE_RATE": "100/1m",
        }
        self._running: list[Process] = []

    def start(self, tokens: tuple[str, str]) -> None:
        primary, secondary = tokens
        environment = {
            **self._environment,
            "PRIMARY_TOKEN": primary,
            "SECONDARY_TOKEN": secondary,
        }
        self._running = [
            self._yard.api(f"{self.name}-api", environment),
            self._yard.worker(f"{self.name}-worker", environment),
        ]
        for process in self._running:
            process.start()
        wait_for(lambda: self.newest(), f"{self.name} to answer", self, seconds=60)

    def stop(self) -> None:
        """As systemd does: SIGTERM, and the work in hand is finished."""
        for process in self._running:
            os.kill(process.pid, signal.SIGTERM)
        for process in self._running:
            wait_for(partial(has_left, process), f"{process.name} to leave", self)

    def asks(self, tokens: tuple[str, str]) -> tuple[int, str]:
        """What `manage.py rotate_token` exits with and says, with these tokens in its settings."""
        primary, secondary = tokens
        done = subprocess.run(
            [sys.executable, "manage.py", "rotate_token"],
            cwd=ROOT,
            env={**self._environment, "PRIMARY_TOKEN": primary, "SECONDARY_TOKEN": secondary},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    def newest(self) -> dict[str, Any]:
        """symbol → its last trusted bar; empty while the node doesn't answer."""
        try:
            market = requests.get(f"{self._url}/tickers?limit=1&authority=trusted", timeout=30)
            return {symbol: bars[-1] for symbol, bars in market.json().items()}
        except requests.RequestException:
            return {}

    def log(self) -> str:
        return "\n".join(process.log() for process in self._running)


def has_left(process: Process) -> bool:
    return not process.lives


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    database = tmp_path / "migrated"
    environment = clean(
        PRIMARY_TOKEN=OLD,
        SECONDARY_TOKEN=SPARE,
        DATA_DIR=str(database),
        REDIS_URL="redis://127.0.0.1:9/0",
    )
    run(environment, "manage.py", "migrate", "--verbosity=0")
    with Yard(tmp_path, database / "reputation.sqlite3") as yard:
        yield yard


class Exchange(SimulatorServer):
    """One that moves all the time, until it is told to stand still."""

    def __init__(self) -> None:
        clock = AcceleratedClock(NOON, 0)
        super().__init__(
            SimulatedMarket(UNIVERSE, clock=clock, seed=7, history_start=HISTORY_START)
        )
        self.volume = 10**9
        self._still = threading.Event()
        self._mover = threading.Thread(target=self._move, name="exchange", daemon=True)

    @contextmanager
    def moving(self) -> Iterator[None]:
        self._mover.start()
        try:
            yield
        finally:
            self._still.set()
            self._mover.join()

    def _move(self) -> None:
        while not self._still.wait(0.2):
            self.volume += 100
            self.set_bars({symbol: {"volume": self.volume} for symbol in UNIVERSE.symbols})


def test_in_every_state_of_the_rotation_each_node_takes_what_each_other_sends() -> None:
    states = list(states_of_a_rotation(nodes=3))
    assert len(states) == 1 + 3 * len(STEPS)
    for state in states:
        for (primary, _), accepted in itertools.permutations(state, 2):
            assert bearer.is_valid(f"Bearer {primary}", accepted), state


def states_of_a_rotation(*, nodes: int) -> Iterator[list[tuple[str, str]]]:
    """The tokens of all nodes, after each restart."""
    state = [BEGIN] * nodes
    yield state
    for tokens in STEPS.values():
        for number in range(nodes):
            state = [*state[:number], tokens, *state[number + 1 :]]
            yield state


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_bar_is_refused_while_three_nodes_are_restarted_in_turn(yard: Yard) -> None:
    with Exchange() as exchange, network(3, yard, exchange) as nodes:
        for node in nodes:
            node.start(BEGIN)
        with exchange.moving():
            for tokens in STEPS.values():
                for node in nodes:
                    node.stop()
                    node.start(tokens)
                    for other in nodes:
                        wait_for_gossip(other)
        wait_for(lambda: is_right(exchange, nodes), "the same market everywhere", *nodes)
        answers = [pair for node in nodes for pair in node.door.seen]
    refused = [reply.status for _, reply in answers if reply.status not in (200, None)]
    assert refused == []
    # Both tokens were in use, so a door that forgot one of them would have been seen.
    used = {request.authorization for request, reply in answers if reply.status == 200}
    assert used == {f"Bearer {OLD}", f"Bearer {NEW}"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command_leads_two_nodes_through_a_rotation(yard: Yard) -> None:
    """Each step is done when the command says that it is safe, and no bar is refused."""
    with Exchange() as exchange, network(2, yard, exchange) as nodes:
        first, second = nodes
        for node in nodes:
            node.start(BEGIN)
        with exchange.moving():
            assert all(node.asks(BEGIN)[0] == 0 for node in nodes)

            with_new = STEPS["the new token as the secondary"]
            restart(first, with_new)
            code, text = first.asks(with_new)
            assert code == 1
            assert f"step 1 (or 3) isn't done on these: {second.door.url[7:]}." in text
            restart(second, with_new)
            for node in nodes:
                code, text = node.asks(with_new)
                assert code == 0
                assert "swap the two now" in text

            swapped = STEPS["the two swapped"]
            restart(first, swapped)
            wait_for_gossip(second)
            code, text = second.asks(with_new)  # whose secondary the first sends with by now
            assert code == 0
            assert re.search(r"with the secondary token \d+ s ago: keep it", text)
            restart(second, swapped)
            assert all(node.asks(swapped)[0] == 0 for node in nodes)

            last = STEPS["another secondary"]
            restart(first, last)
            assert first.asks(last)[0] == 1
            restart(second, last)
            texts = [node.asks(last) for node in nodes]
            assert [code for code, _ in texts] == [0, 0]
        wait_for(lambda: is_right(exchange, nodes), "the same market everywhere", *nodes)
        gossip = [pair for node in nodes for pair in node.door.seen if pair[0].body != PROBE]
    assert [reply.status for _, reply in gossip if reply.status not in (200, None)] == []
    for _, text in texts:
        assert all(bearer.fingerprint(one) in text for one in last)
        assert not any(one in text for one in (OLD, SPARE, NEW, NEXT))


def restart(node: RotatingNode, tokens: tuple[str, str]) -> None:
    node.stop()
    node.start(tokens)


@contextmanager
def network(count: int, yard: Yard, exchange: Exchange) -> Iterator[list[RotatingNode]]:
    """Nodes that are each other's internal peers, not started yet."""
    with ExitStack() as stack:
        ports = [yard.port() for _ in range(count)]
        doors = [
            stack.enter_context(Door(pass_on_to(f"http://127.0.0.1:{port}"))) for port in ports
        ]
        nodes = [
            RotatingNode(
                f"node-{number}",
                yard,
                door=door,
                peers=[other.url for other in doors if other is not door],
                upstream=exchange.url,
                port=port,
            )
            for number, (door, port) in enumerate(zip(doors, ports, strict=True))
        ]
        for node in nodes:
            node.store.start()
        yield nodes


def wait_for_gossip(node: RotatingNode) -> None:
    """Until a bar that was sent from now on has been answered at the node's door."""
    seen = len(node.door.seen)
    node.door.wait_for(
        lambda: any(reply.status is not None for _, reply in node.door.seen[seen + 1 :]),
        f"gossip at {node.name}",
    )


def is_right(exchange: Exchange, nodes: list[RotatingNode]) -> bool:
    markets = [node.newest() for node in nodes]
    return all(market == markets[0] for market in markets) and all(
        bar["volume"] == exchange.volume for bar in markets[0].values()
    )
