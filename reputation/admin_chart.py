"""A chart of an actor's accepted and refused bars, hour by hour, as SVG.

Accepted bars grow up from the middle, refused ones down, so that nobody needs the colours to tell
them apart. Everything is drawn with attributes: a strict Content-Security-Policy would block a
script or an inline style. Text takes the page's colour, so that it is legible in the dark theme
too. The module is pure.
"""

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

DAYS = 7
HOURS = 24 * DAYS

ACCEPTED, REFUSED = "#2f7fb8", "#d9541e"  # both at least 3:1 on white and on the admin's dark grey
WIDTH, HEIGHT = 840, 260  # of the whole, in SVG units
# Margins around the plot, for its labels.
LEFT, RIGHT, TOP, BOTTOM = 72, 66, 28, 44
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


@dataclass(frozen=True, slots=True)
class Hour:
    accepted: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Day:
    day: dt.date
    accepted: int
    refused: int


def by_day(hours: Mapping[dt.datetime, Hour], *, until: dt.datetime) -> list[Day]:
    """Return the sums of each day (UTC) that the chart shows, the newest first."""
    sums: dict[dt.date, Day] = {}
    for hour in reversed(_shown(until)):
        day, counts = hour.date(), hours.get(hour, Hour())
        before = sums.get(day, Day(day, 0, 0))
        sums[day] = Day(day, before.accepted + counts.accepted, before.refused + counts.refused)
    return list(sums.values())


def describe(hours: Mapping[dt.datetime, Hour], *, until: dt.datetime) -> str:
    """Return the chart's content as a sentence."""
    shown = {hour: hours.get(hour, Hour()) for hour in _shown(until)}
    accepted = sum(counts.accepted for counts in shown.values())
    refused = sum(counts.refused for counts in shown.values())
    text = f"In the last {DAYS} days {_bars(accepted)} accepted and {_bars(refused)} refused."
    for name, counts in (
        ("accepted", {hour: counts.accepted for hour, counts in shown.items()}),
        ("refused", {hour: counts.refused for hour, counts in shown.items()}),
    ):
        busiest = max(counts, key=lambda hour: counts[hour])
        if counts[busiest]:
            hour = f"the hour from {busiest:%d %b %H:%M} UTC"
            text += f" At most {counts[busiest]:,} were {name} in an hour: {hour}."
    return text


def draw(hours: Mapping[dt.datetime, Hour], *, until: dt.datetime, text: str) -> SafeString:
    """Return the SVG of the hours up to ``until``; ``text`` is its text alternative.

    The keys of ``hours`` are full hours in UTC.
    """
    shown = _shown(until)
    counts = [hours.get(hour, Hour()) for hour in shown]
    up = _round_up(max(count.accepted for count in counts))
    down = _round_up(max(count.refused for count in counts))
    # Each half has its own share of the height and its own scale: six lies must be seen beside six
    # thousand bars.
    middle = TOP + PLOT_HEIGHT * 0.62
    above, below = middle - TOP, TOP + PLOT_HEIGHT - middle
    return format_html(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
        'role="img" aria-labelledby="activity-title activity-text" font-family="sans-serif" '
        'font-size="12" fill="currentColor">'
        '<title id="activity-title">Accepted and refused bars by the hour</title>'
        '<desc id="activity-text">{text}</desc>{legend}{grid}{days}{bars}{axis}</svg>',
        w=WIDTH,
        h=HEIGHT,
        text=text,
        legend=_legend(),
        grid=_grid([(TOP, up), (TOP + above / 2, up / 2), (middle, 0), (TOP + PLOT_HEIGHT, down)]),
        days=_day_marks(shown),
        bars=format_html("{}{}", *_columns(counts, middle, above / up, below / down)),
        axis=format_html(
            '<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor"/>'
            '<text x="{}" y="{}" text-anchor="middle">day (UTC), a column an hour</text>'
            '<text x="12" y="{}" text-anchor="middle" transform="rotate(-90 12 {})">'
            "bars an hour</text>",
            LEFT,
            WIDTH - RIGHT,
            f"{middle:.1f}",
            f"{middle:.1f}",
            LEFT + PLOT_WIDTH / 2,
            HEIGHT - 6,
            TOP + PLOT_HEIGHT / 2,
            TOP + PLOT_HEIGHT / 2,
        ),
    )


def _shown(until: dt.datetime) -> list[dt.datetime]:
    return [until - dt.timedelta(hours=back) for back in range(HOURS - 1, -1, -1)]


def _bars(number: int) -> str:
    return f"{number:,} {'bar was' if number == 1 else 'bars were'}"


def _round_up(largest: int) -> float:
    """Return the end of an axis: a round number that is even, so that its half is whole bars."""
    if largest <= 2:
        return 2
    power = 10 ** math.floor(math.log10(largest))
    return float(next(step * power for step in (2, 4, 6, 8, 10) if step * power >= largest))


def _legend() -> SafeString:
    return format_html(
        '<rect x="{}" y="6" width="12" height="12" fill="{}"/><text x="{}" y="16">accepted, '
        'upwards</text><rect x="{}" y="6" width="12" height="12" fill="{}"/><text x="{}" y="16">'
        "refused as implausible, downwards (a scale of its own)</text>",
        *(LEFT, ACCEPTED, LEFT + 18),
        *(LEFT + 160, REFUSED, LEFT + 178),
    )


def _grid(lines: Sequence[tuple[float, float]]) -> SafeString:
    return format_html_join(
        "",
        '<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" stroke-opacity="0.2"/>'
        '<text x="{}" y="{}" text-anchor="end">{}</text>',
        (
            (LEFT, WIDTH - RIGHT, f"{y:.1f}", f"{y:.1f}", LEFT - 6, f"{y + 4:.1f}", f"{value:,g}")
            for y, value in lines
        ),
    )


def _day_marks(shown: Sequence[dt.datetime]) -> SafeString:
    midnights = [(place, hour) for place, hour in enumerate(shown) if hour.hour == 0]
    return format_html_join(
        "",
        '<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" stroke-opacity="0.2"/>'
        '<text x="{}" y="{}">{}</text>',
        (
            (
                *(f"{_x(place):.1f}", f"{_x(place):.1f}", TOP, TOP + PLOT_HEIGHT + 6),
                *(f"{_x(place) + 3:.1f}", TOP + PLOT_HEIGHT + 17, f"{hour:%a %d %b}"),
            )
            for place, hour in midnights
        ),
    )


def _columns(
    counts: Sequence[Hour], middle: float, up: float, down: float
) -> tuple[SafeString, SafeString]:
    """Draw a rectangle for each count that isn't 0, at least one unit high."""
    accepted = [(place, max(1.0, c.accepted * up)) for place, c in enumerate(counts) if c.accepted]
    refused = [(place, max(1.0, c.refused * down)) for place, c in enumerate(counts) if c.refused]
    return (
        _rectangles(((place, middle - height, height) for place, height in accepted), ACCEPTED),
        _rectangles(((place, middle, height) for place, height in refused), REFUSED),
    )


def _rectangles(places: Iterable[tuple[int, float, float]], colour: str) -> SafeString:
    return format_html_join(
        "",
        '<rect x="{}" y="{}" width="{}" height="{}" fill="{}"/>',
        (
            (f"{_x(place):.1f}", f"{y:.1f}", f"{PLOT_WIDTH / HOURS - 0.6:.1f}", f"{h:.1f}", colour)
            for place, y, h in places
        ),
    )


def _x(place: int) -> float:
    return LEFT + place * PLOT_WIDTH / HOURS
