"""How gunicorn serves a node. benchmarks/README.md has what each alternative was measured to do."""

import logging
import multiprocessing
from typing import Any

from proxy_site.serving.log_filters import is_no_refusal
from proxy_site.settings import PORT, THREADS, TRUSTED_PROXIES

wsgi_app = "proxy_site.wsgi:application"
bind = f"0.0.0.0:{PORT}"
# One a core: each keeps the market in its own memory, and one more read no faster.
workers = multiprocessing.cpu_count()
# Reads come from memory, and a thread waits for Redis, SQL or a slow client while others answer.
# gevent read a third faster, but one process waiting for SQL would keep everybody waiting, and a
# post beside readers of the whole market took longer; sync workers keep no connection alive.
# gthread itself lets slow clients hold its threads for ever.
worker_class = "proxy_site.serving.gunicorn_worker.GunicornWorker"
# More cost reads some percent, fewer make others wait for two slow clients.
threads = THREADS
# preload_app stays off: what takes memory is the market, which is read after the fork, and a
# reload (HUP) picks up new code only without it. http_parser stays "auto": the C parser comes as
# source only, and a node installs without a compiler.
keepalive = 30  # seconds: peers and proxies reuse their connections
timeout = 30
graceful_timeout = 5
# Recycled now and then, at different moments, as insurance against slow leaks.
max_requests = 200_000
max_requests_jitter = 20_000
accesslog = None  # a line a request would cost more than the request; the proxy in front has one
errorlog = "-"
logging.getLogger("gunicorn.error").addFilter(is_no_refusal)
# Its path is the user's, not the node's: two nodes of one user would share it.
control_socket_disable = True
# Who may say that a request came by HTTPS. By default gunicorn believes any local client, and any
# of three headers, of which a proxy may pass on those that it doesn't set itself.
forwarded_allow_ips = ",".join(TRUSTED_PROXIES)
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarder_headers = ""  # nor may a request name another path than its own


def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:
    forwards = "HTTP_X_FORWARDED_FOR" in environ
    worker.answered(environ["REMOTE_ADDR"], resp.status_code, forwards=forwards)
