"""The public door while a trusted source says what can't be right of a symbol."""

import pytest

from tests.support.doors import send_public, wire
from tickers.store.store import Store
from tickers.suspects import Reason, Suspect

pytestmark = pytest.mark.django_db


def test_a_public_bar_of_a_suspect_is_of_no_use_and_of_others_it_is(market: Store) -> None:
    fence = market.acquire_lease(600)
    assert fence
    suspect = Suspect(market.now(), Reason.BEYOND)
    market.note_suspects({"VCB": suspect}, fence=fence)
    answer = send_public(wire("VCB"))
    assert (answer.status_code, answer.json()["code"]) == (422, "suspect_symbol")
    assert send_public(wire("ACV")).status_code == 200
    market.note_suspects({"VCB": None}, fence=fence)
    assert send_public(wire("VCB")).status_code == 200
