"""The settings of a node, read top to bottom from environment variables (or the file .env).

.env.example explains each. A missing or wrong value ends the process with one line.
"""

import datetime as dt
import os
import sys
from pathlib import Path
from urllib.parse import quote
from urllib.request import getproxies

from proxy_site import env_file, file_modes
from proxy_site.cache_settings import cache
from proxy_site.environment import Environment, SettingsError, next_database, same_database
from proxy_site.listening import listening
from proxy_site.local import embedded_redis
from proxy_site.serving import THREADS
from proxy_site.web_urls import check_proxy, check_upstreams, refuse_self
from tickers.market_clock import MarketClock, OfficeHours
from tickers.universe import DEFAULT_FILE, Universe, UniverseError

BASE_DIR = Path(__file__).resolve().parent.parent

ENV_FILE = Path(os.environ.get("ENV_FILE") or BASE_DIR / ".env")
if os.environ.get("ENV_FILE") and not env_file.is_there(ENV_FILE):
    raise SettingsError("ENV_FILE", "names no file", str(BASE_DIR / ".env"))
env = Environment(os.environ, ENV_FILE)

# --- The node ---------------------------------------------------------------------------------
ENVIRONMENT = env.kind
NODE_NAME = env.text("NODE_NAME") or "aipriceaction-proxy"
BUILD_DATE = env.text("BUILD_DATE")
GIT_COMMIT = env.text("GIT_COMMIT")
PORT = env.integer("PORT", 3000, low=1, high=65_535)
BIND = listening("BIND", env.words("BIND") or ["127.0.0.1"], port=PORT)
DATA_DIR = env.location("DATA_DIR", BASE_DIR / "var").resolve()

SECRET_KEY = env.secret_key("SECRET_KEY")
PRIMARY_TOKEN = env.token("PRIMARY_TOKEN")
SECONDARY_TOKEN = env.token("SECONDARY_TOKEN")
if PRIMARY_TOKEN == SECONDARY_TOKEN:
    raise SettingsError(
        "SECONDARY_TOKEN", "equals PRIMARY_TOKEN: a rotation needs two", "$(openssl rand -hex 32)"
    )

ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", "*" if env.development else "")
if not ALLOWED_HOSTS:
    raise SettingsError(
        "ALLOWED_HOSTS", "is missing: the names that clients reach this node by", "api.example.com"
    )

# --- The network ------------------------------------------------------------------------------
DEFAULT_UPSTREAM = "https://trading.vietcap.com.vn/api/"
DEFAULT_PUBLIC_PEER = "https://api.aipriceaction.com"
CORE_NETWORK_URLS = env.urls("CORE_NETWORK_URL", example="https://core.example.com")
IS_PUBLIC_NODE = bool(CORE_NETWORK_URLS)
if env.production and not IS_PUBLIC_NODE and not env.is_set("INTERNAL_PEER_URLS"):
    raise env.missing(
        "INTERNAL_PEER_URLS",
        "must be set for a core node in production; set it empty for none",
        "https://node-b.example.com,https://node-c.example.com",
    )
INTERNAL_PEER_URLS = env.urls("INTERNAL_PEER_URLS", example="https://node-b.example.com")
# A node started on a laptop must not send to the whole network: only production has the default.
PUBLIC_PEER_URLS = env.urls(
    "PUBLIC_PEER_URLS", DEFAULT_PUBLIC_PEER if env.production else "", example=DEFAULT_PUBLIC_PEER
)
for _name, _urls in (
    ("CORE_NETWORK_URL", CORE_NETWORK_URLS),
    ("INTERNAL_PEER_URLS", INTERNAL_PEER_URLS),
    ("PUBLIC_PEER_URLS", PUBLIC_PEER_URLS),
):
    refuse_self(_name, _urls, port=PORT, own_hosts=ALLOWED_HOSTS)

HTTPS_PROXY = env.proxy("HTTPS_PROXY")
HTTP_PROXY = env.proxy("HTTP_PROXY")
NO_PROXY = env.either_case("NO_PROXY")
# requests takes this one, of the environment only, where neither of the two is set.
if "all" in (_proxies := getproxies()):
    check_proxy("ALL_PROXY", _proxies["all"])
