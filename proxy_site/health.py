"""GET /health tells what a node knows of itself, and what is wrong with it.

It answers whatever is broken: 200 while the node can serve reads (with ``status`` "degraded" and
the ``problems`` in words if there are any), 503 when it can't, and with ``strict=true`` 503 while
there is any problem. The flat fields keep the names that existing clients of this network read.
"""

import datetime as dt
import functools
import math
import shutil
import subprocess
import time
from typing import Any

import psutil
import redis
from django.conf import settings
from django.db import Error
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from gossip.delivery.peer import PeerKind
from gossip.tokens import failures
from proxy_site import (
    forgotten_proxies,
    market_health,
    ownership,
    pending_migrations,
    problem_webhook,
    reasons,
    redis_checks,
    static_files,
)
from reputation.database_bulkhead import bulkhead
from tickers import clock_skew, wiring
from tickers.api import flag
from tickers.snapshot.snapshot import StaleError
from tickers.store.records import State
from tickers.store.store import Store

STARTED = time.monotonic()
STARTED_AT = time.time()

# A worker is late that has reported no cycle for this many of its intervals and GRACE.
LATE_CYCLES = 3
GRACE = 30.0  # seconds, as a cycle at the upstream's pace takes some
EMPTY = "the market is empty: there is nothing to serve yet"
MOST_NAMED = 20  # contradicted peers that are named

PEER_KINDS = (PeerKind.INTERNAL, PeerKind.PUBLIC)


class Health(ViewSet):
    authentication_classes = []

    def list(self, request: Request) -> Response:
        strict = flag(request.query_params, "strict", default=False)
        problems: list[str] = []
        market = read_market(problems)
        check_database(problems)
        check_static_files(problems)
        token_failures = read_cache(problems)
        body = {
            # Read after all checks, which have added their problems by now.
            "status": "degraded" if problems else "ok",
            "problems": problems,
            **node(),
            **market,
            **pace(market["worker"]),
            **memory(),
            "token_failures_last_hour": token_failures,
            "peers": {
                "internal": len(settings.INTERNAL_PEER_URLS),
                "public": len(settings.PUBLIC_PEER_URLS),
            },
            "internal_peers_count": len(settings.INTERNAL_PEER_URLS),
            "public_peers_count": len(settings.PUBLIC_PEER_URLS),
        }
        well = market["can_serve"] and not (strict and problems)
        response = Response(body, status=200 if well else 503)
        response["Cache-Control"] = "no-store"
        return response


def node() -> dict[str, Any]:
    clock = wiring.market_clock()
    frozen = settings.DEBUG_SYSTEM_TIME
    return {
        "node_name": settings.NODE_NAME,
        "environment": settings.ENVIRONMENT,
        "mode": _mode(),
        "uptime_secs": int(time.monotonic() - STARTED),
        "current_system_time": clock.now().isoformat(),
        "debug_time_override": _with_z(frozen) if frozen else None,
        "trading_day": clock.trading_day().isoformat(),
        **build(),
    }


def read_market(problems: list[str]) -> dict[str, Any]:
    """Return the market's part, from the store, or from the snapshot while the store is away."""
    store = wiring.store()
    refresher = wiring.snapshots()
    try:
        snapshot = refresher.current()
        series, position, can_serve = snapshot.series, snapshot.position, bool(snapshot.series)
        if not can_serve:
            problems.append(EMPTY)
    except StaleError:
        series, position, can_serve = {}, None, False
    filled = len(series)
    state, status, server, symbols = None, {}, {}, {}
    contradicted: list[dict[str, Any]] = []
    try:
        state, status, server = store.state(), store.status(), check_server(store, problems)
        contradicted = contradicted_peers(store, problems)
        check_worker(status, problems, is_led=store.is_led())
        symbols = market_health.of_symbols(store, state, status, series, problems)
        problems += clock_skew.complaints(status.get("clock_skew_secs", {}))
        check_ownership(problems)
    except redis.RedisError as error:
        problems.append(reasons.of_store(error, for_anyone=True))
    problems += refresher.complaints()
    age, memory = refresher.age(), refresher.memory()
    if state or age is not None:  # else the age isn't known
        check_trust(age, problems)
    return {
        "can_serve": can_serve,
        "epoch": position.epoch if position else None,
        "revision": position.revision if position else None,
        "symbols_known": len(settings.UNIVERSE),
        "symbols_filled": filled,
        "total_tickers_count": len(settings.UNIVERSE),
        "active_tickers_count": filled,
        **symbols,
        "last_trusted_update_age_secs": None if age is None else round(age, 1),
        "last_update_timestamp": None if age is None else _ago(age),
        "trust_window_secs": settings.TRUST_WINDOW,
        "public_bars": settings.PUBLIC_BARS,
        "snapshot": {
            "memory_bytes": memory.used,
            "memory_limit_bytes": memory.limit,
            "symbols_with_history": memory.held,
            "symbols_without_history": memory.not_held,  # read from the store
        },
        "overlays": state.overlays if isinstance(state, State) else None,
        "held": state.held if isinstance(state, State) else None,
        "contradicted_peers": contradicted,
        "store": server,
        "clock_skew_secs": status.get("clock_skew_secs", {}),
        "worker": status,
        "iteration_count": status.get("iterations", 0),
    }


