import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.tokens.bearer import fingerprint, is_valid

PRIMARY, SECONDARY = "correct-horse-battery", "staple-of-the-exchange"
TOKENS = (PRIMARY, SECONDARY)


@pytest.mark.parametrize("token", TOKENS)
def test_both_tokens_are_valid(token: str) -> None:
    assert is_valid(f"Bearer {token}", TOKENS)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "BeArEr"])
def test_the_schemes_case_doesnt_matter(scheme: str) -> None:
    assert is_valid(f"{scheme} {PRIMARY}", TOKENS)


@pytest.mark.parametrize("blanks", ["  ", "     "])
def test_more_than_one_space_may_part_scheme_and_token(blanks: str) -> None:
    """RFC 9110: credentials are a scheme, 1*SP, and the token."""
    assert is_valid(f"Bearer{blanks}{PRIMARY}", TOKENS)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        " ",
        PRIMARY,
        "Bearer",
        "Bearer ",
        "Bearer     ",
        f"Bearer{PRIMARY}",
        f"Bearer\t{PRIMARY}",
        f"Bearer \t{PRIMARY}",
        f"Bearer\xa0{PRIMARY}",
        f"Bearer {PRIMARY}\xa0",
        f"Bearer {PRIMARY}\n",
        f"Basic {PRIMARY}",
        f"Token {PRIMARY}",
        f"Bearer Bearer {PRIMARY}",
        f"Bearer {PRIMARY} {SECONDARY}",
        f"Bearer {PRIMARY},{SECONDARY}",
        f"Bearer {PRIMARY}{SECONDARY}",
        f"Bearer {PRIMARY.upper()}",
        f"Bearer {PRIMARY[:-1]}",
        f"Bearer {PRIMARY}x",
        f"Bearer x{PRIMARY}",
        f"Bearer {PRIMARY}\0",
        f'Bearer "{PRIMARY}"',
        "Bearer corr\xe9ct-horse-battery",
        "Bearer \u4e2d\u6587",
        "Bearer \ud800",
        f"Bearer {PRIMARY * 50_000}",
    ],
)
def test_anything_else_is_refused(authorization: str) -> None:
    assert not is_valid(authorization, TOKENS)


@given(st.text())
def test_no_text_is_a_token_but_the_tokens(text: str) -> None:
    assert not is_valid(text, TOKENS)
    assert is_valid(f"Bearer {text}", TOKENS) == (text.strip(" ") in TOKENS)


@pytest.mark.parametrize("given", [PRIMARY, SECONDARY, "wrong"])
def test_each_is_compared_in_constant_time_whichever_fits(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long it takes must not tell which one, or how much of one, was right."""
    compared = []
    compare = hmac.compare_digest

    def note(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", note)
    is_valid(f"Bearer {given}", TOKENS)
    assert compared == [(given.encode(), token.encode()) for token in TOKENS]


def test_a_fingerprint_tells_tokens_apart_and_shows_none() -> None:
    assert fingerprint(PRIMARY) != fingerprint(SECONDARY)
    assert len(fingerprint(PRIMARY)) == 8
    assert fingerprint("abc") == "ba7816bf"  # as sha256sum says