# requests and tickers.outbound_proxy read the environment, so those of the file are put there.
for _name, _value in (
    ("HTTPS_PROXY", HTTPS_PROXY),
    ("HTTP_PROXY", HTTP_PROXY),
    ("NO_PROXY", NO_PROXY),
):
    if _value:
        os.environ[_name] = _value

# --- The market -------------------------------------------------------------------------------
try:
    UNIVERSE_FILE = env.location("UNIVERSE_FILE", Path(DEFAULT_FILE))
    UNIVERSE = Universe.read(UNIVERSE_FILE)
except UniverseError as error:
    raise SettingsError("UNIVERSE_FILE", str(error), "/etc/aipriceaction/universe.csv") from None
try:
    UNIVERSE = UNIVERSE.only(env.words("TICKERS") or UNIVERSE.symbols)
except UniverseError as error:
    raise SettingsError("TICKERS", str(error), "VCB,FPT,VNINDEX") from None
MAX_SYMBOLS = env.integer("MAX_SYMBOLS", 3_000, low=1, high=3_000)
HISTORY_START = env.date("HISTORY_START", "2024-01-01")

VCI_BASE_URLS = [
    f"{url}/"
    for url in env.urls(
        "VCI_BASE_URL",
        DEFAULT_UPSTREAM,
        example=f"{DEFAULT_UPSTREAM},https://node-b.example.com/api/",
        with_path=True,
    )
    or [DEFAULT_UPSTREAM.rstrip("/")]
]
check_upstreams("VCI_BASE_URL", VCI_BASE_URLS)
refuse_self("VCI_BASE_URL", VCI_BASE_URLS, port=PORT, own_hosts=ALLOWED_HOSTS)
VCI_RATE_LIMIT = env.integer("VCI_RATE_LIMIT", 30, low=1, high=6_000)  # of each, in any 61 s
VCI_BATCH_SIZE = env.integer("VCI_BATCH_SIZE", 50, low=1, high=1_000)  # symbols a request

# Seconds between the starts of two cycles.
CORE_WORKER_INTERVAL = env.number("CORE_WORKER_INTERVAL", 5, low=0.1, high=86_400)
NON_OFFICE_HOURS_INTERVAL = env.number("NON_OFFICE_HOURS_INTERVAL", 300, low=0.1, high=86_400)
PUBLIC_REFRESH_INTERVAL = env.number("PUBLIC_REFRESH_INTERVAL", 300, low=0.1, high=86_400)
OFFICE_HOURS = OfficeHours(
    enabled=env.flag("ENABLE_OFFICE_HOURS", default=True),
    start=env.time_of_day("OFFICE_HOURS_START", "09:00"),
    end=env.time_of_day("OFFICE_HOURS_END", "15:00"),
    zone=env.timezone("OFFICE_HOURS_TIMEZONE", "Asia/Ho_Chi_Minh"),
)
if OFFICE_HOURS.start >= OFFICE_HOURS.end:
    raise SettingsError("OFFICE_HOURS_END", "must be later than OFFICE_HOURS_START", "15:00")
EXTRA_HOLIDAYS = env.dates("EXTRA_HOLIDAYS")
EXTRA_TRADING_DAYS = env.dates("EXTRA_TRADING_DAYS")
_debug_system_time = env.instant("DEBUG_SYSTEM_TIME")
DEBUG_SYSTEM_TIME = None if env.production else _debug_system_time
if MarketClock(frozen_at=DEBUG_SYSTEM_TIME).today() < HISTORY_START:
    raise SettingsError("HISTORY_START", "lies in the future", "2024-01-01")

