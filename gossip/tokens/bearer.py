"""Bearer tokens, by which internal peers are known.

A node sends with its primary token and accepts its primary and its secondary, so that a network
rotates them without refusing a bar.
"""

import hashlib
import hmac
from collections.abc import Sequence

from django.views.decorators.debug import sensitive_variables

TOKEN_BYTES = 32  # random bytes that a new token is made of


@sensitive_variables()
def is_valid(authorization: str, tokens: Sequence[str]) -> bool:
    """Tell whether an Authorization header has one of ``tokens`` (RFC 6750: ``Bearer TOKEN``).

    Every token is compared, each in constant time.
    """
    scheme, _, given = authorization.partition(" ")
    secret = given.strip(" ").encode(errors="surrogatepass")
    if scheme.lower() != "bearer" or not secret:
        return False
    matches = [hmac.compare_digest(secret, token.encode()) for token in tokens]
    return any(matches)


def fingerprint(token: str) -> str:
    """Return 8 hex digits (of the SHA-256) that tell tokens apart without showing them."""
    return hashlib.sha256(token.encode()).hexdigest()[:8]
