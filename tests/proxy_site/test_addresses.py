"""The addresses that trusted bars come from: whose turn it is, as values."""

from hypothesis import given
from hypothesis import strategies as st

from proxy_site.addresses import LONGEST_BACKOFF, Addresses, backoff


def asked(addresses: Addresses[str], now: float) -> list[str]:
    return [address.source for address in addresses.to_ask(now)]


def fail(addresses: Addresses[str], name: str, *, now: float, pause: float) -> None:
    [address] = [a for a in addresses.to_ask(now) if a.source == name]
    addresses.failed(address, now=now, pause=pause)


def test_the_one_that_answered_last_is_asked_first() -> None:
    addresses = Addresses(["a", "b", "c"])
    addresses.answered(addresses.to_ask(0)[1])
    assert asked(addresses, 1) == ["b", "a", "c"]


def test_one_that_failed_is_not_asked_before_its_own_time() -> None:
    addresses = Addresses(["a", "b"])
    fail(addresses, "a", now=0, pause=10)
    assert asked(addresses, 8) == ["b"]
    assert asked(addresses, 10) == ["a", "b"]
    assert addresses.failing == 1


def test_one_that_answered_last_is_asked_before_those_that_never_did() -> None:
    """Also after a failure of its own."""
    addresses = Addresses(["dead", "alive"])
    fail(addresses, "dead", now=0, pause=20)
    addresses.answered(addresses.to_ask(0)[0])
    fail(addresses, "alive", now=1, pause=19)
    assert asked(addresses, 20) == ["alive", "dead"]


def test_when_none_may_be_asked_it_is_the_one_whose_time_comes_first() -> None:
    addresses = Addresses(["a", "b"])
    fail(addresses, "a", now=0, pause=10)
    fail(addresses, "b", now=1, pause=5)
    assert addresses.due_at == 6
    assert asked(addresses, 2) == ["b"]


@given(failures=st.integers(1, 10_000), interval=st.floats(0.01, 86_400))
def test_a_backoff_is_never_faster_than_the_pace_and_has_an_end(
    failures: int, interval: float
) -> None:
    pause = backoff(failures, interval=interval)
    assert interval <= pause <= max(interval, LONGEST_BACKOFF)
    assert backoff(failures + 1, interval=interval) >= pause


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 60)), max_size=50))
def test_whatever_fails_there_is_always_one_to_ask(turns: list[tuple[str, bool, float]]) -> None:
    addresses = Addresses(list("abc"))
    for now, (name, answers, pause) in enumerate(turns):
        for address in addresses.to_ask(now):
            if address.source == name and answers:
                addresses.answered(address)
                assert asked(addresses, now)[0] == name
            elif address.source == name:
                addresses.failed(address, now=now, pause=pause)
        assert asked(addresses, now)
    assert len(addresses) == 3
