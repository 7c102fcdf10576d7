"""The file .env, read as people and editors write it, and refused by the number of a line."""

import errno
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_site.env_file import EnvFile, is_there, read

NAMES = ["LOG_LEVEL", "TRUSTED_PROXIES", "CORE_NETWORK_URL", "PORT", "VCI_BASE_URL"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "node.env"


def refusal(file: Path) -> str:
    with pytest.raises(SystemExit) as caught:
        read(file)
    line = str(caught.value)
    assert line.startswith("aipriceaction-proxy: ")
    assert "\n" not in line
    return line


class TestLines:
    @pytest.mark.parametrize(
        "content",
        [
            b"PORT=4000",
            b"PORT=4000\n",
            b"\xef\xbb\xbfPORT=4000\n",
            b"\xef\xbb\xbf# a comment\nPORT=4000\n",
            b"   \n\t\nPORT=4000\n \n",
            b"PORT=4000\r\n",
            b"\r\nPORT=4000\r\n\r\n",
            b"PORT=4000\rNODE_NAME=x",
            b"  PORT=4000  \n",
            b"PORT= 4000\n",
            b"export PORT=4000\n",
            b"export  \tPORT=4000\n",
            b"  # a comment\nPORT=4000\n",
            b"PORT='4000'\n",
            b'PORT="4000"  \n',
            b"PORT=3000\nPORT=4000\n",
        ],
    )
    def test_are_taken_as_people_and_editors_write_them(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        assert read(file).values["PORT"] == "4000"

    @pytest.mark.parametrize(
        ("line", "value"),
        [
            ("X=", ""),
            ("X=a=b", "a=b"),
            ("X=p#ss", "p#ss"),
            ("X=#1", "#1"),
            ("X='two # words'", "two # words"),
            ("X=it's", "it's"),
            (r'X="a \"b\" \\ \n"', r'a "b" \ \n'),
            (r"X='a \n'", r"a \n"),
            ("X=$Y", "$Y"),
            ("X=giá", "giá"),
            ("X=a\x85b\u2028c", "a\x85b\u2028c"),
        ],
    )
    def test_have_their_value_to_the_end(self, file: Path, line: str, value: str) -> None:
        file.write_text(line, encoding="utf-8")
        assert read(file).values == {"X": value}

    def test_of_proxies_may_be_in_lower_case(self, file: Path) -> None:
        file.write_text("https_proxy=http://a.test\nport=1\n")
        assert read(file).values == {"HTTPS_PROXY": "http://a.test", "port": "1"}

    @given(st.text(st.sampled_from("aA_=#'\"\\ \t\r\n\ufeff"), max_size=24))
    def test_are_taken_or_refused_whatever_they_are(self, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "node.env"
            file.write_bytes(text.encode())
            try:
                found = read(file)
            except SystemExit as error:
                refused = str(error)
            else:
                refused = ""
                assert found.values.keys() == found.lines.keys()
            assert re.fullmatch(r"(aipriceaction-proxy: line [0-9]+ of /\S+ .*)?", refused)


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "number", "problem"),
        [
            (b"A=1\nPORT = hunter2", 2, "isn't NAME=value"),
            (b"\r\n\r\nPORT: hunter2", 3, "isn't NAME=value"),
            (b"hunter2", 1, "isn't NAME=value"),
            (b"A-B=hunter2", 1, "isn't NAME=value"),
            (b"A='hunter2", 1, "a quote"),
            (b"A=\"hunter2'", 1, "a quote"),
            (b"A='", 1, "a quote"),
            (b"A='hunter2' # a comment", 1, "a quote"),
            (b"A=hunter2 # a comment", 1, "a comment after its value"),
            (b"A=  # hunter2", 1, "a comment after its value"),
            (b"A=1\nB=caf\xe9 hunter2", 2, "isn't UTF-8: save the file as UTF-8"),
            ("A=hunter2\n".encode("utf-16"), 1, "isn't UTF-8"),
        ],
    )
    def test_name_the_line_and_never_show_it(
        self, file: Path, content: bytes, number: int, problem: str
    ) -> None:
        file.write_bytes(content)
        line = refusal(file)
        assert f"line {number} of {file} " in line
        assert problem in line
        assert "hunter2" not in line

    def test_a_folder_in_its_place_is_named(self, file: Path) -> None:
        file.mkdir()
        assert f"{file} is a folder: make it a file, or name another one in ENV_FILE" in refusal(
            file
        )

    def test_a_file_that_may_not_be_read_is_named(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        file.write_text("PORT=4000\n")
        monkeypatch.setattr(Path, "stat", refuse)  # root, who runs tests in containers, may read it
        assert is_there(file)
        assert f"{file} can't be read (Permission denied): make it readable" in refusal(file)

    def test_what_is_not_there_sets_nothing(self, file: Path) -> None:
        assert not is_there(file)
        assert read(file) == EnvFile(file)
        assert read(Path(os.devnull)).values == {}


class TestRemarks:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("LOGLEVEL", "LOG_LEVEL"),
            ("log_level", "LOG_LEVEL"),
            ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
            ("TRUST_PROXIES", "TRUSTED_PROXIES"),
            ("CORE_NETWORK_URLS", "CORE_NETWORK_URL"),
            ("port", "PORT"),
            ("VCI_BASEURL", "VCI_BASE_URL"),
        ],
    )
    def test_a_name_that_looks_like_a_setting_is_told_with_the_nearest(
        self, file: Path, name: str, meant: str
    ) -> None:
        file.write_text(f"# a comment\n{name}=hunter2\n")
        assert read(file).misspelt(NAMES) == [
            f"line 2 of {file} sets {name}, which is no setting; {meant} may have been meant"
        ]

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "POSTGRES_PASSWORD",
                "COMPOSE_PROJECT_NAME",
                "WEB_CONCURRENCY",
                "SSL_CERT_FILE",
                "TZ",
            ),
            *("DJANGO_SETTINGS_MODULE", "REDIS_PASSWORD", "PYTHONUNBUFFERED", *NAMES),
        ],
    )
    def test_names_of_other_programs_and_of_settings_are_not(self, file: Path, name: str) -> None:
        file.write_text(f"{name}=1\n")
        assert read(file).misspelt(NAMES) == []

    def test_a_name_that_comes_twice_is_told_unless_both_say_the_same(self, file: Path) -> None:
        file.write_text("A=1\nB=hunter2\nA=1\nB=hunter3\n")
        found = read(file)
        assert found.values == {"A": "1", "B": "hunter3"}
        assert found.remarks == [
            f"line 4 of {file} sets B again, after line 2; the later one counts"
        ]
