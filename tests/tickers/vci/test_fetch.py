"""What a fetch learns about the batch size, against upstreams of several tempers."""

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.bar import Bar
from tickers.vci.answer import Answer
from tickers.vci.batch_size import FIRST_ABSENCE, RELEARN_AFTER, BatchSize, split
from tickers.vci.errors import (
    NothingAnsweredError,
    RefusedError,
    StoppedError,
    TooLargeError,
    UnreachableError,
    UpstreamError,
    UpstreamTimeoutError,
)
from tickers.vci.fetch import BatchResult, Failure, Fetch
from tickers.vci.upstream import UpstreamCounters

SYMBOLS = [f"S{number:03}" for number in range(100)]


class Upstream:
    """Knows all symbols but ``unknown``, and has no usable bar of those ``spoilt``.

    It refuses requests with a ``poison`` or of more symbols than ``refuses_above``, and answers
    with the first ``cuts_at`` or with none when more are named.
    """

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        self.poison: set[str] = set()
        self.spoilt: set[str] = set()
        self.refuses_above = self.cuts_at = self.empty_above = 1_000
        self.trouble: list[UpstreamError] = []
        self.asked: list[list[str]] = []

    def __call__(self, batch: Sequence[str]) -> Answer[Bar]:
        self.asked.append(list(batch))
        if self.trouble:
            raise self.trouble.pop(0)
        if len(batch) > self.refuses_above or not self.poison.isdisjoint(batch):
            raise RefusedError(400)
        known = [symbol for symbol in batch if symbol not in self.unknown][: self.cuts_at]
        if len(batch) > self.empty_above:
            known = []
        return Answer(
            series={symbol: [] for symbol in known if symbol not in self.spoilt},
            errors={symbol: "odd" for symbol in known if symbol in self.spoilt},
            missing=frozenset(batch) - set(known),
        )


class Node:
    """Fetches from an upstream, cycle after cycle, on a clock that is moved by hand."""

    def __init__(self, upstream: Upstream, size: int = 50, largest: int = 0) -> None:
        self.now = 1_000.0
        self.upstream = upstream
        self.batches = BatchSize(size=size, largest=largest, clock=lambda: self.now)
        self.counters = UpstreamCounters()

    def fetch(self, symbols: Sequence[str] = SYMBOLS) -> list[BatchResult]:
        self.upstream.asked.clear()

        def ask(batch: Sequence[str]) -> Answer[Bar]:
            answer = self.upstream(batch)
            self.batches.answered([*answer.series, *answer.errors])
            return answer

        refused = self.batches.refused.current()
        wanted = [symbol for symbol in symbols if symbol not in refused]
        return list(Fetch(ask=ask, batches=self.batches, counters=self.counters).run(wanted))

    @property
    def requests(self) -> int:
        return len(self.upstream.asked)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def node(upstream: Upstream) -> Node:
    return Node(upstream)


def came(outcomes: list[BatchResult]) -> list[str]:
    return sorted(
        symbol for outcome in outcomes if isinstance(outcome, Answer) for symbol in outcome.series
    )


def missing(outcomes: list[BatchResult]) -> list[str]:
    return sorted(
        symbol for outcome in outcomes if isinstance(outcome, Answer) for symbol in outcome.missing
    )


def failed(outcomes: list[BatchResult]) -> list[str]:
    return sorted(
        symbol for outcome in outcomes if isinstance(outcome, Failure) for symbol in outcome.symbols
    )


LIMITS = pytest.mark.parametrize("limit", ["refuses_above", "cuts_at", "empty_above"])


