"""How gunicorn serves a node."""

import multiprocessing

from proxy_site.settings import PORT

wsgi_app = "proxy_site.wsgi:application"
bind = f"0.0.0.0:{PORT}"
workers = multiprocessing.cpu_count()
# Reads are short and come from memory; threads keep a worker answering while one waits for Redis.
worker_class = "gthread"
threads = 4
keepalive = 30  # seconds: peers and proxies reuse their connections
timeout = 30
graceful_timeout = 5
# Recycled now and then, at different moments, as insurance against slow leaks.
max_requests = 200_000
max_requests_jitter = 20_000
accesslog = None  # a line a request would cost more than the request; the proxy in front has one
errorlog = "-"
# Its path is the user's, not the node's: two nodes of one user would share it.
control_socket_disable = True
