"""How far a rotation has come: what peers of any kind answer, and what follows from it."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gossip.tokens import rotation
from gossip.tokens.rotation import QUIET, Look, Reaction, advise, look_at, reaction_to
from gossip.wire import decode
from tests.support.proxies import Answer, Door, Reply, Request
from tickers.bar import Bar

PRIMARY, SECONDARY = "rotation-primary-1", "rotation-secondary-1"
A, R = Reaction.ACCEPTS, Reaction.REFUSES


def takes(*tokens: str, then: int) -> Answer:
    """A door that answers ``then`` to these tokens, and 401 to others."""
    return lambda request: Reply(
        then if request.authorization in [f"Bearer {token}" for token in tokens] else 401
    )


def old_node(*tokens: str) -> Answer:
    """As existing Rust nodes: a body that isn't one bar of theirs is refused before the token is
    looked at; the symbol is optional."""
    fields = {"time", "open", "high", "low", "close", "volume"}

    def answer(request: Request) -> Reply:
        body = json.loads(request.body)
        if not isinstance(body, dict) or set(body) - {"symbol"} != fields:
            return Reply(422)
        return takes(*tokens, then=200)(request)

    return answer


@contextmanager
def looked_at(answer: Answer) -> Iterator[tuple[Look, Door]]:
    with Door(answer) as door:
        (look,) = look_at([door.url], primary=PRIMARY, secondary=SECONDARY)
        yield look, door


@pytest.mark.parametrize(
    "door", [lambda *tokens: takes(*tokens, then=400), old_node], ids=["ours", "old"]
)
@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ((PRIMARY, SECONDARY), (A, A)),
        ((PRIMARY,), (A, R)),
        ((SECONDARY,), (R, A)),
        ((), (R, R)),
    ],
)
def test_a_peer_tells_which_tokens_it_accepts(
    door: Callable[..., Answer], tokens: tuple[str, ...], expected: tuple[Reaction, Reaction]
) -> None:
    with looked_at(door(*tokens)) as (look, _):
        assert (look.primary, look.secondary) == expected


@pytest.mark.parametrize("status", [200, 400, 422])
def test_a_door_that_takes_anything_proves_nothing(status: int) -> None:
    with looked_at(lambda request: Reply(status)) as (look, _):
        assert (look.primary, look.secondary) == (Reaction.UNCLEAR, Reaction.UNCLEAR)
        assert "made-up token" in look.why


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, Reaction.UNREACHABLE),
        (301, Reaction.UNCLEAR),
        (404, Reaction.UNCLEAR),
        (429, Reaction.BUSY),
        (502, Reaction.UNREACHABLE),
    ],
)
def test_other_answers_say_nothing_of_the_token(status: int | None, expected: Reaction) -> None:
    with looked_at(lambda request: Reply(status)) as (look, _):
        assert look.primary is expected
        assert look.why
        assert not advise([look], secondary_used=None).safe


def test_a_peer_that_is_away_is_named_by_its_address() -> None:
    with Door() as door:
        url = door.url
    (look,) = look_at([f"{url}/node"], primary=PRIMARY, secondary=SECONDARY)
    assert look.name == url.removeprefix("http://")
    assert look.primary is look.secondary is Reaction.UNREACHABLE


def test_the_probe_is_no_bar_of_ours() -> None:
    """So that it is refused, with 400, whatever becomes of the rules for bars."""
    (entry,) = decode(rotation.PROBE).entries
    assert not isinstance(entry, Bar)
    assert reaction_to(400) is Reaction.ACCEPTS


def looks(*pairs: tuple[Reaction, Reaction]) -> list[Look]:
    return [Look(f"node-{n}:443", *pair, why="why") for n, pair in enumerate(pairs)]


def test_it_is_safe_only_when_every_peer_accepts_both() -> None:
    pairs = list(itertools.product(Reaction, Reaction))
    for one, other in itertools.product(pairs, pairs):
        safe = advise(looks(one, other), secondary_used=None).safe
        assert safe == (one == other == (A, A))


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (((A, A), (A, R)), "step 1 (or 3) isn't done on these: node-1:443."),
        (((R, A), (A, A)), "these refuse the primary token, which this node sends: node-0:443."),
        (((A, A), (A, Reaction.BUSY)), "can't tell what these accept: node-1:443 (why)."),
        (((A, A), (A, A)), "swap the two now"),
        ((), "sends to no internal peer"),
    ],
)
def test_it_says_what_to_do_next(pairs: tuple[tuple[Reaction, Reaction], ...], says: str) -> None:
    assert says in " ".join(advise(looks(*pairs), secondary_used=None).lines)


@pytest.mark.parametrize(
    ("used", "says"),
    [
        (3.0, "3 s ago: keep it"),
        (QUIET - 1, "5 min ago: keep it"),
        (QUIET, "5 min ago. If it is the old one"),
        (None, "for a day. If it is the old one"),
    ],
)
def test_the_old_token_stays_while_a_peer_sends_with_it(used: float | None, says: str) -> None:
    assert says in " ".join(advise(looks((A, A)), secondary_used=used).lines)
