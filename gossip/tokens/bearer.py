"""The token that trusted peers prove themselves with.

Two are accepted, so that a network rotates them without refusing a bar: a node sends with its
primary, and takes both.
"""

import hashlib
import hmac
from collections.abc import Sequence

from django.views.decorators.debug import sensitive_variables

MADE_BY = 32  # random bytes of a token


@sensitive_variables()
def is_valid(authorization: str, tokens: Sequence[str]) -> bool:
    """Whether an Authorization header carries one of ``tokens`` (RFC 6750: ``Bearer TOKEN``).

    Every token is compared, each in constant time.
    """
    scheme, _, given = authorization.partition(" ")
    secret = given.strip(" ").encode(errors="surrogatepass")
    if scheme.lower() != "bearer" or not secret:
        return False
    matches = [hmac.compare_digest(secret, token.encode()) for token in tokens]
    return any(matches)


def fingerprint(token: str) -> str:
    """Tells tokens apart without showing them: the first 8 hex digits of the SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()[:8]
