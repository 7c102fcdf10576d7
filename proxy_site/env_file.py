"""The file .env has lines NAME=value, which are read as people and editors write them.

Blanks around a line, ``export`` before it, a byte order mark, the line ends of Windows and a pair
of quotes around a value are left off. What can be no such line ends the process with a message that
gives its number and never shows it, since it may hold a secret.
"""

import difflib
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

# Names that are in use in lower case too.
PROXY_NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
# How alike (by difflib) an unknown name and a setting's are when the second was probably meant.
ALIKE = 0.75
# The same, of a setting that is missing: no two settings that aren't proxies are so alike.
VERY_ALIKE = 0.85

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_0-9]+)=(.*)")
_COMMENT = re.compile(r"\s#")
_ESCAPED = re.compile(r"\\([^rnt])")


@dataclass(slots=True)
class EnvFile:
    """What a file sets: ``values`` and ``lines`` (numbers) by name, and ``remarks`` on it."""

    path: Path
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def alike(self, name: str, known: Collection[str]) -> str:
        """Say which line may have been meant to set ``name``, which isn't set; "" if none."""
        unknown = set(self.lines) - set(known)
        near = difflib.get_close_matches(name, unknown, n=1, cutoff=VERY_ALIKE)
        return f"; line {self.lines[near[0]]} of {self.path} sets {near[0]}" if near else ""

    def misspelt(self, known: Collection[str]) -> list[str]:
        """Return a line for each name that is none of ``known``, but looks like one of them."""
        return [
            f"line {number} of {self.path} sets {name}, which is no setting; "
            f"{near[0]} may have been meant"
            for name, number in self.lines.items()
            if name not in known
            and (near := difflib.get_close_matches(name.upper(), known, n=1, cutoff=ALIKE))
        ]


def is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True


def read(path: Path) -> EnvFile:
    """Read the file; what is neither a file nor a folder, such as /dev/null, sets nothing."""
    found = EnvFile(path)
    for number, line in enumerate(_text(path).split("\n"), start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            _add(found, number, text)
    return found


def _text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _refusal(f"{path} is a folder: make it a file, or name another one in ENV_FILE")
        content = path.read_bytes() if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _refusal(
            f"{path} can't be read ({error.strerror}): make it readable for this user, or name "
            "another file in ENV_FILE"
        ) from None
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refusal(f"line {line} of {path} isn't UTF-8: save the file as UTF-8") from None


def _add(found: EnvFile, number: int, text: str) -> None:
    line = f"line {number} of {found.path}"
    match = _LINE.fullmatch(text)
    if match is None:
        raise _refusal(
            f"{line} isn't NAME=value (no spaces around the name, comments on lines of their own). "
            "Example: PORT=3000"
        )
    name = match[1].upper() if match[1].upper() in PROXY_NAMES else match[1]
    value = _value(match[2], line)
    if found.values.get(name, value) != value:
        found.remarks.append(
            f"{line} sets {name} again, after line {found.lines[name]}; the later one counts"
        )
    found.values[name], found.lines[name] = value, number


def _value(text: str, line: str) -> str:
    value = text.strip()
    quote = value[:1]
    if quote in ("'", '"'):
        if len(value) < 2 or not value.endswith(quote):
            raise _refusal(
                f"{line} has a value that begins with a quote and doesn't end with it (comments "
                "are on lines of their own)"
            )
        inner = value[1:-1]
        return inner if quote == "'" else _ESCAPED.sub(r"\1", inner)
    if _COMMENT.search(text):
        raise _refusal(
            f"{line} has a comment after its value: write it on a line of its own, or put quotes "
            "around a value with a # in it"
        )
    return value


def _refusal(problem: str) -> SystemExit:
    return SystemExit(f"aipriceaction-proxy: {problem}")
