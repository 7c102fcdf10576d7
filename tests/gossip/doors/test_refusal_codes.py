"""Every refusal of a door has a code that stays, whatever its text says."""

from typing import Any

import pytest

from gossip.wire import Code
from reputation.transitions import OperatorEvent
from tests.support.doors import (
    TODAY,
    USUAL_VOLUME,
    YESTERDAY,
    by_operator,
    send_public,
    send_trusted,
    wire,
)
from tickers.store.store import Store

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (wire("ZZZ"), Code.UNKNOWN_SYMBOL),
        (wire("FPT"), Code.NO_ANCHOR),
        (wire(day=YESTERDAY), Code.OTHER_DAY),
        (wire(volume=50 * USUAL_VOLUME + 1), Code.HUGE_VOLUME),
        (wire(price=80_000), Code.IMPLAUSIBLE_PRICE),
        (wire(volume=1.5), Code.INVALID_BAR),
        (b"{", Code.INVALID_BODY),
        ([wire()] * 1_001, Code.LIST_TOO_LONG),
    ],
)
def test_a_public_bar_that_is_refused_is_told_the_code(
    body: object, code: Code, market: Store
) -> None:
    assert send_public(body).json()["code"] == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (wire(day=TODAY.replace(day=16)), Code.FUTURE_DAY),
        (wire(day=TODAY.replace(year=2023)), Code.BEFORE_HISTORY),
        (wire(low=0), Code.INVALID_BAR),
    ],
)
def test_a_trusted_bar_that_is_refused_is_told_the_code(
    body: object, code: Code, market: Store
) -> None:
    assert send_trusted(body).json()["code"] == code


def test_a_volume_below_what_is_served_is_told_the_code(market: Store) -> None:
    send_public(wire(price=65_000))
    refusal = send_public(wire(price=65_000, volume=USUAL_VOLUME - 1))
    assert refusal.json()["code"] == Code.SMALLER_VOLUME


def test_a_list_names_the_code_of_each_refused_bar(market: Store) -> None:
    results = send_public([wire(), wire("ZZZ"), wire("PVS", price=1)]).json()["results"]
    assert [result.get("code") for result in results] == [
        None,
        Code.UNKNOWN_SYMBOL,
        Code.IMPLAUSIBLE_PRICE,
    ]


def test_a_banned_sender_is_told_the_code(market: Store) -> None:
    by_operator(OperatorEvent.BAN)
    assert send_public(wire()).json()["code"] == Code.BANNED


def test_a_sender_beyond_its_rate_is_told_the_code(market: Store, settings: Any) -> None:
    settings.PUBLIC_RATE = "1/1h"
    send_public(wire())
    assert send_public(wire()).json()["code"] == Code.RATE_LIMITED


def test_a_closed_window_is_told_the_code(empty_market: Store) -> None:
    assert send_public(wire()).json()["code"] == Code.UNTRUSTED_DATA


def test_a_wrong_token_is_told_the_code(market: Store) -> None:
    assert send_trusted(wire(), token="no-token-of-ours").json()["code"] == Code.INVALID_TOKEN
