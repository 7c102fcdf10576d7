"""The shapes of what a node takes and answers, as JSON Schema: the OpenAPI document's components.

They say what the code does; tests/security/ sends each address valid and invalid requests and holds
the answers against them.
"""

from typing import Any

from gossip.wire import MAX_LIST
from tickers.bar import MAX_PRICE, MAX_VOLUME
from tickers.verdict import Verdict

Shape = dict[str, Any]

POSITION = "[0-9A-Za-z]+-[0-9]+"
_EPOCH = {"type": ["string", "null"], "description": "A random id of one life of the store."}

EXAMPLE_BAR = {
    "symbol": "VCB",
    "time": "2025-08-15T00:00:00Z",
    "open": 64300,
    "high": 64900,
    "low": 64000,
    "close": 64500,
    "volume": 5_120_300,
}

# What becomes of a bar that a door took; a refused one says why instead.
TAKEN = [
    Verdict.ADDED.value,
    Verdict.REPLACED.value,
    Verdict.UNCHANGED.value,
    Verdict.KEPT.value,
    Verdict.LAID.value,
    Verdict.JUDGED.value,
    "held",
]


def ref(name: str) -> Shape:
    return {"$ref": f"#/components/schemas/{name}"}


def record(properties: Shape, description: str, *, closed: bool = True, **more: Any) -> Shape:
    """An object with all of ``properties``; ``closed``: and with nothing else."""
    shape = {"type": "object", "description": description, "properties": properties, **more}
    shape["required"] = list(properties)
    return {**shape, "additionalProperties": False} if closed else shape


def _list(items: Shape, **more: Any) -> Shape:
    return {"type": "array", "items": items, **more}


def _symbol(description: str, **more: Any) -> Shape:
    return {"type": "string", "pattern": "^[A-Z0-9]{1,16}$", "description": description, **more}


def _text(description: str, **more: Any) -> Shape:
    return {"type": "string", "description": description, **more}


def _number(description: str, **more: Any) -> Shape:
    return {"type": "number", "description": description, **more}


def _count(description: str, **more: Any) -> Shape:
    return {"type": "integer", "minimum": 0, "description": description, **more}


def _prices() -> Shape:
    bounds = {"exclusiveMinimum": 0, "maximum": MAX_PRICE}
    return {
        "open": _number("VND, or points for an index.", **bounds),
        "high": _number("Not below any other price, but for the open of trusted bars.", **bounds),
        "low": _number("At most high.", **bounds),
        "close": _number("From low to high.", **bounds),
    }


def _volume() -> Shape:
    return _count("Shares.", maximum=MAX_VOLUME - 1)


BAR = record(
    {
        "symbol": _symbol("A share, fund or index."),
        "time": _text(
            "The trading day, as the exchange dates it.",
            format="date-time",
            pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T00:00:00Z$",
        ),
        **_prices(),
        "volume": _volume(),
    },
    "One symbol's open, high, low, close and volume on one trading day.",
    example=EXAMPLE_BAR,
)

GOSSIPED_BAR = record(
    {
        "symbol": _text("Its case is folded.", pattern="^[A-Za-z0-9]{1,16}$"),
        "time": {
            "description": "An RFC 3339 time, of which the day in Asia/Ho_Chi_Minh counts, "
            "or a bare date.",
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "format": "date"},
            ],
        },
        **_prices(),
        "volume": _volume(),
    },
    "A bar as a door takes it; unknown fields are ignored. The public door wants the open to lie "
    "between low and high too.",
    closed=False,
    example=EXAMPLE_BAR,
)

RESULT: Shape = {
    "description": "What became of a bar.",
    "oneOf": [
        record(
            {
                "symbol": _symbol("The bar's."),
                "verdict": _text(
                    "added, replaced: stored. unchanged: equal to what is served. kept: what is "
                    "stored stands. laid: a public bar, served over the trusted one. judged: a "
                    "plausible public bar that isn't served. held: a public bar that waits for "
                    "somebody else to say the same.",
                    enum=TAKEN,
                ),
            },
            "A bar that was taken.",
        ),
        record(
            {
                "symbol": _symbol("null for what is no bar.", type=["string", "null"]),
                "verdict": {"type": "string", "const": "refused"},
                "detail": _text("Why.", minLength=1),
            },
            "A bar of a list that was refused.",
        ),
    ],
}

