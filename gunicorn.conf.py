"""The settings of gunicorn; benchmarks/README.md has what each alternative was measured to do.

This file runs in the master, at the start and at each HUP. It may import nothing that reads the
node's settings (proxy_site/serving/reload.py says why).
"""

import logging
import multiprocessing
from typing import Any

from proxy_site.serving import THREADS
from proxy_site.serving.log_filters import is_no_refusal
from proxy_site.serving.reload import check_before_reload, listening, place_sockets, take_over

wsgi_app = "proxy_site.wsgi:application"
bind = listening()
# A unix socket is for the user and the group that the node runs as.
umask = 0o007
# One worker a core: each keeps the market in its own memory, and one more made reads no faster.
workers = multiprocessing.cpu_count()
# Reads come from memory, and a thread waits for Redis, SQL or a slow client while others answer.
# With gevent reads were a third faster, but one wait for SQL would stop its whole process, and a
# post beside readers of the whole market took longer. Sync workers keep no connection alive.
# gthread itself lets slow clients hold its threads for ever.
worker_class = "proxy_site.serving.gunicorn_worker.GunicornWorker"
# More threads cost reads some percent; with fewer, two slow clients make others wait.
threads = THREADS
# preload_app stays off: the market, which takes the memory, is read after the fork, and a reload
# (HUP) picks up new settings only without it. http_parser stays "auto": the C parser comes as
# source only, and a node installs without a compiler.
keepalive = 30  # seconds: peers and proxies reuse their connections
timeout = 30
graceful_timeout = 5
# Workers are recycled now and then, at different moments, against slow leaks.
max_requests = 200_000
max_requests_jitter = 20_000
accesslog = None  # a line would cost more than its request; the proxy in front has such a log
errorlog = "-"
logging.getLogger("gunicorn.error").addFilter(is_no_refusal)
# The control socket's path is the user's, not the node's: two nodes of one user would share it.
control_socket_disable = True
# Who may say that a request came by HTTPS: nobody here; each worker adds TRUSTED_PROXIES. By itself
# gunicorn believes any local client, and any of three headers, of which a proxy may pass on those
# that it doesn't set.
forwarded_allow_ips = ""
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarder_headers = ""  # nor may a request name another path than its own


def when_ready(arbiter: Any) -> None:
    check_before_reload(arbiter)


def pre_exec(arbiter: Any) -> None:
    place_sockets(arbiter)


def post_worker_init(worker: Any) -> None:
    take_over(worker)


def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:
    forwards = "HTTP_X_FORWARDED_FOR" in environ
    worker.answered(environ["REMOTE_ADDR"], resp.status_code, forwards=forwards)
