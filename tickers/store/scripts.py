"""This module loads and calls Lua scripts, and turns their refusals into exceptions.

A script is one or more files joined in order, shared parts first. It gets one key (KEYS[1], the
root of the names it makes), a header as its first argument, and values after it. The header is a
JSON object, so that both sides use names; Lua decodes it and never encodes one (its encoder cuts
2^53 - 1 short). Its numbers are doubles, exact below 2^53. A value that there isn't is left out, as
JSON's null would not be nil in Lua.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import redis

_SEPARATORS = ",", ":"


class StoreError(Exception):
    """The store refuses a request; the message says why."""


class FencedError(StoreError):
    """A write was begun under a lease that is no longer the current one."""


class Script:
    """A script of these files on ``client``'s server.

    Only its hash is sent, unless the server doesn't know the script yet.
    """

    def __init__(self, client: "redis.Redis", *files: Path, key: str) -> None:
        self._call: Any = client.register_script(
            "\n".join(file.read_text(encoding="utf-8") for file in files)
        )
        self._key = key

    def __call__(self, header: Mapping[str, object], values: Iterable[Any] = ()) -> Any:
        """Run the script and return its result.

        Raises FencedError, and what redis raises (OutOfMemoryError for a write that the server has
        no memory for).
        """
        said = json.dumps(header, separators=_SEPARATORS)
        try:
            return self._call(keys=[self._key], args=[said, *values])
        except redis.ResponseError as error:
            if "FENCED" in str(error):
                raise FencedError("the lease is held by another worker now") from error
            raise
