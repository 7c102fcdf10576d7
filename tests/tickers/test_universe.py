"""The universe: the file that comes with the node, and what a file of an operator's may hold."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from tickers.universe import DEFAULT_FILE, Exchange, Universe, UniverseError, looks_like_symbol


@pytest.fixture(scope="module")
def universe() -> Universe:
    return Universe.read()


def write(folder: Path, *lines: str, encoding: str = "utf-8") -> Path:
    file = folder / "universe.csv"
    file.write_text("\n".join(lines), encoding=encoding)
    return file


class TestTheNodesOwn:
    def test_it_has_287_symbols_by_exchange(self, universe: Universe) -> None:
        assert len(universe) == 287
        assert Counter(entry.exchange for entry in universe) == {
            Exchange.HOSE: 200,
            Exchange.HNX: 48,
            Exchange.UPCOM: 38,
            Exchange.INDEX: 1,
        }

    def test_each_symbol_is_listed_once_and_looks_like_one(self, universe: Universe) -> None:
        lines = DEFAULT_FILE.read_text(encoding="utf-8").splitlines()[1:]
        assert [line.split(",")[0] for line in lines] == universe.symbols
        assert all(looks_like_symbol(symbol) for symbol in universe.symbols)

    def test_it_says_where_a_symbol_is_listed(self, universe: Universe) -> None:
        assert universe.exchange("VCB") is Exchange.HOSE
        assert universe.exchange("VNINDEX") is Exchange.INDEX
        assert universe.exchange("CAMEBYGOSSIP") is None
        assert "VCB" in universe
        assert "vcb" in universe
        assert universe.exchange("vnindex") is Exchange.INDEX
        assert "CAMEBYGOSSIP" not in universe

    def test_sectors_hold_every_symbol_once_in_order(self, universe: Universe) -> None:
        sectors = universe.sectors()
        assert list(sectors) == sorted(sectors)
        assert all(symbols == sorted(symbols) for symbols in sectors.values())
        assert sorted(itertools.chain(*sectors.values())) == sorted(universe.symbols)


class TestChoosing:
    def test_a_choice_keeps_the_files_order_and_folds_case(self, universe: Universe) -> None:
        chosen = universe.only(["vnindex", "FPT", "aaa", "FPT"])
        assert sorted(chosen.symbols) == ["AAA", "FPT", "VNINDEX"]
        assert chosen.symbols == [name for name in universe.symbols if name in chosen]

    def test_unknown_symbols_are_named(self, universe: Universe) -> None:
        with pytest.raises(UniverseError, match=r"doesn't list: NOPE, ZZZZ$"):
            universe.only(["VCB", "zzzz", "nope"])


class TestFiles:
    def test_case_and_spaces_and_other_columns_dont_matter(self, tmp_path: Path) -> None:
        file = write(tmp_path, "name,sector,symbol,exchange", 'x,"BANKS, BIG", vcb , hose ')
        (entry,) = Universe.read(file)
        assert (entry.symbol, entry.exchange, entry.sector) == ("VCB", Exchange.HOSE, "BANKS, BIG")

    def test_a_symbol_without_sector_is_among_the_others(self, tmp_path: Path) -> None:
        file = write(tmp_path, "symbol,exchange,sector", "VCB,HOSE,")
        assert Universe.read(file).sectors() == {"OTHERS": ["VCB"]}

    def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_column(self, tmp_path: Path) -> None:
        file = write(tmp_path, "symbol,exchange,sector", "VCB,HOSE,B", encoding="utf-8-sig")
        assert Universe.read(file).symbols == ["VCB"]

    def test_the_upstreams_spelling_is_kept_as_it_is(self, tmp_path: Path) -> None:
        lines = ["hnxindex,INDEX,INDEX, HNXIndex ", "VCB,HOSE,BANKS,", "FPT,HOSE,IT,fpt"]
        universe = Universe.read(write(tmp_path, "symbol,exchange,sector,upstream", *lines))
        assert [entry.upstream for entry in universe] == ["HNXIndex", "VCB", "fpt"]
        assert universe.spellings == {"HNXINDEX": "HNXIndex", "FPT": "fpt"}
        assert universe.indices == {"HNXINDEX"}

    @pytest.mark.parametrize(
        ("lines", "problem"),
        [
            (["A,INDEX,X,VN Index"], "line 2: 'VN Index' doesn't look like an upstream's name"),
            (["A,INDEX,X,hnx", "HNX,HNX,X,"], "line 3: the upstream's name HNX is on line 2 too"),
            (["A,INDEX,X,aBc", "B,HNX,X,ABC"], "line 3: the upstream's name ABC is on line 2 too"),
        ],
    )
    def test_a_wrong_spelling_names_its_line(
        self, tmp_path: Path, lines: list[str], problem: str
    ) -> None:
        with pytest.raises(UniverseError) as caught:
            Universe.read(write(tmp_path, "symbol,exchange,sector,upstream", *lines))
        assert str(caught.value) == problem

    @pytest.mark.parametrize(
        ("lines", "problem"),
        [
            (["VCB,HOSE,BANKS", "V-B,HOSE,BANKS"], "line 3: 'V-B' doesn't look like a symbol"),
            (["VCB,HOSE,BANKS", "TOOLONGFORASYMBOL,HOSE,X"], "line 3: 'TOOLONGFORASYMBOL' doesn't"),
            (["VCB,NYSE,BANKS"], "line 2: the exchange must be one of HOSE, HNX, UPCOM, INDEX"),
            (["VCB"], "line 2: the exchange must be one of"),
            (["VCB,HOSE,BANKS", "FPT,HOSE,IT", "vcb,HNX,X"], "line 4: VCB is on line 2 too"),
            (['VCB,HOSE,"TWO', 'LINES"', "?,HOSE,X"], "line 4: '?' doesn't look like a symbol"),
            ([], "lists no symbol"),
        ],
    )
    def test_an_error_names_the_line(self, tmp_path: Path, lines: list[str], problem: str) -> None:
        with pytest.raises(UniverseError) as caught:
            Universe.read(write(tmp_path, "symbol,exchange,sector", *lines))
        assert str(caught.value).startswith(problem)

    @pytest.mark.parametrize("header", ["", "symbol,exchange", "VCB,HOSE,BANKS"])
    def test_the_columns_must_be_there(self, tmp_path: Path, header: str) -> None:
        with pytest.raises(UniverseError, match="needs the columns symbol, exchange and sector"):
            Universe.read(write(tmp_path, header, "VCB,HOSE,BANKS"))

    def test_what_cant_be_read_is_an_error_of_one_line(self, tmp_path: Path) -> None:
        latin = write(tmp_path, "symbol,exchange,sector", "VCB,HOSE,Ngân hàng", encoding="latin-1")
        huge = tmp_path / "huge.csv"
        huge.write_text(f"symbol,exchange,sector\nVCB,HOSE,{'x' * 200_000}")
        for file in (tmp_path / "none.csv", tmp_path, latin, huge):
            with pytest.raises(UniverseError, match=r"\Acan't be read: .+\Z"):
                Universe.read(file)


@pytest.mark.parametrize("symbol", ["VCB", "VNINDEX", "E1VFVN30", "A", "A" * 16, "VN30F2509"])
def test_a_symbol_looks_like_one(symbol: str) -> None:
    assert looks_like_symbol(symbol)


@pytest.mark.parametrize(
    "text", ["", "A" * 17, "vcb", "V B", "VCB\n", "V.B", "ĐHC", "{market}", "٣"]
)
def test_other_texts_dont_look_like_a_symbol(text: str) -> None:
    assert not looks_like_symbol(text)