# --- Trust ------------------------------------------------------------------------------------
TRUST_WINDOW = env.number("TRUST_WINDOW", 300, low=1, high=86_400)  # seconds
MAX_PRICE_CHANGE = env.number("MAX_PRICE_CHANGE", 0.10, low=0.001, high=1)  # 0.10 is 10 %
# Seconds between two contacts with a trusted source in office hours. At least two fit into the
# trust window, so that one that fails doesn't close the public door.
CYCLE = min(PUBLIC_REFRESH_INTERVAL if IS_PUBLIC_NODE else CORE_WORKER_INTERVAL, TRUST_WINDOW / 2)
# The same outside office hours. A public node's core network is asked as often as in them.
CYCLE_OUTSIDE_HOURS = CYCLE if IS_PUBLIC_NODE else NON_OFFICE_HOURS_INTERVAL
PUBLIC_BARS = env.choice(
    "PUBLIC_BARS", "immediate", ("immediate", "when_late", "corroborated", "never")
)
# Two actors in one IPv6 network of this prefix aren't independent (PUBLIC_BARS=corroborated).
INDEPENDENT_IPV6_PREFIX = env.integer("INDEPENDENT_IPV6_PREFIX", 64, low=32, high=64)
CLAIMS_PER_HOUR = env.integer("CLAIMS_PER_HOUR", 10, low=1, high=100_000)  # of one actor
BAN_AFTER_FAILURES = env.integer("BAN_AFTER_FAILURES", 5, low=0, high=1_000_000)
# Hours. An honest actor errs for a day (an adjustment moved the anchor), not day after day.
FAILURE_HALF_LIFE = env.number("FAILURE_HALF_LIFE", 24, low=0.001, high=87_600)
BAN_HOURS = env.number("BAN_HOURS", 24, low=0.001, high=87_600)
# Addresses change hands, so a ban for failures must end.
MAX_BAN_HOURS = env.number("MAX_BAN_HOURS", 720, low=0.001, high=87_600)
if MAX_BAN_HOURS < BAN_HOURS:
    raise SettingsError("MAX_BAN_HOURS", "must not be less than BAN_HOURS", f"{BAN_HOURS:g}")
TRUST_AFTER_CONFIRMED = env.integer("TRUST_AFTER_CONFIRMED", 100, low=1, high=1_000_000)
# Hours. It is longer than the longest holiday (Tết, nine days), when nothing is confirmed.
CONFIRMED_HALF_LIFE = env.number("CONFIRMED_HALF_LIFE", 336, low=0.001, high=87_600)
# Days for which prune_actors keeps hourly counts, idle actors, and the history of deleted ones.
KEEP_HOURLY_COUNTS = env.integer("KEEP_HOURLY_COUNTS", 30, low=1, high=3_650)
KEEP_IDLE_ACTORS = env.integer("KEEP_IDLE_ACTORS", 90, low=1, high=3_650)
KEEP_HISTORY = env.integer("KEEP_HISTORY", 730, low=1, high=36_500)
PUBLIC_RATE = env.rate("PUBLIC_RATE", "20/2s")
TRUSTED_RATE = env.rate("TRUSTED_RATE", "100/2s")
TRUSTED_PROXIES = env.networks("TRUSTED_PROXIES")
TOKEN_FAILURE_RATE = env.rate("TOKEN_FAILURE_RATE", "10/1m")

# --- Storage ----------------------------------------------------------------------------------
if env.production and not env.text("REDIS_URL"):
    raise env.missing(
        "REDIS_URL", "is missing: production needs a server", "redis://127.0.0.1:6379/0"
    )
USES_EMBEDDED_SERVER = not env.text("REDIS_URL")
REDIS_URL = (
    env.redis_url("REDIS_URL", "") if not USES_EMBEDDED_SERVER else embedded_redis.url(DATA_DIR)
)
CACHE_URL = env.redis_url("CACHE_URL", next_database(REDIS_URL))
CACHE_HAS_ITS_OWN_URL = bool(env.text("CACHE_URL"))
if same_database(CACHE_URL, REDIS_URL):
    raise SettingsError(
        "CACHE_URL",
        "is the database of REDIS_URL: clearing the cache would clear the market",
        "redis://127.0.0.1:6379/1",
    )
# Seconds for which a web process takes the store's position to be unchanged.
POSITION_LIFETIME = 0.02
# Megabytes of a web process's snapshot and of the bodies that it keeps.
SNAPSHOT_MEMORY = env.integer("SNAPSHOT_MEMORY", 512, low=1, high=1_048_576)
REDIS_TIMEOUT = 5.0  # seconds, to connect and for each answer

CACHES = {"default": cache(CACHE_URL, timeout=REDIS_TIMEOUT)}

