"""manage.py rotate_token, apart from what peers answer (tests/gossip/tokens/test_rotation.py) and a
whole rotation (tests/network/test_token_rotation.py)."""

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.core.management import call_command

from gossip.tokens import bearer
from tests.support.doors import forget, store_away
from tests.support.proxies import Door


@pytest.fixture(autouse=True)
def node(clean_server: redis.Redis) -> Iterator[None]:
    forget()
    yield
    forget()


def rotate_token(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("rotate_token", *arguments, stdout=out)
    except SystemExit as left:
        return int(str(left.code)), out.getvalue()
    return 0, out.getvalue()


def test_a_new_token_is_printed_alone_and_never_twice() -> None:
    tokens = {rotate_token("--new") for _ in range(3)}
    assert len(tokens) == 3
    for code, text in tokens:
        assert code == 0
        assert re.fullmatch(r"[0-9a-f]{64}\n", text)


def test_it_tells_this_nodes_tokens_by_fingerprint_and_the_steps(settings: Any) -> None:
    code, text = rotate_token()
    assert code == 0
    for secret in (settings.PRIMARY_TOKEN, settings.SECONDARY_TOKEN):
        assert bearer.fingerprint(secret) in text
        assert secret not in text
    assert [int(n) for n in re.findall(r"^  (\d)\. ", text, re.MULTILINE)] == [1, 2, 3]
    assert "no internal peers" in text


def test_it_tells_each_peer_in_a_row(settings: Any) -> None:
    with Door() as away:
        url = away.url
    settings.INTERNAL_PEER_URLS = [url]
    code, text = rotate_token()
    assert code == 1
    assert re.search(rf"^{url[7:]}  unreachable  unreachable  \w", text, re.MULTILINE)
    assert "Not safe to go on" in text


def test_a_public_node_asks_nobody(settings: Any) -> None:
    with Door() as door:
        settings.INTERNAL_PEER_URLS, settings.IS_PUBLIC_NODE = [door.url], True
        assert rotate_token()[0] == 0
        assert door.seen == []


def test_without_the_store_it_isnt_safe(settings: Any) -> None:
    with store_away(settings):
        code, text = rotate_token()
    assert code == 1
    assert "the store can't be asked" in text
