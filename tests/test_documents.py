"""Documents name tests as proof, and files to change: each of them is there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
RELIABILITY = ROOT / "docs" / "reliability.md"
SECURITY = ROOT / "SECURITY.md"
_TEST = re.compile(r"`([a-z_/]+\.py(?:::\w+)+)`")
_FILE = re.compile(r"`([a-z_/]+\.py)`")
# Its tables are figures: tests.security.test_sybils computes them.
_COSTS = re.compile(r"^## What moving one price costs.*?(?=^## )", re.DOTALL | re.MULTILINE)


def security() -> str:
    return SECURITY.read_text(encoding="utf-8")


IN_RELIABILITY = _TEST.findall(RELIABILITY.read_text(encoding="utf-8"))
IN_SECURITY = _TEST.findall(security())
NAMED = list(dict.fromkeys([*IN_RELIABILITY, *IN_SECURITY]))


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


def test_every_attack_names_its_proof() -> None:
    attacks = _COSTS.sub("", security())
    rows = [line for line in attacks.splitlines() if re.match(r"\| (?!---|who |attack )", line)]
    assert len(rows) > 10
    assert [row for row in rows if not _TEST.search(row) and not _FILE.search(row)] == []


def test_files_that_are_named_as_proof_exist() -> None:
    missing = [file for file in _FILE.findall(security()) if not (TESTS / file).is_file()]
    assert missing == []


@pytest.mark.parametrize(
    ("document", "named"), [(RELIABILITY, IN_RELIABILITY), (SECURITY, IN_SECURITY)]
)
def test_slow_tests_are_marked_slow_and_no_others(document: Path, named: list[str]) -> None:
    marked = set(re.findall(r"\*slow\* `([^`]+)`", document.read_text(encoding="utf-8")))
    assert marked == {test for test in named if is_slow(test)}


def is_slow(test: str) -> bool:
    file, *names = test.split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    of_file = any(
        isinstance(node, ast.Assign) and ast.unparse(node) == "pytestmark = pytest.mark.slow"
        for node in tree.body
    )
    return of_file or any(
        isinstance(node, ast.FunctionDef)
        and node.name == names[-1]
        and any("mark.slow" in ast.unparse(mark) for mark in node.decorator_list)
        for node in ast.walk(tree)
    )


# --- Documents for who changes the code -----------------------------------------------------------

FOR_DEVELOPERS = [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"]
_PATH = re.compile(r"`(\.?[\w.-]*[\w-]/[\w./-]*|[\w.-]+\.(?:py|lua|md|lock|toml|csv|conf))`")


def paths(document: Path) -> list[str]:
    """What stands in backquotes and looks like a path of the repository."""
    return list(dict.fromkeys(_PATH.findall(document.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("document", FOR_DEVELOPERS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    assert len(paths(document)) > 10
    assert [path for path in paths(document) if not (ROOT / path).exists()] == []


def test_a_change_leads_to_files_and_tests() -> None:
    """The table "To change something": each row names what to edit, and a test that knows it."""
    _, _, table = FOR_DEVELOPERS[0].read_text(encoding="utf-8").partition("## To change something")
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| ")][1:]
    rows = [row for row in rows if not row[0].startswith(" ---")]
    assert len(rows) >= 15
    for what, edit, test in rows:
        assert _PATH.search(edit), what
        assert re.search(r"`tests/[\w/]+\.py`", test), what


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_the_architecture_is_linked(document: str) -> None:
    assert "docs/architecture.md" in (ROOT / document).read_text(encoding="utf-8")
