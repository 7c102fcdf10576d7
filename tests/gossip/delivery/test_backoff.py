"""A peer's manners: what its answers mean, and when it may be sent something, in which form."""

import email.utils
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.delivery.backoff import (
    BREAK,
    BREAKS_AFTER,
    FIRST_BACKOFF,
    LONGEST_BACKOFF,
    LONGEST_BUSY_BACKOFF,
    LONGEST_PACE,
    LONGEST_RETRY_AFTER,
    SINGLE_BARS_FOR,
    Backoff,
    CircuitState,
    Outage,
    ResponseMeaning,
    meaning_of,
    seconds_to_wait,
)

NOW = 1000.0


def at_most(most: float) -> float:
    return most


def new_backoff(jitter: Callable[[float], float] = at_most) -> Backoff:
    return Backoff(jitter=jitter)


def hear(
    peer: Backoff,
    said: ResponseMeaning,
    *,
    now: float,
    status: int | None = None,
    retry_after: float = 0,
) -> float:
    """What the peer says at ``now``; returns how many seconds it is left alone."""
    peer.record(said, status=status, retry_after=retry_after, now=now)
    return peer.not_before - now


@pytest.mark.parametrize(
    ("status", "of_a_bar", "of_a_list"),
    [
        (None, ResponseMeaning.FAILED, ResponseMeaning.FAILED),
        (200, ResponseMeaning.TAKEN, ResponseMeaning.TAKEN),
        (201, ResponseMeaning.TAKEN, ResponseMeaning.TAKEN),
        (204, ResponseMeaning.TAKEN, ResponseMeaning.TAKEN),
        (301, ResponseMeaning.STOPPED, ResponseMeaning.STOPPED),
        (302, ResponseMeaning.STOPPED, ResponseMeaning.STOPPED),
        (307, ResponseMeaning.STOPPED, ResponseMeaning.STOPPED),
        (400, ResponseMeaning.REFUSED, ResponseMeaning.SINGLE_BARS),
        (401, ResponseMeaning.STOPPED, ResponseMeaning.STOPPED),
        (403, ResponseMeaning.STOPPED, ResponseMeaning.STOPPED),
        (404, ResponseMeaning.STOPPED, ResponseMeaning.STOPPED),
        (405, ResponseMeaning.STOPPED, ResponseMeaning.STOPPED),
        (408, ResponseMeaning.FAILED, ResponseMeaning.FAILED),
        (413, ResponseMeaning.STOPPED, ResponseMeaning.SINGLE_BARS),
        (415, ResponseMeaning.STOPPED, ResponseMeaning.SINGLE_BARS),
        (422, ResponseMeaning.REFUSED, ResponseMeaning.SINGLE_BARS),
        (425, ResponseMeaning.FAILED, ResponseMeaning.FAILED),
        (429, ResponseMeaning.BUSY, ResponseMeaning.BUSY),
        (500, ResponseMeaning.FAILED, ResponseMeaning.FAILED),
        (503, ResponseMeaning.FAILED, ResponseMeaning.FAILED),
        (599, ResponseMeaning.FAILED, ResponseMeaning.FAILED),
        (600, ResponseMeaning.STOPPED, ResponseMeaning.STOPPED),
    ],
)
def test_an_answer_has_one_meaning(
    status: int | None, of_a_bar: ResponseMeaning, of_a_list: ResponseMeaning
) -> None:
    assert meaning_of(status, bars=1) is of_a_bar
    assert meaning_of(status, bars=2) is of_a_list


@pytest.mark.parametrize("status", [400, 422])
def test_a_list_that_was_judged_bar_by_bar_is_refused_for_its_bars(status: int) -> None:
    assert meaning_of(status, bars=2, judged=True) is ResponseMeaning.REFUSED


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

    @pytest.mark.parametrize(
        "said", [ResponseMeaning.FAILED, ResponseMeaning.BUSY, ResponseMeaning.STOPPED]
    )
    def test_it_is_obeyed_where_it_is_longer_than_our_own_pause(
        self, said: ResponseMeaning
    ) -> None:
        assert hear(new_backoff(), said, now=NOW, retry_after=120) == 120

    def test_our_own_pause_stands_where_it_is_longer(self) -> None:
        pause = hear(new_backoff(), ResponseMeaning.STOPPED, now=NOW, status=401, retry_after=1)
        assert pause == 60


