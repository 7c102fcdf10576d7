"""Evidence: what an actor sent, kept with the change of status that it caused.

The sender chose its contents, so it is bounded in size, and reduced to what every database holds.
"""

import json

MAX_EVIDENCE = 2_000  # bytes of its JSON text, in ASCII
# An excerpt is escaped JSON text that is escaped again, which doubles it at worst.
_EXCERPT = MAX_EVIDENCE // 2 - 100

# Python's JSON reader takes NUL and halves of surrogate pairs, PostgreSQL's jsonb refuses them.
# Whole pairs become excerpts too: telling them apart isn't worth code.
_NOT_STORABLE = ("\\u0000", "\\ud8", "\\ud9", "\\uda", "\\udb", "\\udc", "\\udd", "\\ude", "\\udf")


def bounded(evidence: object) -> object:
    """Return ``evidence`` as it is if its JSON has at most ``MAX_EVIDENCE`` bytes; else an excerpt.

    The excerpt is ``{"excerpt": the first part of its JSON text, "bytes": its length}``.
    Objects that JSON doesn't know are stored as their ``str``.
    """
    try:
        text = json.dumps(evidence, default=str, separators=(",", ":"))
    except RecursionError:
        return {"excerpt": "nested too deeply to be written down"}
    if len(text) <= MAX_EVIDENCE and _is_storable(text):
        return json.loads(text)
    return {"excerpt": text[:_EXCERPT], "bytes": len(text)}


def _is_storable(text: str) -> bool:
    if any(escape in text for escape in _NOT_STORABLE):
        return False
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} isn't JSON")


def lines(evidence: object) -> list[str]:
    """Return kept evidence for people: a line for each thing that was sent."""
    if not evidence:
        return []
    if isinstance(evidence, list):
        return [line for entry in evidence for line in lines(entry)]
    if isinstance(evidence, str):
        return [evidence]
    if isinstance(evidence, dict) and "excerpt" in evidence:
        whole = f"the beginning of {evidence['bytes']} bytes" if "bytes" in evidence else ""
        return [line for line in (evidence["excerpt"], whole) if line]
    return [json.dumps(evidence)]
