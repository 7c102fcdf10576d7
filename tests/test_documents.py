"""Documents name tests as proof: each of them is there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
RELIABILITY = TESTS.parent / "docs" / "reliability.md"
NAMED = re.findall(r"`([a-z_/]+\.py(?:::\w+)+)`", RELIABILITY.read_text(encoding="utf-8"))


def defined(path: Path, names: list[str]) -> bool:
    """Whether the file defines names[0], and in it names[1], and so on."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for name in names:
        found = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
        ]
        if not found:
            return False
        body = found[-1].body
    return True


@pytest.mark.parametrize("test", NAMED)
def test_a_test_that_is_named_as_proof_exists(test: str) -> None:
    file, *names = test.split("::")
    assert (TESTS / file).is_file(), file
    assert names[-1].startswith("test_")
    assert defined(TESTS / file, names), names


def test_every_promise_names_its_proof() -> None:
    text = RELIABILITY.read_text(encoding="utf-8")
    promises = [
        paragraph
        for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]
        for paragraph in re.split(r"^- ", part.split("Not promised")[0], flags=re.MULTILINE)[1:]
    ]
    assert len(promises) > 20
    assert [promise for promise in promises if "::test_" not in promise] == []


def test_slow_tests_are_marked_slow_and_no_others() -> None:
    text = RELIABILITY.read_text(encoding="utf-8")
    marked = set(re.findall(r"\*slow\* `([^`]+)`", text))
    slow = {test for test in NAMED if is_slow(test)}
    assert marked == slow


def is_slow(test: str) -> bool:
    file, *names = test.split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.FunctionDef)
        and node.name == names[-1]
        and any("mark.slow" in ast.unparse(mark) for mark in node.decorator_list)
        for node in ast.walk(tree)
    )