class TestManners:
    def test_a_new_peer_is_reachable_takes_lists_and_needs_no_pause(self) -> None:
        peer = new_backoff()
        assert peer.circuit is CircuitState.REACHABLE
        assert peer.takes_lists(0)
        assert peer.not_before < 0

    def test_failures_back_off_exponentially_until_the_circuit_breaks(self) -> None:
        peer = new_backoff()
        pauses = [hear(peer, ResponseMeaning.FAILED, now=NOW) for _ in range(BREAKS_AFTER - 1)]
        assert pauses == [FIRST_BACKOFF * 2**n for n in range(BREAKS_AFTER - 1)]
        before = peer.circuit
        assert hear(peer, ResponseMeaning.FAILED, now=NOW) == BREAK
        assert (before, peer.circuit) == (CircuitState.REACHABLE, CircuitState.FAILING)
        assert hear(peer, ResponseMeaning.FAILED, now=NOW) == BREAK

    def test_the_jitter_is_full(self) -> None:
        asked: list[float] = []

        def none(most: float) -> float:
            asked.append(most)
            return 0.0

        peer = new_backoff(none)
        assert hear(peer, ResponseMeaning.FAILED, now=NOW) == 0
        assert asked == [FIRST_BACKOFF]

    def test_no_pause_after_a_failure_is_longer_than_a_returning_peer_may_wait(self) -> None:
        peer = new_backoff()
        assert max(hear(peer, ResponseMeaning.FAILED, now=NOW) for _ in range(2000)) <= 3
        assert LONGEST_BACKOFF <= 3

    @pytest.mark.parametrize(
        "said",
        [
            ResponseMeaning.TAKEN,
            ResponseMeaning.REFUSED,
            ResponseMeaning.SINGLE_BARS,
        ],
    )
    def test_any_answer_that_understood_something_closes_the_circuit(
        self, said: ResponseMeaning
    ) -> None:
        peer = new_backoff()
        for _ in range(BREAKS_AFTER):
            hear(peer, ResponseMeaning.FAILED, now=NOW)
        hear(peer, said, now=NOW)
        assert peer.circuit is CircuitState.REACHABLE
        assert hear(peer, ResponseMeaning.FAILED, now=NOW) == FIRST_BACKOFF

    @pytest.mark.parametrize(
        ("status", "seconds"), [(401, 60), (403, 300), (302, 60), (404, 60), (418, 60)]
    )
    def test_a_peer_that_wants_nothing_is_left_alone_for_a_while(
        self, status: int, seconds: float
    ) -> None:
        peer = new_backoff()
        assert hear(peer, ResponseMeaning.STOPPED, now=NOW, status=status) == seconds
        assert peer.circuit is CircuitState.STOPPED

    def test_single_bars_are_learned_at_once_and_forgotten_after_a_while(self) -> None:
        peer = new_backoff()
        assert hear(peer, ResponseMeaning.SINGLE_BARS, now=NOW) <= 0
        assert not peer.takes_lists(NOW + SINGLE_BARS_FOR - 1)
        assert peer.takes_lists(NOW + SINGLE_BARS_FOR)

    def test_a_busy_peer_is_asked_again_ever_later(self) -> None:
        peer = new_backoff()
        pauses = [hear(peer, ResponseMeaning.BUSY, now=NOW) for _ in range(40)]
        assert pauses == sorted(pauses)
        assert (pauses[0], pauses[-1]) == (FIRST_BACKOFF, LONGEST_BUSY_BACKOFF)
        assert peer.circuit is CircuitState.REACHABLE

    def test_the_pace_of_a_peer_is_found_and_kept(self) -> None:
        peer = new_backoff()
        hear(peer, ResponseMeaning.TAKEN, now=NOW)
        hear(peer, ResponseMeaning.BUSY, now=NOW + 1)
        assert hear(peer, ResponseMeaning.TAKEN, now=NOW + 10) == 10
        assert hear(peer, ResponseMeaning.TAKEN, now=NOW + 20) == pytest.approx(9.5)

    def test_a_pace_that_is_needed_no_more_is_given_up(self) -> None:
        peer, now = new_backoff(), NOW
        hear(peer, ResponseMeaning.TAKEN, now=now)
        hear(peer, ResponseMeaning.BUSY, now=now)
        hear(peer, ResponseMeaning.TAKEN, now=now + 1)
        pauses = []
        for _ in range(200):
            now += 100
            pauses.append(hear(peer, ResponseMeaning.TAKEN, now=now))
        assert pauses[-1] == 0

    def test_a_busy_answer_after_a_long_silence_says_nothing_of_the_pace(self) -> None:
        peer = new_backoff()
        hear(peer, ResponseMeaning.TAKEN, now=NOW)
        hear(peer, ResponseMeaning.BUSY, now=NOW + 600)
        assert hear(peer, ResponseMeaning.TAKEN, now=NOW + 601) == 0
        assert LONGEST_PACE < 601

    def test_one_bar_every_ten_seconds_costs_few_refused_requests(self) -> None:
        peer, now, let_through_at = new_backoff(lambda most: most / 2), NOW, NOW
        taken: list[float] = []
        refused = 0
        while len(taken) < 100:
            now = max(now, peer.not_before)
            if now >= let_through_at:
                taken.append(now)
                let_through_at = now + 10
                hear(peer, ResponseMeaning.TAKEN, now=now)
            else:
                refused += 1
                hear(peer, ResponseMeaning.BUSY, now=now)
        assert taken[-1] - taken[0] < 99 * 12
        assert refused < 150


