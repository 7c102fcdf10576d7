"""PUBLIC_BARS=corroborated: a late symbol's bar of an unproven sender waits for a second one."""

from typing import Any

import pytest
import redis

from reputation.models import Actor
from reputation.transitions import OperatorEvent
from tests.support.bars import let_time_pass
from tests.support.doors import (
    ANCHORS,
    a_bar,
    by_operator,
    make_late,
    merge_core,
    send_public,
    served,
    wire,
)
from tickers.store.store import Store
from tickers.verdict import Authority

pytestmark = pytest.mark.django_db

ONE, SAME_NETWORK, ANOTHER = "203.0.113.9", "203.0.113.200", "198.51.100.7"
SIXES = "2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:3::1"
CLOSE = ANCHORS["VCB"]
UP = 65_000


@pytest.fixture(autouse=True)
def late(market: Store, clean_server: redis.Redis, settings: Any) -> None:
    """A node that asks for a second sender, and a trusted bar of today that is late."""
    settings.PUBLIC_BARS = "corroborated"
    merge_core(a_bar(volume=1_000))
    make_late(clean_server, seconds=100)


def say(address: str, price: float = UP, volume: int = 2_000) -> tuple[int, str]:
    answer = send_public(wire(price=price, volume=volume), address=address)
    return answer.status_code, answer.json().get("verdict", "")


def test_the_first_is_held_and_the_second_served(market: Store) -> None:
    assert say(ONE) == (202, "held")
    assert served()["close"] == CLOSE
    assert market.state().held == 1
    assert say(ANOTHER, UP + 100, 2_100) == (200, "laid")
    assert served()["close"] == UP + 100
    assert market.state().held == 0
    assert market.state().overlays == 1


@pytest.mark.parametrize(
    ("first", "second"), [(ONE, ONE), (ONE, SAME_NETWORK), (SIXES[0], SIXES[1])]
)
def test_nobody_speaks_for_themselves_or_their_network(first: str, second: str) -> None:
    assert say(first) == (202, "held")
    assert say(second) == (202, "held")
    assert served()["close"] == CLOSE


@pytest.mark.parametrize(
    "tunnel",
    [
        "2002:cb00:7109::1",
        "64:ff9b::203.0.113.9",
        "::203.0.113.9",
        "2001:0:4136:e378:8000:63bf:34ff:8ef6",
    ],
    ids=["6to4", "NAT64", "IPv4-compatible", "Teredo"],
)
def test_nobody_is_a_second_through_a_tunnel(tunnel: str) -> None:
    assert say(ONE) == (202, "held")
    assert say(tunnel) == (202, "held")


def test_a_wider_ipv6_network_is_one_when_told_so(settings: Any) -> None:
    settings.INDEPENDENT_IPV6_PREFIX = 48
    say(SIXES[0])
    assert say(SIXES[2]) == (202, "held")
    assert say("2001:db8:2::1") == (200, "laid")


@pytest.mark.parametrize(("first", "second"), [(ONE, SIXES[0]), (SIXES[0], SIXES[2])])
def test_other_networks_are_independent(first: str, second: str) -> None:
    say(first)
    assert say(second) == (200, "laid")


@pytest.mark.parametrize(("apart", "expected"), [(0.0049, 200), (0.0051, 202)])
def test_half_a_percent_apart_is_agreement(apart: float, expected: int) -> None:
    say(ONE, UP * (1 + apart))
    assert say(ANOTHER, UP)[0] == expected


HONEST: dict[str, Any] = {"price": UP, "open": UP - 200, "high": UP + 100, "low": UP - 300}
HONEST["volume"] = 6_000


def say_whole(address: str, **fields: Any) -> str:
    answer = send_public(wire(**{**HONEST, **fields}), address=address)
    return str(answer.json()["verdict"])


@pytest.mark.parametrize(
    "lie",
    [
        {"open": UP - 1_000, "low": UP - 1_000},
        {"low": CLOSE * 0.91},
        {"high": CLOSE * 1.09},
        {"volume": 12_001},
    ],
    ids=["open", "low", "high", "volume"],
)
def test_nobody_rides_on_an_honest_close(lie: dict[str, Any], market: Store) -> None:
    """What agrees in the close alone waits for its own second, and keeps nobody from agreeing."""
    assert say_whole(ONE) == "held"
    assert say_whole("192.0.2.1", **lie) == "held"
    assert market.state().overlays == 0
    assert say_whole(ANOTHER, volume=6_100) == "laid"


@pytest.mark.parametrize(
    ("volume", "verdict"), [(1_000, "laid"), (12_000, "laid"), (12_001, "held")]
)
def test_the_seconds_volume_is_at_most_twice_the_firsts(volume: int, verdict: str) -> None:
    say_whole(ONE)
    assert say_whole(ANOTHER, volume=volume) == verdict


def test_honest_senders_differ_by_what_was_traded_between_them(market: Store) -> None:
    say_whole(ONE)
    later = {"price": UP + 200, "high": UP + 250, "low": UP - 350, "open": UP - 200}
    assert say_whole(ANOTHER, **later, volume=6_500) == "laid"


