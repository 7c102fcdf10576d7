"""A peer's manners: what its answers mean, and when it may be sent something, in which form."""

import email.utils
from collections.abc import Callable

import pytest

from gossip.manners import (
    BREAK,
    BREAKS_AFTER,
    FIRST_BACKOFF,
    LONGEST_BACKOFF,
    LONGEST_BUSY_BACKOFF,
    LONGEST_PACE,
    LONGEST_RETRY_AFTER,
    SINGLE_BARS_FOR,
    Manners,
    Meaning,
    Standing,
    meaning,
    seconds_to_wait,
)

NOW = 1000.0


def at_most(most: float) -> float:
    return most


def manners(jitter: Callable[[float], float] = at_most) -> Manners:
    return Manners(jitter=jitter)


def hear(
    peer: Manners, said: Meaning, *, now: float, status: int | None = None, retry_after: float = 0
) -> float:
    """What the peer says at ``now``; returns how many seconds it is left alone."""
    peer.heard(said, status=status, retry_after=retry_after, now=now)
    return peer.not_before - now


@pytest.mark.parametrize(
    ("status", "of_a_bar", "of_a_list"),
    [
        (None, Meaning.FAILED, Meaning.FAILED),
        (200, Meaning.TAKEN, Meaning.TAKEN),
        (201, Meaning.TAKEN, Meaning.TAKEN),
        (204, Meaning.TAKEN, Meaning.TAKEN),
        (301, Meaning.STOPPED, Meaning.STOPPED),
        (302, Meaning.STOPPED, Meaning.STOPPED),
        (307, Meaning.STOPPED, Meaning.STOPPED),
        (400, Meaning.REFUSED, Meaning.SINGLE_BARS),
        (401, Meaning.STOPPED, Meaning.STOPPED),
        (403, Meaning.STOPPED, Meaning.STOPPED),
        (404, Meaning.STOPPED, Meaning.STOPPED),
        (405, Meaning.STOPPED, Meaning.STOPPED),
        (408, Meaning.FAILED, Meaning.FAILED),
        (413, Meaning.STOPPED, Meaning.SINGLE_BARS),
        (415, Meaning.STOPPED, Meaning.SINGLE_BARS),
        (422, Meaning.REFUSED, Meaning.SINGLE_BARS),
        (425, Meaning.FAILED, Meaning.FAILED),
        (429, Meaning.BUSY, Meaning.BUSY),
        (500, Meaning.FAILED, Meaning.FAILED),
        (503, Meaning.FAILED, Meaning.FAILED),
        (599, Meaning.FAILED, Meaning.FAILED),
        (600, Meaning.STOPPED, Meaning.STOPPED),
    ],
)
def test_an_answer_has_one_meaning(
    status: int | None, of_a_bar: Meaning, of_a_list: Meaning
) -> None:
    assert meaning(status, bars=1) is of_a_bar
    assert meaning(status, bars=2) is of_a_list


@pytest.mark.parametrize("status", [400, 422])
def test_a_list_that_was_judged_bar_by_bar_is_refused_for_its_bars(status: int) -> None:
    assert meaning(status, bars=2, judged=True) is Meaning.REFUSED


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            (None, 0),
            ("", 0),
            ("7", 7),
            (" 7 ", 7),
            ("0", 0),
            ("-5", 0),
            ("soon", 0),
            ("1e9", 0),
            ("999999999999", LONGEST_RETRY_AFTER),
            ("9" * 60_000, LONGEST_RETRY_AFTER),
            (email.utils.formatdate(NOW + 30, usegmt=True), 30),
            (email.utils.formatdate(NOW - 30, usegmt=True), 0),
            (email.utils.formatdate(NOW + 86_400, usegmt=True), LONGEST_RETRY_AFTER),
            ("Fri, 99 Foo 2025 99:99:99 GMT", 0),
        ],
    )
    def test_it_is_read_and_bounded(self, header: str | None, seconds: float) -> None:
        assert seconds_to_wait(header, wall_time=lambda: NOW) == seconds

    @pytest.mark.parametrize("said", [Meaning.FAILED, Meaning.BUSY, Meaning.STOPPED])
    def test_it_is_obeyed_where_it_is_longer_than_our_own_pause(self, said: Meaning) -> None:
        assert hear(manners(), said, now=NOW, retry_after=120) == 120

    def test_our_own_pause_stands_where_it_is_longer(self) -> None:
        assert hear(manners(), Meaning.STOPPED, now=NOW, status=401, retry_after=1) == 60


