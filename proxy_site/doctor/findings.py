"""Findings: what the doctor saw, how bad it is, and what helps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad a finding is; the worst one is the command's exit code."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's; ``remedy`` is "" for what is fine."""

    check: str
    severity: Severity
    text: str
    remedy: str = ""

    def line(self) -> str:
        told = f"{self.severity.name.lower():7}  {self.check:12}  {self.text}"
        return f"{told}; remedy: {self.remedy}" if self.remedy else told

    def as_json(self) -> dict[str, str]:
        return {
            "check": self.check,
            "severity": self.severity.name.lower(),
            "text": self.text,
            "remedy": self.remedy,
        }


def ok(check: str, text: str) -> Finding:
    return Finding(check, Severity.OK, text)


def warning(check: str, text: str, remedy: str = "") -> Finding:
    return Finding(check, Severity.WARNING, text, remedy)


def error(check: str, text: str, remedy: str = "") -> Finding:
    return Finding(check, Severity.ERROR, text, remedy)


def worst(findings: Iterable[Finding]) -> Severity:
    return max((finding.severity for finding in findings), default=Severity.OK)


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "status": worst(findings).name.lower(),
        "findings": [finding.as_json() for finding in findings],
    }


def split_remedy(reason: str) -> tuple[str, str]:
    """Return a reason's text and its remedy, which follows the last colon."""
    text, colon, remedy = reason.rpartition(": ")
    return (text, remedy) if colon else (reason, "")