class TestBatchesThatAreTooLarge:
    @LIMITS
    def test_everything_comes_in_the_first_fetch_and_the_second_knows_the_size(
        self, upstream: Upstream, node: Node, limit: str
    ) -> None:
        setattr(upstream, limit, 20)
        assert came(node.fetch()) == SYMBOLS
        assert node.batches.size <= 20
        outcomes = node.fetch()
        assert came(outcomes) == SYMBOLS
        assert missing(outcomes) == failed(outcomes) == []
        assert [len(batch) for batch in upstream.asked] == [
            len(batch) for batch in split(SYMBOLS, node.batches.size)
        ]

    def test_the_size_is_halved_and_never_below_one(self, upstream: Upstream, node: Node) -> None:
        upstream.refuses_above = 1
        assert came(node.fetch()) == SYMBOLS
        assert node.batches.size == 1
        node.fetch()
        assert node.batches.size == 1

    def test_what_works_is_kept_for_an_hour_and_then_tried_again(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.refuses_above = 30
        node.fetch()
        assert node.batches.size == 25
        node.now += RELEARN_AFTER - 1
        assert node.batches.size == 25
        node.now += 1
        assert node.batches.size == 50

    def test_a_size_that_has_worked_may_fail_once(self, upstream: Upstream, node: Node) -> None:
        node.fetch()
        upstream.trouble = [RefusedError(400)]
        outcomes = node.fetch()
        assert failed(outcomes) == SYMBOLS[:50]
        assert (node.requests, node.batches.size) == (2, 50)
        assert came(node.fetch()) == SYMBOLS

    def test_it_may_fail_once_more_after_it_has_worked_again(
        self, upstream: Upstream, node: Node
    ) -> None:
        for _ in range(2):
            node.fetch()
            upstream.trouble = [RefusedError(400)]
            assert failed(node.fetch()) == SYMBOLS[:50]

    def test_half_of_an_odd_size_is_the_larger_half(self, upstream: Upstream) -> None:
        upstream.refuses_above = 2
        node = Node(upstream, size=3)
        assert came(node.fetch()) == SYMBOLS
        assert node.batches.size == 2

    def test_a_size_tried_again_in_vain_costs_no_symbol(
        self, upstream: Upstream, node: Node
    ) -> None:
        node.fetch()
        upstream.refuses_above = 30
        node.fetch()
        node.fetch()
        assert node.batches.size == 25
        node.now += RELEARN_AFTER
        assert came(node.fetch()) == SYMBOLS

    def test_a_size_that_fails_again_is_learned_anew(self, upstream: Upstream, node: Node) -> None:
        node.fetch()
        upstream.refuses_above = 30
        node.fetch()
        assert came(node.fetch()) == SYMBOLS
        assert node.batches.size == 25

    @given(
        limit=st.sampled_from(["refuses_above", "cuts_at", "empty_above"]),
        most=st.integers(1, 60),
        size=st.integers(1, 60),
        unknown=st.sets(st.sampled_from(SYMBOLS), max_size=5),
    )
    def test_every_symbol_is_accounted_for_once_and_soon_all_come(
        self, limit: str, most: int, size: int, unknown: set[str]
    ) -> None:
        upstream = Upstream()
        upstream.unknown = unknown
        setattr(upstream, limit, most)
        node = Node(upstream, size=size)
        for _ in range(8):
            outcomes = node.fetch()
            assert sorted(came(outcomes) + missing(outcomes) + failed(outcomes)) == SYMBOLS
        assert came(outcomes) == sorted(set(SYMBOLS) - unknown)


class TestBatchesThatGrow:
    @pytest.fixture
    def node(self, upstream: Upstream) -> Node:
        return Node(upstream, size=10, largest=100)

    def sizes(self, node: Node) -> list[int]:
        assert came(node.fetch()) == SYMBOLS
        return [len(batch) for batch in node.upstream.asked]

    def test_they_double_while_whole_answers_come_up_to_the_number_of_symbols(
        self, node: Node
    ) -> None:
        assert self.sizes(node) == [10, 20, 40, 30]
        assert self.sizes(node) == [80, 20]
        assert self.sizes(node) == [100]
        assert self.sizes(node) == [100]

    @LIMITS
    def test_a_size_that_fails_is_halved_and_left_alone_for_an_hour(
        self, upstream: Upstream, node: Node, limit: str
    ) -> None:
        setattr(upstream, limit, 50)
        for _ in range(3):
            self.sizes(node)
        assert node.batches.size == 40
        assert self.sizes(node) == [40, 40, 20]
        node.now += RELEARN_AFTER - 1
        assert self.sizes(node) == [40, 40, 20]
        node.now += 1
        assert self.sizes(node)[:2] == [40, 60]  # it was too large again
        assert node.batches.size == 40
        setattr(upstream, limit, 1_000)
        node.now += RELEARN_AFTER
        for _ in range(3):
            self.sizes(node)
        assert self.sizes(node) == [100]

    def test_absent_symbols_and_symbols_in_error_dont_keep_them_small(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.unknown = {"S001", "S050"}
        upstream.spoilt = {"S002", "S080"}
        for _ in range(4):
            node.fetch()
        assert node.batches.size == 100
        assert node.requests == 1

    def test_an_answer_without_bars_proves_no_size(self, upstream: Upstream, node: Node) -> None:
        upstream.spoilt = set(SYMBOLS)
        node.fetch()
        assert node.batches.size == 10

    def test_a_smaller_last_batch_proves_no_size(self, node: Node) -> None:
        node.fetch(SYMBOLS[:9])
        assert node.batches.size == 10

    @pytest.mark.parametrize("error", [UpstreamTimeoutError("slow"), TooLargeError("large")])
    def test_what_they_have_grown_by_is_given_back_when_answers_fail(
        self, upstream: Upstream, node: Node, error: UpstreamError
    ) -> None:
        for _ in range(3):
            node.fetch()
        upstream.trouble = [error]
        node.fetch()
        assert node.batches.size == 100  # chance is likelier
        upstream.trouble = [error]
        node.fetch()
        assert node.batches.size == 50
        for _ in range(20):
            upstream.trouble = [error] * 3
            node.fetch()
        assert node.batches.size == 10

    def test_what_was_learned_outlives_the_process(self, upstream: Upstream, node: Node) -> None:
        upstream.refuses_above = 50
        for _ in range(3):
            node.fetch()
        after = Node(upstream, size=10, largest=100)
        after.batches.recall(node.batches.note())
        assert self.sizes(after) == [40, 40, 20]
        after.now += RELEARN_AFTER
        assert self.sizes(after)[:2] == [40, 60]

    @pytest.mark.parametrize("size", [0, -1, 101])
    def test_a_note_that_cant_be_is_not_recalled(self, node: Node, size: int) -> None:
        node.batches.recall({"size": size})
        node.batches.recall({})
        assert node.batches.size == 10

    @given(
        limit=st.sampled_from(["refuses_above", "cuts_at", "empty_above"]),
        most=st.integers(1, 120),
        size=st.integers(1, 60),
        largest=st.integers(1, 100),
    )
    def test_every_symbol_comes_and_the_size_settles_within_twice_of_what_is_taken(
        self, limit: str, most: int, size: int, largest: int
    ) -> None:
        upstream = Upstream()
        setattr(upstream, limit, most)
        node = Node(upstream, size=size, largest=largest)
        for _ in range(12):
            outcomes = node.fetch()
            assert sorted(came(outcomes) + missing(outcomes) + failed(outcomes)) == SYMBOLS
        assert came(outcomes) == SYMBOLS
        settled = min(node.batches.size, len(SYMBOLS))
        assert min(most, largest, size) // 4 <= settled <= most


class TestSymbolsThatNeverCome:
    def test_unknown_symbols_cost_one_request_a_batch_and_not_the_size(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.unknown = {"S001", "S003", "S070"}
        assert missing(node.fetch()) == ["S001", "S003", "S070"]
        assert upstream.asked[1] == ["S001", "S003"]
        assert (node.requests, node.batches.size) == (4, 50)

    def test_they_cost_nothing_in_the_next_cycles(self, upstream: Upstream, node: Node) -> None:
        upstream.unknown = {"S001", "S003", "S070"}
        node.fetch()
        node.now += 5
        assert missing(node.fetch()) == ["S001", "S003", "S070"]
        assert node.requests == 2
        assert node.batches.absent.current() == upstream.unknown

    def test_alone_they_are_asked_for_in_one_request(self, upstream: Upstream, node: Node) -> None:
        upstream.unknown = {"S001", "S003"}
        node.fetch()
        assert missing(node.fetch(["S001", "S003"])) == ["S001", "S003"]
        assert node.requests == 1

    def test_one_taken_for_absent_wrongly_is_back_with_the_next_answer(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.unknown = {"S001", "S003"}
        node.fetch()
        upstream.unknown.clear()
        assert came(node.fetch(["S001", "S003"])) == ["S001", "S003"]

    def test_the_upstream_may_know_them_later(self, upstream: Upstream, node: Node) -> None:
        upstream.unknown = {"S001"}
        node.fetch()
        upstream.unknown.clear()
        assert came(node.fetch()) == SYMBOLS
        assert node.requests == 2
        assert not node.batches.absent.current()

    def test_a_symbol_that_is_refused_is_found_and_left_out_for_a_while(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.poison = {"S033"}
        outcomes = node.fetch()
        assert failed(outcomes) == ["S033"]
        assert came(outcomes) == sorted(set(SYMBOLS) - {"S033"})
        assert node.batches.size == 50
        outcomes = node.fetch()
        assert (node.requests, failed(outcomes)) == (2, [])
        upstream.poison.clear()
        node.now += FIRST_ABSENCE
        assert came(node.fetch()) == SYMBOLS

    def test_one_that_goes_on_being_refused_costs_one_request_now_and_then_and_no_other_symbol(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.poison = {"S033"}
        node.fetch()
        for doubled in range(3):
            node.now += FIRST_ABSENCE * 2**doubled
            outcomes = node.fetch()
            assert failed(outcomes) == ["S033"]
            assert came(outcomes) == sorted(set(SYMBOLS) - {"S033"})
            assert node.requests == 3
            node.fetch()
            assert node.requests == 2

    def test_a_symbol_that_begins_to_be_refused_is_found_too(
        self, upstream: Upstream, node: Node
    ) -> None:
        node.fetch()
        upstream.poison = {"S033"}
        node.fetch()
        assert failed(node.fetch()) == ["S033"]
        assert failed(node.fetch()) == []
        assert node.batches.size == 50


class TestAnUpstreamInTrouble:
    def test_one_that_refuses_everything_is_soon_left_alone(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.refuses_above = 0
        for _ in range(3):
            assert failed(node.fetch()) == SYMBOLS
            assert node.requests <= 10
        assert node.batches.size == 50
        assert not node.batches.refused.current()

    def test_one_that_answers_nothing_is_soon_left_alone(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.empty_above = 0
        outcomes = node.fetch()
        assert node.requests <= 10
        assert isinstance(outcomes[-1], Failure)
        assert isinstance(outcomes[-1].error, NothingAnsweredError)
        upstream.empty_above = 1_000
        assert came(node.fetch()) == SYMBOLS
        assert node.batches.size == 50

    def test_a_batch_that_fails_for_another_reason_isnt_taken_apart(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.trouble = [UnreachableError("the upstream gave no answer")]
        outcomes = node.fetch()
        assert failed(outcomes) == SYMBOLS[:50]
        assert came(outcomes) == SYMBOLS[50:]
        assert (node.requests, node.batches.size) == (2, 50)

    def test_one_that_fails_twice_in_a_row_is_left_alone(self, upstream: Upstream) -> None:
        node = Node(upstream, size=10)
        upstream.trouble = [UnreachableError("the upstream gave no answer")] * 10
        assert failed(node.fetch()) == SYMBOLS
        assert node.requests == 2
        upstream.trouble.clear()
        assert came(node.fetch()) == SYMBOLS

    def test_a_search_that_fails_for_another_reason_teaches_nothing(
        self, upstream: Upstream, node: Node
    ) -> None:
        upstream.unknown = {"S001"}
        upstream.trouble = []
        first = upstream.__class__.__call__

        def ask(batch: Sequence[str]) -> Answer[Bar]:
            if batch == ["S001"]:
                upstream.trouble = [UnreachableError("the upstream gave no answer")]
            return first(upstream, batch)

        fetch = Fetch(ask=ask, batches=node.batches, counters=node.counters)
        assert failed(list(fetch.run(SYMBOLS))) == ["S001"]
        assert not node.batches.absent.current()

    def test_the_node_stops_in_the_middle(self, node: Node) -> None:
        stop = threading.Event()

        def ask(batch: Sequence[str]) -> Answer[Bar]:
            if stop.is_set():
                raise StoppedError("the node is stopping")
            stop.set()
            return Answer(series={symbol: [] for symbol in batch})

        fetch = Fetch(ask=ask, batches=node.batches, counters=node.counters)
        assert came(list(fetch.run(SYMBOLS))) == SYMBOLS[:50]


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        BatchSize(size=0)