class TestBusyBetweenFailures:
    def test_a_peer_that_alternates_503_and_429_opens_the_circuit(self) -> None:
        peer, circuits = new_backoff(), []
        for _ in range(BREAKS_AFTER - 1):
            hear(peer, ResponseMeaning.FAILED, now=NOW, status=503)
            hear(peer, ResponseMeaning.BUSY, now=NOW, status=429)
        circuits.append(peer.circuit)
        assert hear(peer, ResponseMeaning.FAILED, now=NOW, status=503) == BREAK
        circuits.append(peer.circuit)
        assert hear(peer, ResponseMeaning.BUSY, now=NOW, status=429) >= BREAK
        circuits.append(peer.circuit)
        assert circuits == [CircuitState.REACHABLE, CircuitState.FAILING, CircuitState.FAILING]

    def test_a_peer_that_is_only_busy_never_opens_it(self) -> None:
        peer = new_backoff()
        for _ in range(1000):
            hear(peer, ResponseMeaning.BUSY, now=NOW, status=429)
        assert (peer.circuit, peer.outage) == (CircuitState.REACHABLE, None)

    def test_a_ban_isnt_over_because_the_peer_is_busy(self) -> None:
        peer = new_backoff()
        hear(peer, ResponseMeaning.STOPPED, now=NOW, status=403)
        hear(peer, ResponseMeaning.BUSY, now=NOW + 300, status=429)
        assert peer.circuit is CircuitState.STOPPED
        assert peer.outage == Outage(NOW, NOW + 300, 403)


# Failures and busy answers most of the time: what counts is which of them come in a row.
OFTEN = (ResponseMeaning.FAILED, ResponseMeaning.BUSY)


@given(st.lists(st.sampled_from(OFTEN) | st.sampled_from(ResponseMeaning), max_size=40))
def test_busy_answers_change_nothing_of_the_circuit_wherever_they_come(
    answers: list[ResponseMeaning],
) -> None:
    with_busy, without = new_backoff(), new_backoff()
    for number, said in enumerate(answers):
        now = NOW + number
        with_busy.record(said, status=500, retry_after=0, now=now)
        if said is not ResponseMeaning.BUSY:
            without.record(said, status=500, retry_after=0, now=now)
        assert with_busy.circuit is without.circuit
        assert (with_busy.outage is None) is (with_busy.circuit is CircuitState.REACHABLE)


class TestOutage:
    def test_lasts_from_the_answer_that_opened_the_circuit_to_the_last_one(self) -> None:
        peer = new_backoff()
        for second in range(10):
            hear(peer, ResponseMeaning.FAILED, now=NOW + second)
        assert peer.outage == Outage(NOW + BREAKS_AFTER - 1, NOW + 9, None)
        hear(peer, ResponseMeaning.STOPPED, now=NOW + 10, status=401)
        assert peer.outage == Outage(NOW + BREAKS_AFTER - 1, NOW + 10, 401)
        hear(peer, ResponseMeaning.TAKEN, now=NOW + 11)
        assert peer.outage is None
