"""nginx in front of a node, as deploy/nginx-site.conf has it, on a port of the benchmark's own."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from benchmarks.harness import ROOT, Bench
from benchmarks.servers import free_port, running

CONFIGURATION = ROOT / "deploy" / "nginx-site.conf"


@contextlib.contextmanager
def nginx(bench: Bench, *, exempt: bool = True) -> Iterator[int | None]:
    """Yield the port on which nginx listens; None, with the reason printed, if it can't start.

    ``exempt``: the limits don't apply to this machine, as in the file.
    """
    binary = shutil.which("nginx")
    if binary is None or not CONFIGURATION.exists():
        print("nginx or deploy/nginx-site.conf isn't there: gunicorn alone is measured.")
        yield None
        return
    port = free_port()
    folder = bench.folder / "nginx"
    (folder / "cache").mkdir(parents=True)
    path = folder / "nginx.conf"
    text = adapt(CONFIGURATION.read_text(), folder, port, free_port(), bench.port)
    path.write_text(text if exempt else re.sub(r"\n *127\.0\.0\.1 +1;", "", text))
    command = [binary, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(path)]
    check = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    if check.returncode:
        print(f"nginx refuses deploy/nginx-site.conf, gunicorn alone is measured: {check.stderr}")
        yield None
        return
    url = f"http://127.0.0.1:{port}"
    with running(command, env=bench.env, log=folder / "nginx.log", answers=f"{url}/health"):
        _await_market(url)
        yield port


def adapt(configuration: str, folder: Path, port: int, inner_port: int, node_port: int) -> str:
    """Return a configuration around the site, with other addresses and folders, without TLS."""
    text = configuration
    for pattern, instead in (
        (r"\n *listen \[::\]:(443 ssl http2|80);", r"\n"),
        (r"\n *listen 80;", rf"\nlisten 127.0.0.1:{free_port()};"),
        (r"\n *listen 443 ssl http2;", rf"\nlisten 127.0.0.1:{port};"),
        (r"\n *ssl_certificate(_key)? [^;]*;", r"\n"),
        (r"127\.0\.0\.1:3080", f"127.0.0.1:{inner_port}"),
        (r"127\.0\.0\.1:3000", f"127.0.0.1:{node_port}"),
        (r"proxy_cache_path \S+", f"proxy_cache_path {folder / 'cache'}"),
        (r"\n *access_log /\S+", f"\naccess_log {folder / 'access.log'}"),
    ):
        text, count = re.subn(pattern, instead, text)
        if not count:
            raise SystemExit(f"deploy/nginx-site.conf has no {pattern!r}: front.py must follow it")
    return "\n".join(
        (
            "user root;" if os.geteuid() == 0 else "",
            "daemon off;",
            "worker_processes auto;",
            f"pid {folder / 'nginx.pid'};",
            f"error_log {folder / 'error.log'};",
            "events { worker_connections 4096; }",
            f"http {{ {_temporary(folder)} include /etc/nginx/mime.types; sendfile on; {text} }}",
        )
    )


def _temporary(folder: Path) -> str:
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{name}_temp_path {folder / name};\n" for name in names)


def _await_market(url: str) -> None:
    deadline = time.monotonic() + 10
    while requests.get(f"{url}/tickers?limit=1", timeout=10).status_code != 200:
        if time.monotonic() > deadline:
            raise SystemExit("nginx is up, but the market behind it doesn't answer 200")
        time.sleep(0.1)