def test_a_lie_between_two_honest_senders_keeps_nobody_from_agreeing(market: Store) -> None:
    say(ONE)
    assert say("192.0.2.1", CLOSE * 1.09) == (202, "held")
    assert say(ANOTHER) == (200, "laid")


def test_many_lies_make_room_for_the_newest(market: Store) -> None:
    for n in range(40):
        say(f"10.0.{n}.1", CLOSE * (0.91 if n % 2 else 1.09) + 400 * n)
    say(ONE)
    assert say(ANOTHER) == (200, "laid")


def test_a_neighbour_drives_out_nobodys_bar(market: Store) -> None:
    say(ONE)
    assert say(SAME_NETWORK, CLOSE * 1.09) == (202, "held")
    assert say(ANOTHER) == (200, "laid")


def test_a_sender_has_one_bar_held_the_newest() -> None:
    say(ONE, CLOSE * 1.09)
    say(ONE)
    assert say(ANOTHER, CLOSE * 1.09) == (202, "held")
    assert say("192.0.2.1") == (200, "laid")


def test_a_whole_network_of_lies_drives_out_its_own_only(market: Store) -> None:
    say(ONE)
    for n in range(40):
        say(f"10.0.0.{n}", CLOSE * (0.91 if n % 2 else 1.09) + 40 * n)
    assert len(market.public_actors()) == 16
    assert say(ANOTHER) == (200, "laid")


def test_a_trusted_actors_bar_is_served_at_once(market: Store) -> None:
    by_operator(OperatorEvent.TRUST, ONE)
    assert say(ONE) == (200, "laid")


def test_while_the_trusted_bar_is_not_late_all_are_judged_only(market: Store) -> None:
    by_operator(OperatorEvent.TRUST, ONE)
    merge_core(a_bar(volume=1_500))
    assert say(ONE) == (200, "judged")
    assert say(ANOTHER) == (200, "judged")
    assert market.state().held == 0


def test_a_trusted_bar_ends_what_is_held(market: Store, clean_server: redis.Redis) -> None:
    say(ONE)
    merge_core(a_bar(volume=1_500))
    make_late(clean_server, seconds=100)
    assert say(ANOTHER) == (202, "held")


def test_a_followers_whole_cycle_ends_what_is_held(market: Store) -> None:
    say(ONE)
    market.complete_cycle(fence=market.acquire_lease(60) or "", ends_overlays=True)
    assert market.state().held == 0


def test_what_is_held_ends_a_trust_window_after_it_came(
    market: Store, clean_server: redis.Redis
) -> None:
    say(ONE)
    let_time_pass(clean_server, seconds=299)
    assert market.state().held == 1
    let_time_pass(clean_server, seconds=2)
    assert market.state().held == 0
    market.merge([a_bar("PVS")], Authority.INTERNAL)  # keeps the door open
    assert say(ANOTHER) == (202, "held")


def test_a_ban_ends_what_the_actor_has_held(market: Store) -> None:
    say(ONE)
    say("192.0.2.1", CLOSE * 1.05)
    assert market.public_actors() == {ONE, "192.0.2.1"}
    assert market.withdraw_actors([ONE]) == 1
    assert market.public_actors() == {"192.0.2.1"}
    assert say(ANOTHER) == (202, "held")


@pytest.mark.parametrize("banned", [ONE, ANOTHER])
def test_a_ban_of_either_ends_what_two_had_served(banned: str, market: Store) -> None:
    say(ONE)
    assert say(ANOTHER) == (200, "laid")
    assert market.public_actors() == {ONE, ANOTHER}
    assert market.withdraw_actors(["192.0.2.1"]) == 0
    assert market.withdraw_actors([banned]) == 1
    assert served()["close"] == CLOSE
    assert market.public_actors() == set()


def test_lies_of_who_spoke_for_a_bar_end_it_with_the_ban() -> None:
    say(ONE)
    say(ANOTHER)
    for _ in range(6):
        assert say(ONE, CLOSE * 2)[0] == 400
    assert served()["close"] == CLOSE


def test_a_trusted_actor_answers_for_its_bar_alone(market: Store) -> None:
    say(ANOTHER)
    by_operator(OperatorEvent.TRUST, ONE)
    say(ONE)
    assert market.public_actors() == {ONE}


def test_held_bars_are_no_change_of_the_market(market: Store) -> None:
    before = market.state().position
    say(ONE)
    assert market.state().position == before


def test_an_implausible_bar_is_never_held(market: Store) -> None:
    assert say(ONE, CLOSE * 1.2)[0] == 400
    assert market.state().held == 0


def test_a_list_is_202_when_all_that_wasnt_refused_waits(market: Store) -> None:
    lies_elsewhere = wire("NONE")
    answer = send_public([wire(price=UP, volume=2_000), lies_elsewhere], address=ONE)
    assert answer.status_code == 202
    assert [r["verdict"] for r in answer.json()["results"]] == ["held", "refused"]


def test_an_internal_peers_bar_needs_no_second(market: Store) -> None:
    market.merge([a_bar(price=UP, volume=2_000)], Authority.INTERNAL)
    assert served()["close"] == UP
    assert not Actor.objects.filter(status="BANNED").exists()