def leaders_problems() -> list[str]:
    """Return the problems as the leading worker sees them, which serves nothing and holds no
    snapshot. Raises RedisError when the store is away."""
    store, problems = wiring.store(), list[str]()
    state, status, series = store.state(), store.status(), market_health.newest_series(store)
    if not series:
        problems.append(EMPTY)
    check_server(store, problems)
    contradicted_peers(store, problems)
    check_worker(status, problems, is_led=True)
    market_health.of_symbols(store, state, status, series, problems)
    problems += clock_skew.complaints(status.get("clock_skew_secs", {}))
    check_trust(state.age, problems)
    check_ownership(problems)
    check_database(problems)
    read_cache(problems)
    return problems


def check_server(store: Store, problems: list[str]) -> dict[str, Any]:
    """Return the server's settings that keep a market safe."""
    info = store.client.info()
    server = {
        "version": info.get("valkey_version") or info.get("redis_version"),
        "append_only_file": bool(info.get("aof_enabled")),
        "eviction": info.get("maxmemory_policy", "unknown"),
        "used_memory_bytes": info.get("used_memory", 0),
        "memory_limit_bytes": info.get("maxmemory", 0),  # 0: none
    }
    problems += redis_checks.complaints(info)
    return server


def contradicted_peers(store: Store, problems: list[str]) -> list[dict[str, Any]]:
    """Return the peers that our source contradicted in the last 24 hours, and how often.

    Peers that sent what no market can have are among them; those with the highest counts are first.
    """
    counts = sorted(
        store.counted_against().items(), key=lambda item: (-sum(item[1].values()), item[0])
    )
    named = [
        {
            "peer": peer,
            "contradicted": of_peer.get("contradicted", 0),
            "impossible": of_peer.get("impossible", 0),
        }
        for peer, of_peer in counts[:MOST_NAMED]
    ]
    if named:
        worst = ", ".join(str(entry["peer"]) for entry in named[:3])
        more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
        problems.append(f"bars of peers were contradicted in the last 24 h: {worst}{more}")
    return named


def check_trust(age: float | None, problems: list[str]) -> None:
    if age is None:
        problems.append("no trusted update has come yet: public bars are refused")
    elif age > settings.TRUST_WINDOW:
        problems.append("the last trusted update is older than the trust window")


def check_worker(status: dict[str, Any], problems: list[str], *, is_led: bool) -> None:
    """Add what is wrong with the worker; ``is_led``: one has held the lease a moment ago."""
    if not status or not _is_of_this_mode(status):
        problems.append("no worker has told of a cycle yet: is manage.py run_worker running?")
        return
    silent = _seconds_silent(status)
    if silent > _late_after(status):
        problems.append(f"no worker has told of a cycle for {silent:.0f} s")
    elif not is_led:
        # Outside office hours a worker that lives is silent for minutes.
        problems.append("no worker leads: is manage.py run_worker running?")
    problems += [f"{duty} fails" for duty in status.get("housekeeping_failing", [])]
    if why := status.get("webhook_failure"):
        problems.append(f"{problem_webhook.FAILS}: it {why}")
    cycle = status.get("cycle", {})
    if errors := cycle.get("errors"):
        problems.append(f"the last cycle had errors: {errors[0]}")
    problems += left_upstreams(status.get("upstream", {}))
    if wrong := cycle.get("symbol_errors"):
        symbol, error = next(iter(wrong.items()))
        count = cycle.get("symbols_in_error", len(wrong))
        problems.append(f"symbols in error ({count}), among them {symbol}: {error}")
    if missing := cycle.get("missing"):
        count = cycle.get("symbols_missing", len(missing))
        problems.append(f"symbols missing from the answers ({count}): {', '.join(missing[:5])}")
    for kind in PEER_KINDS:
        check_delivery(kind, status.get("delivery", {}).get(kind, {}), problems)


def check_delivery(kind: PeerKind, status: dict[str, Any], problems: list[str]) -> None:
    """Add delivery's problems; peers are counted and not named, as their addresses are private."""
    if count := status.get("banned_by"):
        who = f"a {kind} peer bans" if count == 1 else f"{count} {kind} peers ban"
        problems.append(f"{who} this node, since {status['banned_since']}: ask its operator")
    if count := status.get("away"):
        one = "an" if kind is PeerKind.INTERNAL else "a"
        who = f"{one} {kind} peer has" if count == 1 else f"{count} {kind} peers have"
        problems.append(f"{who} failed or refused us since {status['away_since']}: see the log")
    if count := status.get("frozen"):
        one = "an" if kind is PeerKind.INTERNAL else "a"
        who = f"{one} {kind} peer is" if count == 1 else f"{count} {kind} peers are"
        problems.append(
            f"{who} frozen: settled bars only, since {status['frozen_since']} (an older node that "
            "keeps the first bar of a day and fetches none itself)"
        )