DATABASE_HAS_ITS_OWN_URL = bool(env.text("DATABASE_URL"))
_database = env.database("DATABASE_URL", f"sqlite:///{quote(str(DATA_DIR / 'reputation.sqlite3'))}")
if _database["ENGINE"] == "django.db.backends.sqlite3":
    try:
        _folder = Path(_database["NAME"]).parent
        file_modes.make_folder(
            _folder,
            file_modes.DATA_FOLDER if _folder == DATA_DIR else file_modes.PRIVATE_FOLDER,
        )
    except OSError as error:
        raise SettingsError(
            "DATABASE_URL" if DATABASE_HAS_ITS_OWN_URL else "DATA_DIR",
            f"names a folder that can't be made: {error.strerror}",
            "sqlite:////srv/node/reputation.sqlite3" if DATABASE_HAS_ITS_OWN_URL else "/srv/node",
        ) from None
    if Path(_database["NAME"]).is_dir():
        raise SettingsError(
            "DATABASE_URL", "names a folder, not a file", "sqlite:////srv/node/reputation.sqlite3"
        )
    # With FULL an answered write survives a power cut too. Writes are few: failures, bans, batches.
    _database["OPTIONS"] = {
        "timeout": 5,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
else:
    # Parameters of the URL (?sslmode=verify-full) come before these.
    _database = {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True, **_database}
    # A server that doesn't acknowledge what was sent within 5 s (in ms) is gone, and a query fails.
    _database["OPTIONS"] = {
        "connect_timeout": 5,
        "tcp_user_timeout": 5_000,
        **_database.get("OPTIONS", {}),
    }
DATABASES = {"default": _database}
# Threads of a web process that may use the database at once: it may hang, and the other threads
# don't need it.
DATABASE_THREADS = THREADS // 2
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Django -----------------------------------------------------------------------------------
DEBUG = False
ROOT_URLCONF = "proxy_site.urls"
WSGI_APPLICATION = "proxy_site.wsgi.application"
INSTALLED_APPS = [
    "proxy_site.admin_site.config.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "axes",
    "reputation",
    "proxy_site",
]
MIDDLEWARE = [
    "proxy_site.middleware.ForgottenProxies",
    "proxy_site.middleware.DatabaseConnections",
    "proxy_site.middleware.PageSecurity",
    "proxy_site.middleware.PageFiles",
    "proxy_site.middleware.PageSessions",
    "proxy_site.middleware.AllowedHosts",
    "proxy_site.middleware.PageForms",
    "proxy_site.middleware.PageLogins",
    "proxy_site.middleware.PageMessages",
    "proxy_site.middleware.PageFrames",
    "proxy_site.middleware.PageLockouts",
]
# These checks look for classes by name; ours are subclasses of those (proxy_site/middleware.py).
SILENCED_SYSTEM_CHECKS = ["security.W001", "security.W002", "security.W003", "axes.W002"]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# --- The admin ----------------------------------------------------------------------------------
ADMIN_PATH = env.path("ADMIN_PATH", "admin/")
# Failed logins from one address (an IPv6 /64 is one) until it is locked out, and for how long.
LOGIN_FAILURES = env.integer("LOGIN_FAILURES", 5, low=1, high=1_000)
LOGIN_LOCKOUT_MINUTES = env.number("LOGIN_LOCKOUT_MINUTES", 15, low=0.1, high=10_080)
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_FAILURE_LIMIT = LOGIN_FAILURES
AXES_COOLOFF_TIME = dt.timedelta(minutes=LOGIN_LOCKOUT_MINUTES)
# Lockout isn't by user name: anybody who knows a name could lock its owner out.
AXES_LOCKOUT_PARAMETERS = ["ip_address"]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_ONLY_ADMIN_SITE = True
AXES_CLIENT_IP_CALLABLE = "proxy_site.admin_site.lockout.client_ip"
AXES_LOCKOUT_CALLABLE = "proxy_site.admin_site.lockout.locked_out"
AXES_VERBOSE = False  # log lines then name the address, not what was typed
AXES_SENSITIVE_PARAMETERS = ["username", "otp_token", "csrfmiddlewaretoken"]

ADMIN_SECOND_FACTOR = env.flag("ADMIN_SECOND_FACTOR", default=False)
if ADMIN_SECOND_FACTOR:
    INSTALLED_APPS += ["django_otp", "django_otp.plugins.otp_totp"]
    MIDDLEWARE.insert(
        MIDDLEWARE.index("proxy_site.middleware.PageLogins") + 1,
        "proxy_site.middleware.PageSecondFactor",
    )
    OTP_TOTP_ISSUER = NODE_NAME
    OTP_ADMIN_HIDE_SENSITIVE_DATA = True

# --- HTTP ---------------------------------------------------------------------------------------
# API addresses have no trailing slash; POST bodies must not be lost to a redirect.
APPEND_SLASH = False
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

MAX_BODY = 1_000_000  # bytes of a request's body
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY

STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
# nginx reads static files as another user, whatever the umask of the user that collected them.
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o755
FILE_UPLOAD_PERMISSIONS = 0o644
# Files that aren't collected (by collectstatic) are found where they are.
WHITENOISE_USE_FINDERS = True
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "proxy_site.static_files.CollectedFiles"
        if env.production
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
    "UNAUTHENTICATED_USER": None,
    "EXCEPTION_HANDLER": "proxy_site.exception_handler.handle",
    "DEFAULT_METADATA_CLASS": None,  # /openapi.json describes the API; OPTIONS is for preflights
    # ?format= is a parameter of existing nodes; here it is ignored like any other unknown one.
    "URL_FORMAT_OVERRIDE": None,
}