class TestManners:
    def test_a_new_peer_is_reachable_takes_lists_and_needs_no_pause(self) -> None:
        peer = manners()
        assert peer.standing is Standing.REACHABLE
        assert peer.takes_lists(0)
        assert peer.not_before < 0

    def test_failures_back_off_exponentially_until_the_circuit_breaks(self) -> None:
        peer = manners()
        pauses = [hear(peer, Meaning.FAILED, now=NOW) for _ in range(BREAKS_AFTER - 1)]
        assert pauses == [FIRST_BACKOFF * 2**n for n in range(BREAKS_AFTER - 1)]
        assert peer.standing is Standing.REACHABLE
        assert hear(peer, Meaning.FAILED, now=NOW) == BREAK
        assert peer.standing is Standing.FAILING
        assert hear(peer, Meaning.FAILED, now=NOW) == BREAK

    def test_the_jitter_is_full(self) -> None:
        asked: list[float] = []

        def none(most: float) -> float:
            asked.append(most)
            return 0.0

        peer = manners(none)
        assert hear(peer, Meaning.FAILED, now=NOW) == 0
        assert asked == [FIRST_BACKOFF]

    def test_no_pause_after_a_failure_is_longer_than_a_returning_peer_may_wait(self) -> None:
        peer = manners()
        assert max(hear(peer, Meaning.FAILED, now=NOW) for _ in range(2000)) <= 3
        assert LONGEST_BACKOFF <= 3

    @pytest.mark.parametrize(
        "said", [Meaning.TAKEN, Meaning.REFUSED, Meaning.BUSY, Meaning.SINGLE_BARS]
    )
    def test_any_sensible_answer_closes_the_circuit(self, said: Meaning) -> None:
        peer = manners()
        for _ in range(BREAKS_AFTER):
            hear(peer, Meaning.FAILED, now=NOW)
        hear(peer, said, now=NOW)
        assert peer.standing is Standing.REACHABLE
        assert hear(peer, Meaning.FAILED, now=NOW) == FIRST_BACKOFF

    @pytest.mark.parametrize(
        ("status", "seconds"), [(401, 60), (403, 300), (302, 60), (404, 60), (418, 60)]
    )
    def test_a_peer_that_wants_nothing_is_left_alone_for_a_while(
        self, status: int, seconds: float
    ) -> None:
        peer = manners()
        assert hear(peer, Meaning.STOPPED, now=NOW, status=status) == seconds
        assert peer.standing is Standing.STOPPED

    def test_single_bars_are_learned_at_once_and_forgotten_after_a_while(self) -> None:
        peer = manners()
        assert hear(peer, Meaning.SINGLE_BARS, now=NOW) <= 0
        assert not peer.takes_lists(NOW + SINGLE_BARS_FOR - 1)
        assert peer.takes_lists(NOW + SINGLE_BARS_FOR)

    def test_a_busy_peer_is_asked_again_ever_later(self) -> None:
        peer = manners()
        pauses = [hear(peer, Meaning.BUSY, now=NOW) for _ in range(40)]
        assert pauses == sorted(pauses)
        assert (pauses[0], pauses[-1]) == (FIRST_BACKOFF, LONGEST_BUSY_BACKOFF)
        assert peer.standing is Standing.REACHABLE

    def test_the_pace_of_a_peer_is_found_and_kept(self) -> None:
        peer = manners()
        hear(peer, Meaning.TAKEN, now=NOW)
        hear(peer, Meaning.BUSY, now=NOW + 1)
        assert hear(peer, Meaning.TAKEN, now=NOW + 10) == 10
        assert hear(peer, Meaning.TAKEN, now=NOW + 20) == pytest.approx(9.5)

    def test_a_pace_that_is_needed_no_more_is_given_up(self) -> None:
        peer, now = manners(), NOW
        hear(peer, Meaning.TAKEN, now=now)
        hear(peer, Meaning.BUSY, now=now)
        hear(peer, Meaning.TAKEN, now=now + 1)
        pauses = []
        for _ in range(200):
            now += 100
            pauses.append(hear(peer, Meaning.TAKEN, now=now))
        assert pauses[-1] == 0

    def test_a_busy_answer_after_a_long_silence_says_nothing_of_the_pace(self) -> None:
        peer = manners()
        hear(peer, Meaning.TAKEN, now=NOW)
        hear(peer, Meaning.BUSY, now=NOW + 600)
        assert hear(peer, Meaning.TAKEN, now=NOW + 601) == 0
        assert LONGEST_PACE < 601

    def test_one_bar_every_ten_seconds_costs_few_refused_requests(self) -> None:
        peer, now, let_through_at = manners(lambda most: most / 2), NOW, NOW
        taken, refused = [], 0
        while len(taken) < 100:
            now = max(now, peer.not_before)
            if now >= let_through_at:
                taken.append(now)
                let_through_at = now + 10
                hear(peer, Meaning.TAKEN, now=now)
            else:
                refused += 1
                hear(peer, Meaning.BUSY, now=now)
        assert taken[-1] - taken[0] < 99 * 12
        assert refused < 150
