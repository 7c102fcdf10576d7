import datetime as dt
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reputation import admin_chart
from reputation.admin_chart import Hour

UNTIL = dt.datetime(2025, 8, 15, 9, 0, tzinfo=dt.UTC)
SVG = "{http://www.w3.org/2000/svg}"

hours = st.dictionaries(
    st.integers(-30, 400).map(lambda back: UNTIL - dt.timedelta(hours=back)),
    st.builds(Hour, st.integers(0, 10**9), st.integers(0, 10**9)),
)


def draw(counts: dict[dt.datetime, Hour], text: str = "words") -> ET.Element:
    return ET.fromstring(admin_chart.draw(counts, until=UNTIL, text=text))  # noqa: S314  # our own


def columns(svg: ET.Element, colour: str) -> list[dict[str, float]]:
    """The rectangles of a colour, without the legend's."""
    found = [rect.attrib for rect in svg.iter(f"{SVG}rect") if rect.get("fill") == colour][1:]
    return [{name: float(rect[name]) for name in ("x", "y", "width", "height")} for rect in found]


@given(hours)
def test_every_hour_of_the_week_has_its_columns_inside_the_plot(
    counts: dict[dt.datetime, Hour],
) -> None:
    svg = draw(counts)
    shown = {
        hour: count
        for hour, count in counts.items()
        if UNTIL - dt.timedelta(hours=admin_chart.HOURS) < hour <= UNTIL
    }
    for colour, numbers in (
        (admin_chart.ACCEPTED, [count.accepted for count in shown.values()]),
        (admin_chart.REFUSED, [count.refused for count in shown.values()]),
    ):
        drawn = columns(svg, colour)
        assert len(drawn) == sum(number > 0 for number in numbers)
        for column in drawn:
            assert admin_chart.LEFT <= column["x"] <= admin_chart.WIDTH - admin_chart.RIGHT
            assert column["y"] >= admin_chart.TOP - 0.1
            assert column["y"] + column["height"] <= admin_chart.TOP + admin_chart.PLOT_HEIGHT + 0.1


def test_accepted_bars_go_up_and_refused_ones_down_from_one_line() -> None:
    svg = draw({UNTIL: Hour(10, 4), UNTIL - dt.timedelta(hours=1): Hour(5, 2)})
    up, down = columns(svg, admin_chart.ACCEPTED), columns(svg, admin_chart.REFUSED)
    assert round(up[0]["height"] / up[1]["height"], 1) == 0.5
    assert round(down[0]["height"] / down[1]["height"], 1) == 0.5
    for above, below in zip(up, down, strict=True):
        assert above["y"] + above["height"] == pytest.approx(below["y"], abs=0.2)


def test_few_refused_bars_are_seen_beside_many_accepted_ones() -> None:
    svg = draw({UNTIL: Hour(100_000, 2)})
    assert columns(svg, admin_chart.REFUSED)[0]["height"] > 20


def test_axes_are_named_and_numbered() -> None:
    texts = [text.text for text in draw({UNTIL: Hour(3_100, 3)}).iter(f"{SVG}text")]
    for expected in ("4,000", "2,000", "0", "bars an hour", "day (UTC), a column an hour"):
        assert expected in texts
    assert "Fri 15 Aug" in texts


def test_what_it_says_is_its_text_alternative() -> None:
    svg = draw({}, text="<b>words & more</b>")
    assert svg.get("role") == "img"
    named = svg.get("aria-labelledby", "").split()
    assert [svg.find(f"*[@id='{name}']").text for name in named] == [  # type: ignore[union-attr]
        "Accepted and refused bars by the hour",
        "<b>words & more</b>",
    ]


def test_words_say_how_many_and_when_most() -> None:
    counts = {UNTIL: Hour(1_500, 0), UNTIL - dt.timedelta(hours=30): Hour(20, 1)}
    assert admin_chart.describe(counts, until=UNTIL) == (
        "In the last 7 days 1,520 bars were accepted and 1 bar was refused. "
        "At most 1,500 were accepted in an hour: the hour from 15 Aug 09:00 UTC. "
        "At most 1 were refused in an hour: the hour from 14 Aug 03:00 UTC."
    )


@given(hours)
def test_days_add_up_to_the_week(counts: dict[dt.datetime, Hour]) -> None:
    days = admin_chart.by_day(counts, until=UNTIL)
    first = UNTIL - dt.timedelta(hours=admin_chart.HOURS)
    week = [count for hour, count in counts.items() if first < hour <= UNTIL]
    assert sum(day.accepted for day in days) == sum(count.accepted for count in week)
    assert sum(day.refused for day in days) == sum(count.refused for count in week)
    assert [day.day for day in days] == sorted({day.day for day in days}, reverse=True)