if env.production:
    # Only people's pages are redirected: a redirected POST would already have sent its token.
    SECURE_SSL_REDIRECT = env.flag("SECURE_SSL_REDIRECT", default=True)
    SECURE_REDIRECT_EXEMPT = [rf"^(?!{ADMIN_PATH.rstrip('/')})"]
    SECURE_HSTS_SECONDS = env.integer("SECURE_HSTS_SECONDS", 31_536_000, low=0, high=63_072_000)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = env.flag("SECURE_HSTS_INCLUDE_SUBDOMAINS", default=False)
    SECURE_HSTS_PRELOAD = env.flag("SECURE_HSTS_PRELOAD", default=False)
    if SECURE_HSTS_PRELOAD and not SECURE_HSTS_INCLUDE_SUBDOMAINS:
        raise SettingsError(
            "SECURE_HSTS_PRELOAD", "needs SECURE_HSTS_INCLUDE_SUBDOMAINS=true", "false"
        )
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
# SECURE_PROXY_SSL_HEADER would believe any client; gunicorn.conf.py believes TRUSTED_PROXIES only.
X_FRAME_OPTIONS = "DENY"
CSRF_TRUSTED_ORIGINS = env.urls("CSRF_TRUSTED_ORIGINS", example="https://api.example.com")

LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
PROBLEM_WEBHOOK = env.webhook("PROBLEM_WEBHOOK")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "filters": {"failures": {"()": "proxy_site.serving.log_filters.OnlyFailures"}},
    "handlers": {
        "stdout": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "line",
        }
    },
    "root": {"handlers": ["stdout"], "level": "WARNING"},
    "loggers": {
        **{
            name: {"level": LOG_LEVEL} for name in ("proxy_site", "tickers", "gossip", "reputation")
        },
        # Its warning of headers that can't be read has the whole URL, and a webhook's is a secret.
        "urllib3": {"level": "ERROR"},
        # Refusals are counted, not logged: a flood would fill the disk. These loggers have a line
        # for each 4xx; at ERROR the first has one for each 5xx only.
        "django.request": {"level": "ERROR", "filters": ["failures"]},
        "django.security": {"level": "CRITICAL"},
    },
}

# --- Remarks for the operator -------------------------------------------------------------------
REMARKS = env.remarks  # what the operator may not have meant
if IS_PUBLIC_NODE and (INTERNAL_PEER_URLS or env.text("PUBLIC_PEER_URLS")):
    REMARKS.append(
        "INTERNAL_PEER_URLS and PUBLIC_PEER_URLS have no effect: CORE_NETWORK_URL makes this a "
        "public node, which sends to nobody"
    )
if set(INTERNAL_PEER_URLS) & set(PUBLIC_PEER_URLS):
    REMARKS.append(
        "PUBLIC_PEER_URLS names a node of INTERNAL_PEER_URLS, which gets every bar twice"
    )
if env.production and env.text("DEBUG_SYSTEM_TIME"):
    REMARKS.append("DEBUG_SYSTEM_TIME has no effect in production")
if any("://" in word or word.startswith("*.") for word in NO_PROXY.replace(" ", "").split(",")):
    REMARKS.append(
        "NO_PROXY takes hosts (and all below them), addresses and networks, and neither URLs nor *."
    )
for _remark in REMARKS:
    sys.stderr.write(f"aipriceaction-proxy: {_remark}\n")
