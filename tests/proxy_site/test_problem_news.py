"""What is told of problems, and when: each beginning, each day, and each end, once."""

import json

from hypothesis import given
from hypothesis import strategies as st

from proxy_site.problem_news import DAY, LONGEST, MOST_KNOWN, MOST_TOLD, News, kind_of

LATE, AWAY = "the last cycle had errors", "the database can't be reached (OperationalError)"


class Bench:
    def __init__(self, news: News | None = None) -> None:
        self.news = news or News()
        self.now = 1_000_000.0

    def look(self, *problems: str, after: float = 10) -> tuple[list[str], list[str], list[str]]:
        """The words of what began, lasts and ended; all of it is told."""
        self.now += after
        self.news.look(problems, now=self.now)
        report = self.news.report(now=self.now)
        self.news.told(report)
        told = ([one.words for one in news] for news in (report.began, report.lasting))
        began, lasting = told
        return began, lasting, [one.words for one in report.ended]


NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


class TestBeginning:
    def test_is_told_once_when_two_looks_have_found_it(self) -> None:
        bench = Bench()
        assert bench.look(LATE) == NOTHING
        assert bench.look(LATE) == ([LATE], [], [])
        assert [bench.look(LATE) for _ in range(5)] == [NOTHING] * 5

    def test_of_what_one_look_found_is_none(self) -> None:
        bench = Bench()
        for _ in range(5):
            assert bench.look(LATE) == NOTHING
            assert bench.look() == NOTHING

    def test_of_others_is_told_each_by_itself(self) -> None:
        bench = Bench()
        bench.look(LATE)
        assert bench.look(LATE, AWAY) == ([LATE], [], [])
        assert bench.look(LATE, AWAY) == ([AWAY], [], [])


class TestEnd:
    def test_is_told_once_when_two_looks_have_missed_it(self) -> None:
        bench = Bench()
        bench.look(LATE)
        bench.look(LATE)
        assert bench.look() == NOTHING
        assert bench.look() == ([], [], [LATE])
        assert bench.look() == NOTHING

    def test_of_what_one_look_missed_is_none(self) -> None:
        bench = Bench()
        bench.look(LATE)
        bench.look(LATE)
        for _ in range(5):
            assert bench.look() == NOTHING
            assert bench.look(LATE) == NOTHING

    def test_of_what_never_was_told_isnt_either(self) -> None:
        bench = Bench()
        bench.look(LATE)
        assert [bench.look() for _ in range(3)] == [NOTHING] * 3

    def test_has_the_time_of_the_first_look_that_missed_it(self) -> None:
        bench = Bench()
        bench.look(LATE)
        bench.look(LATE)
        bench.look()
        gone_at = bench.now
        bench.news.look([], now=gone_at + 10)
        (ended,) = bench.news.report(now=gone_at + 10).ended
        assert (ended.since, ended.gone_at) == (gone_at - 20, gone_at)


class TestLasting:
    def test_is_told_once_a_day(self) -> None:
        bench = Bench()
        bench.look(LATE)
        bench.look(LATE)
        hours = [bench.look(LATE, after=DAY / 24)[1] for _ in range(72)]
        assert [hour for hour, told in enumerate(hours, 1) if told] == [24, 48, 72]

    def test_of_what_is_gone_is_none(self) -> None:
        bench = Bench()
        bench.look(LATE)
        bench.look(LATE)
        assert bench.look(after=2 * DAY) == NOTHING


class TestWhatCouldntBeTold:
    def test_is_told_later_as_it_is_then(self) -> None:
        bench = Bench()
        for words in (f"{LATE}: one", f"{LATE}: two"):
            bench.news.look([words], now=bench.now)
        assert [one.words for one in bench.news.report(now=bench.now).began] == [f"{LATE}: two"]
        assert bench.look(f"{LATE}: three") == ([f"{LATE}: three"], [], [])

    def test_is_not_told_when_it_is_over(self) -> None:
        bench = Bench()
        for _ in range(3):
            bench.news.look([LATE], now=bench.now)
        assert [bench.look() for _ in range(3)] == [NOTHING] * 3


class TestKind:
    def test_is_the_same_while_details_change(self) -> None:
        for one, other in (
            ("no worker has told of a cycle for 46 s", "no worker has told of a cycle for 1046 s"),
            ("symbols in error (3), among them VCB: a", "symbols in error (12), among them FPT: b"),
            ("the last cycle had errors: 502", "the last cycle had errors: it hangs (again)"),
            (
                "2 public peers ban this node, since 10:00: ask",
                "3 public peers ban this node, since 9",
            ),
        ):
            assert kind_of(one) == kind_of(other)
            bench = Bench()
            bench.look(one)
            bench.look(one)
            assert [bench.look(words) for words in (other, one, other)] == [NOTHING] * 3

    def test_of_others_is_another(self) -> None:
        problems = [LATE, AWAY, "the cache can't be reached (ConnectionError)", "stale symbols (3)"]
        assert len({kind_of(words) for words in problems}) == len(problems)


class TestAnotherLeader:
    def test_goes_on_with_what_was_told(self) -> None:
        bench = Bench()
        bench.look(LATE, AWAY)
        bench.look(LATE, AWAY)
        next_one = Bench(News(json.loads(json.dumps(bench.news.note()))))
        next_one.now = bench.now
        assert next_one.look(LATE) == NOTHING
        assert next_one.look(LATE) == ([], [], [AWAY])
        assert next_one.look(LATE, after=DAY) == ([], [LATE], [])


class TestBounds:
    def test_many_problems_are_told_in_parts(self) -> None:
        bench = Bench()
        problems = [f"problem {'x' * n}" for n in range(MOST_TOLD + 5)]
        bench.look(*problems)
        first, second = bench.look(*problems)[0], bench.look(*problems)[0]
        assert (len(first), len(second)) == (MOST_TOLD, 5)
        assert sorted(first + second) == sorted(problems)

    def test_problems_without_end_are_forgotten(self) -> None:
        bench = Bench()
        for number in range(50):
            bench.look(*(f"{'x' * number}{'y' * n}" for n in range(1, 50)))
        bench.look(*(f"{'z' * n}" for n in range(1, 1_000)))
        assert len(bench.news._known) <= MOST_KNOWN

    def test_words_are_cut(self) -> None:
        bench = Bench()
        for _ in range(2):
            ((*words,), _, _) = bench.look("w" * 100_000)
        assert [len(one) for one in words] == [LONGEST]


@given(st.lists(st.sets(st.sampled_from(["a", "b", "c"])), max_size=40))
def test_beginnings_and_ends_take_turns(looks: list[set[str]]) -> None:
    bench, open_now = Bench(), set[str]()
    for problems in [*looks, set[str](), set[str]()]:
        began, _, ended = bench.look(*problems)
        assert open_now.isdisjoint(began)
        open_now.update(began)
        assert open_now.issuperset(ended)
        open_now.difference_update(ended)
    assert open_now == set()