def left_upstreams(upstream: dict[str, Any]) -> list[str]:
    """Return the upstreams that failed while another is in use, with the reasons.

    If none is in use, the cycle's errors name them.
    """
    if not upstream.get("in_use"):
        return []
    return [
        f"the upstream at {each['source']} is left alone for a while: {each['why']}"
        for each in upstream.get("sources", [])
        if each["left_for_secs"]
    ]


def check_database(problems: list[str]) -> None:
    try:
        with bulkhead().inside():
            complaint = pending_migrations.complaint()
    except Error as error:
        complaint = reasons.of_database(error, for_anyone=True)
    if complaint:
        problems.append(complaint)


def check_ownership(problems: list[str]) -> None:
    try:
        ownership.check()
    except ownership.NotOursError:
        problems.append("the store or the cache isn't this node's alone: run manage.py doctor")
    except redis.RedisError:
        pass  # what is away is told where it is asked


def check_static_files(problems: list[str]) -> None:
    if complaint := static_files.complaint():
        problems.append(complaint)


def read_cache(problems: list[str]) -> int | None:
    """Return how many wrong tokens came in the last hour; that is no problem, or anyone could
    cause one. Only a neighbour of the node can be taken for a proxy."""
    try:
        problems += forgotten_proxies.complaints()
        return failures.in_the_last_hour()
    except redis.RedisError as error:
        problems.append(reasons.of_cache(error, for_anyone=True))
        return None


def pace(worker: dict[str, Any]) -> dict[str, Any]:
    """Return the pace as existing clients read it: whole seconds, and the hours as configured.

    The hours are shown also while the node's pace doesn't depend on them.
    """
    hours, clock = settings.OFFICE_HOURS, wiring.market_clock()
    interval = settings.CYCLE if clock.in_office_hours() else settings.CYCLE_OUTSIDE_HOURS
    if _is_of_this_run(worker):
        interval = worker.get("interval", interval)
    return {
        "is_office_hours": clock.exchange_trades(),
        "office_hours_enabled": hours.enabled,
        "timezone": str(hours.zone),
        "office_start_hour": hours.start.hour,
        "office_end_hour": hours.end.hour,
        "trading_hours": f"{hours.start:%H:%M}-{hours.end:%H:%M}",
        "current_interval_secs": max(1, math.ceil(interval)),
    }


def _mode() -> str:
    return "public" if settings.IS_PUBLIC_NODE else "core"


def _is_of_this_mode(worker: dict[str, Any]) -> bool:
    """Return whether the status is of the node's present mode, which settings may have changed."""
    return bool(worker.get("mode", _mode()) == _mode())


def _is_of_this_run(worker: dict[str, Any]) -> bool:
    """Return whether a running worker wrote this status since this process was started."""
    return (
        _is_of_this_mode(worker)
        and worker.get("told_at", 0.0) >= STARTED_AT
        and _seconds_silent(worker) <= _late_after(worker)
    )


def _seconds_silent(worker: dict[str, Any]) -> float:
    """Return the seconds since a worker wrote this status."""
    return max(0.0, time.time() - float(worker.get("told_at", 0.0)))


def _late_after(worker: dict[str, Any]) -> float:
    """Return after how many seconds a worker that wrote this status is late."""
    return LATE_CYCLES * float(worker.get("interval", 0)) + GRACE


def memory() -> dict[str, Any]:
    used, limit = psutil.Process().memory_info().rss, psutil.virtual_memory().total
    return {
        "memory_usage_bytes": used,
        "memory_usage_mb": round(used / 2**20, 2),
        "memory_limit_mb": limit // 2**20,
        "memory_usage_percent": round(100 * used / limit, 2),
    }


@functools.cache
def build() -> dict[str, str]:
    """Return which code runs, from a packaged node's variables or git's view of a checkout."""
    return {
        "build_date": settings.BUILD_DATE or _git("log", "-1", "--format=%cI") or "unknown",
        "git_commit": settings.GIT_COMMIT or _git("rev-parse", "--short", "HEAD") or "unknown",
    }


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    answer = subprocess.run(  # noqa: S603 - git with constant arguments, no shell
        [git, *arguments], cwd=settings.BASE_DIR, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _with_z(moment: dt.datetime) -> str:
    """Return a moment as RFC 3339 in UTC with a Z, as existing nodes write it."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _ago(age: float) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age)).isoformat(timespec="milliseconds")
