"""A fetch asks for many symbols batch by batch, and learns the batch size from the answers.

- A refused batch, or one that brings no symbol at all, is asked for again in halves. If all of them
  work, the batch was too large; if it comes down to a single symbol, that symbol is the cause.
- If a batch comes back short, the missing symbols are asked for once more, in a batch of half the
  size at most. Those that come show that it was too large; those that don't are absent.
- A batch whose size has worked before may fail once without a search, as chance is likelier.
- A symbol that was refused alone is asked for alone when its time is over, so that it spoils no
  other symbol's request again.
- An upstream that fails twice in a row, with all retries, isn't asked again until the next fetch.
- While an upstream has brought nothing in this fetch and the one before, no symbol is taken for
  absent.
- Absent symbols are still asked for, before all others, so that they share batches with them: that
  costs no request, and a symbol that was wrongly taken for absent is back with the next answer.
- An upstream that brings nothing request after request isn't asked again until the next fetch,
  which begins with the symbols that weren't reached.
"""

import logging
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tickers.vci.answer import Answer
from tickers.vci.batch_size import BatchSize, split
from tickers.vci.errors import NothingAnsweredError, RefusedError, StoppedError, UpstreamError
from tickers.vci.upstream import UpstreamCounters

logger = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """The symbols that a fetch brought nothing for, with the error."""

    symbols: tuple[str, ...]
    error: UpstreamError


BatchResult = Answer[Any] | Failure