HEALTH = record(
    {
        "status": _text("degraded: something is in problems.", enum=["ok", "degraded"]),
        "problems": _list({"type": "string"}, description="What is wrong, in words."),
        "node_name": {"type": "string"},
        "environment": {"type": "string", "enum": ["development", "staging", "production"]},
        "mode": _text("public: it follows a core network.", enum=["core", "public"]),
        "uptime_secs": _count("Of the process that answers."),
        "current_system_time": _text("The market clock's.", format="date-time"),
        "debug_time_override": {
            "type": ["string", "null"],
            "description": "Where the market clock is frozen, in UTC.",
        },
        "trading_day": _text("The last day whose session has opened.", format="date"),
        "build_date": {"type": "string"},
        "git_commit": {"type": "string"},
        "can_serve": {"type": "boolean", "description": "false: the answer is a 503."},
        "epoch": _EPOCH,
        "revision": {"type": ["integer", "null"], "minimum": 0},
        "symbols_known": _count("In the universe."),
        "symbols_filled": _count("With bars."),
        "total_tickers_count": _count("symbols_known, by its older name."),
        "active_tickers_count": _count("symbols_filled, by its older name."),
        "last_trusted_update_age_secs": {"type": ["number", "null"], "minimum": 0},
        "last_update_timestamp": {"type": ["string", "null"], "format": "date-time"},
        "trust_window_secs": _number(
            "Seconds without a trusted update that close the public door."
        ),
        "public_bars": _text("What becomes of a plausible public bar."),
        "overlays": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Symbols that rest on a public bar now; null while the store is away.",
        },
        "held": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Symbols of which public bars wait for a second sender.",
        },
        "token_failures_last_hour": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Requests with a wrong token; null while the cache is away.",
        },
        "store": {"type": "object", "description": "Of its settings, what keeps a market safe."},
        "clock_skew_secs": {"type": "object"},
        "worker": {"type": "object", "description": "What the worker told after its last cycle."},
        "iteration_count": _count("Cycles of the worker."),
        "is_office_hours": {
            "type": "boolean",
            "description": "Whether the exchange trades now, by the configured hours.",
        },
        "office_hours_enabled": {"type": "boolean"},
        "timezone": {"type": "string"},
        "office_start_hour": _count("In that timezone.", maximum=23),
        "office_end_hour": _count("In that timezone.", maximum=23),
        "trading_hours": {"type": "string"},
        "current_interval_secs": _count("Between the starts of two cycles.", minimum=1),
        "memory_usage_bytes": _count("Of the process that answers."),
        "memory_usage_mb": _number("The same, in MiB.", minimum=0),
        "memory_limit_mb": _number("The machine's, in MiB.", minimum=0),
        "memory_usage_percent": _number("Of the machine's memory.", minimum=0),
        "peers": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
        "internal_peers_count": _count("Peers with the token."),
        "public_peers_count": _count("Peers without."),
    },
    "What a node knows of itself.",
    closed=False,
)

SHAPES: dict[str, Shape] = {
    "Bar": BAR,
    "Market": {
        "type": "object",
        "description": "{symbol: its bars, sorted by day}; symbols without any are left out.",
        "propertyNames": {"pattern": "^[A-Z0-9]{1,16}$"},
        "additionalProperties": _list(ref("Bar"), minItems=1),
    },
    "Changes": record(
        {
            "position": _text("Where to go on from; also the ETag.", pattern=f"^{POSITION}$"),
            "bars": _list(ref("Bar"), description="Each as it is now, once."),
            "replaced": _list(
                _symbol("Of a series."),
                description="Symbols whose whole series is to be read again.",
            ),
        },
        "What changed since a position: trusted bars only.",
    ),
    "Sectors": {
        "type": "object",
        "description": "{sector: [symbol, ...]}, both sorted.",
        "additionalProperties": _list(_symbol("In this sector.")),
        "example": {"NGAN_HANG": ["ACB", "VCB"]},
    },
    "Health": HEALTH,
    "GossipedBar": GOSSIPED_BAR,
    "Gossip": {
        "description": "One bar or a list of bars.",
        "oneOf": [ref("GossipedBar"), _list(ref("GossipedBar"), minItems=1, maxItems=MAX_LIST)],
    },
    "Result": RESULT,
    "Answer": {
        "description": "What became of the bar, or of each bar of a list, in its order.",
        "oneOf": [
            ref("Result"),
            record(
                {"results": _list(ref("Result"), minItems=1, maxItems=MAX_LIST)},
                "The answer to a list.",
            ),
        ],
    },
    "Error": record(
        {"detail": _text("What is wrong, for a person.", minLength=1)},
        "Every refusal and failure.",
        example={"detail": "limit must be a whole number from 1 to 100000."},
    ),
}
