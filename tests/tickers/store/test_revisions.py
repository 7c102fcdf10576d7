"""A symbol's revisions: what they say of the log, and that all who read it reckon alike."""

from hypothesis import given
from hypothesis import strategies as st

from tickers.store.revisions import MOST_DAYS, Revisions

DAY = 86_400
# (day, or None for the whole series) of each revision, from 1 on.
logs = st.lists(st.none() | st.integers(0, 14).map(lambda day: day * DAY), max_size=40)


def after(log: list[int | None], revisions: Revisions | None = None) -> Revisions:
    revisions = revisions or Revisions()
    for revision, day in enumerate(log, 1):
        revisions = (
            revisions.replaced(revision) if day is None else revisions.with_bar(day, revision)
        )
    return revisions


@given(log=logs, since=st.integers(0, 40))
def test_every_day_that_changed_since_is_told_and_few_others_are(
    log: list[int | None], since: int
) -> None:
    revisions = after(log)
    days = {day for day, revision in revisions.days() if revision > since}
    changed = log[since:]
    if revisions.history > since:
        assert changed
    else:
        assert None not in changed
        assert days == set(changed)
    assert (revisions.latest > since) is bool(changed)
    assert len(list(revisions.days())) <= MOST_DAYS


@given(log=logs, at=st.integers(0, 40))
def test_entries_that_come_again_change_nothing(log: list[int | None], at: int) -> None:
    assert after(log[:at], after(log)) == after(log)


@given(log=logs)
def test_they_are_read_back_from_their_text(log: list[int | None]) -> None:
    revisions = after(log)
    numbers = [revisions.history]
    for day, revision in reversed(list(revisions.days())):
        numbers += [day, revision]
    assert Revisions.parse(" ".join(map(str, numbers)).encode()) == revisions


def test_a_day_before_1970_is_a_day() -> None:
    assert Revisions.parse(b"3 -86400 7") == Revisions(3).with_bar(-86_400, 7)