class Fetch:
    """A fetch makes one request for each batch with ``ask``; ``batches`` outlives the fetch.

    ``most`` is the most symbols of a batch, whatever was learned, and bounds the answer's size.
    """

    def __init__(
        self,
        *,
        ask: Callable[[Sequence[str]], Answer[Any]],
        batches: BatchSize,
        counters: UpstreamCounters,
        most: int = sys.maxsize,
    ) -> None:
        self._request = ask
        self._batches = batches
        self._counters = counters
        self._most = most
        self._most_empty = _most_empty(batches.size)
        self._empty = 0  # requests in a row that brought no symbol
        self._failing = 0  # batches in a row that failed for another reason than what was asked
        # Symbols refused alone since the last request that brought any.
        self._refused_alone: list[str] = []
        self._given_up: UpstreamError | None = None
        self._left: list[str] = []

    def run(self, symbols: Sequence[str]) -> Iterator[BatchResult]:
        """Yield results as they come; nothing is asked between two. Ends when the node stops."""
        absent = self._batches.absent.current()
        given_up = self._batches.given_up
        waiting = sorted(symbols, key=lambda symbol: (symbol not in absent, symbol not in given_up))
        alone = [symbol for symbol in waiting if self._batches.refused.remembers([symbol])]
        waiting = [symbol for symbol in waiting if symbol not in alone]
        self._batches.begin_fetch()
        try:
            while alone and self._given_up is None:
                yield from self._ask([alone.pop(0)], excusable=False)
            while waiting and self._given_up is None:
                size = min(self._batches.size, self._most)
                self._most_empty = max(self._most_empty, _most_empty(size))
                batch, waiting = waiting[:size], waiting[size:]
                yield from self._ask(batch, excusable=True)
        except StoppedError:
            return
        left = self._left + alone + waiting
        if self._given_up is not None and left:
            self._batches.given_up = frozenset(left)
            yield self._failure(left, self._given_up)

    def _ask(self, batch: list[str], *, excusable: bool) -> Generator[BatchResult, None, bool]:
        """Ask for a batch, in smaller ones if need be; return whether all of it worked."""
        try:
            answer = self._request(batch)
        except RefusedError as error:
            return (yield from self._search(batch, error, excusable=excusable))
        except UpstreamError as error:
            self._saw_failure(batch, error)
            yield self._failure(batch, error)
            return False
        self._failing = 0
        if answer.series or answer.errors:
            self._empty = 0
            self._batches.refused.note(self._refused_alone)
            self._refused_alone.clear()
            yield from self._complete(batch, answer, excusable=excusable)
            return True
        if self._batches.absent.remembers(batch):
            self._note_absent(batch)
            yield answer
            return False
        nothing = NothingAnsweredError("the upstream answered with none of the symbols asked for")
        if not self._are_absent(batch, excusable=excusable):
            self._counters.errors.add(nothing.kind)
            return (yield from self._search(batch, nothing, excusable=excusable))
        self._saw_nothing(nothing)
        self._note_absent(batch)
        yield answer
        return False

    def _are_absent(self, batch: list[str], *, excusable: bool) -> bool:
        """Return whether none came because of the symbols, and not because of the upstream."""
        if len(batch) > 1 or not self._batches.brings:
            return False
        return not (excusable and self._batches.excuse(batch))

    def _search(
        self, batch: list[str], error: UpstreamError, *, excusable: bool
    ) -> Generator[BatchResult, None, bool]:
        """Ask again in halves, to learn whether a batch failed for its size or for one symbol."""
        self._saw_nothing(error)
        if len(batch) == 1 and isinstance(error, RefusedError):
            self._refused_alone.extend(batch)
        if len(batch) == 1 or (excusable and self._batches.excuse(batch)):
            yield self._failure(batch, error)
            return False
        logger.warning("%s; asking again for %d symbols in halves", error, len(batch))
        worked = True
        for half in split(batch, (len(batch) + 1) // 2):
            if self._given_up is not None:
                self._left += half
                worked = False
            else:
                worked = (yield from self._ask(half, excusable=False)) and worked
        if worked:
            self._batches.too_many(len(batch))
        return worked

    def _saw_failure(self, batch: list[str], error: UpstreamError) -> None:
        self._batches.failed(batch)
        self._failing += 1
        if self._failing >= FAILURES_IN_A_ROW:
            self._given_up = error

    def _saw_nothing(self, error: UpstreamError) -> None:
        self._empty += 1
        if self._empty >= self._most_empty:
            self._given_up = error

    def _complete(
        self, batch: list[str], answer: Answer[Any], *, excusable: bool
    ) -> Generator[BatchResult, None, None]:
        """Yield an answer, and look for symbols that it left out and that aren't known absent."""
        short = answer.missing - self._batches.absent.current()
        yield replace(answer, missing=answer.missing - short)
        left = [symbol for symbol in batch if symbol in short]
        came = yield from self._look_for(left, len(batch) // 2)
        if not came:
            self._batches.worked(batch, came=len(answer.series))
        elif not (excusable and self._batches.excuse(batch)):
            self._batches.too_many(len(batch))

    def _look_for(self, symbols: list[str], size: int) -> Generator[BatchResult, None, bool]:
        """Ask for symbols that a larger batch left out; return whether any came."""
        any_came = False
        for part in split(symbols, max(1, size)):
            try:
                answer = self._request(part)
            except UpstreamError as error:
                yield self._failure(part, error)
                continue
            left = [symbol for symbol in part if symbol in answer.missing]
            if len(left) == len(part):
                self._note_absent(left)
                yield answer
                continue
            any_came = True
            yield replace(answer, missing=frozenset())
            yield from self._look_for(left, len(part) // 2)
        return any_came

    def _note_absent(self, symbols: list[str]) -> None:
        new = [symbol for symbol in symbols if symbol not in self._batches.absent.current()]
        if new:
            self._batches.absent.note(new)
            logger.warning(
                "the upstream leaves symbols out (%d); it is asked for them now and then: %s",
                len(new),
                ", ".join(new[:10]),
            )

    def _failure(self, symbols: Sequence[str], error: UpstreamError) -> Failure:
        logger.warning("%s; symbols left for the next fetch: %d", error, len(symbols))
        return Failure(tuple(symbols), error)


def _most_empty(size: int) -> int:
    """Return after how many requests in a row without a symbol the fetch ends.

    A search halves the largest batch down to one symbol, and may meet a few bad ones.
    """
    return size.bit_length() + 4
