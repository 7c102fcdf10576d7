"""Children that end by themselves, and what is made of it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from proxy_site.local import processes
from proxy_site.local.processes import FIRST_PAUSE, LONG_LIFE, LONGEST_PAUSE, Processes
from tests.support.nodes import wait_for


class Clock:
    """The module's monotonic clock, moved by the test."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(processes, "time", clock)
    return clock


@pytest.fixture
def children() -> Iterator[Processes]:
    with Processes() as children:
        yield children


def start(children: Processes, program: str, **options: Any) -> int:
    return children.start("the child", sys.executable, "-c", program, **options)


def fall(children: Processes) -> str:
    """The line that says so, once the child has ended."""
    (line,) = wait_for(children.mend, "a child that fell")
    return line


def test_a_child_that_lives_is_left_alone(children: Processes, clock: Clock) -> None:
    start(children, "import time; time.sleep(60)")
    clock.now += 1_000
    assert children.mend() == []
    assert children.fallen() == ""


@pytest.mark.parametrize(
    ("program", "end"),
    [
        ("raise SystemExit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
)
def test_a_fall_is_told_once_with_its_cause(
    children: Processes, clock: Clock, program: str, end: str
) -> None:
    start(children, program)
    assert fall(children) == f"the child {end}; it starts again in {FIRST_PAUSE:g} s"
    assert children.mend() == []


def test_pauses_double_up_to_a_limit(children: Processes, clock: Clock) -> None:
    start(children, "raise SystemExit(1)")
    pauses = []
    for _ in range(7):
        pauses.append(float(fall(children).split()[-2]))
        clock.now += pauses[-1]
        assert children.mend() == []  # starts it
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE]


def test_nothing_is_started_before_its_pause_is_over(
    children: Processes, clock: Clock, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    start(children, f"open({str(starts)!r}, 'a').write('.')")
    fall(children)
    clock.now += FIRST_PAUSE - 0.01
    children.mend()
    assert starts.read_text() == "."
    clock.now += 0.01
    children.mend()
    wait_for(lambda: starts.read_text() == "..", "the second start")


def test_a_long_life_is_forgiven(children: Processes, clock: Clock) -> None:
    start(children, "raise SystemExit(1)")
    for expected in (1, 2, 4):
        assert fall(children).endswith(f"in {expected} s")
        clock.now += expected
        children.mend()
    clock.now += LONG_LIFE
    assert fall(children).endswith("in 1 s")


def test_what_a_fallen_child_leaves_behind_ends_before_the_next_one(
    children: Processes, clock: Clock, tmp_path: Path
) -> None:
    """As gunicorn's workers do, which hold its port."""
    grandchild = tmp_path / "grandchild"
    forks = f"""
import os, time
if os.fork() == 0:
    open({str(grandchild)!r}, "w").write(str(os.getpid()))
    time.sleep(60)
while not os.path.exists({str(grandchild)!r}) or not open({str(grandchild)!r}).read():
    time.sleep(0.01)
raise SystemExit(1)
"""
    start(children, forks)
    fall(children)
    left_behind = int(grandchild.read_text())
    assert is_running(left_behind)
    clock.now += FIRST_PAUSE
    children.mend()
    wait_for(lambda: not is_running(left_behind), "its end")


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
