"""nginx in front of a node, as deploy/nginx.conf has it, on a port of the benchmark's own."""

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

CONFIGURATION = ROOT / "deploy" / "nginx.conf"


@contextlib.contextmanager
def nginx(bench: Bench, *, exempt: bool = True) -> Iterator[int | None]:
    """Yield the port on which nginx listens; None, with the reason printed, if it can't start.

    ``exempt``: the limits don't apply to this machine, as in the file.
    """
    binary = shutil.which("nginx")
    if binary is None or not CONFIGURATION.exists():
        print("nginx or deploy/nginx.conf isn't there: gunicorn alone is measured.")
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
        print(f"nginx refuses deploy/nginx.conf, gunicorn alone is measured: {check.stderr}")
        yield None
        return
    url = f"http://127.0.0.1:{port}"
    with running(command, env=bench.env, log=folder / "nginx.log", answers=f"{url}/health"):
        _await_market(url)
        yield port


def adapt(configuration: str, folder: Path, port: int, inner_port: int, node_port: int) -> str:
    """Return the file with other addresses, folders and another user."""
    text = configuration
    for pattern, instead in (
        (r"\n *listen \[::\]:80;", r"\n"),
        (r"\n *listen 80;", rf"\nlisten 127.0.0.1:{port};"),
        (r"127\.0\.0\.1:3080", f"127.0.0.1:{inner_port}"),
        (r"127\.0\.0\.1:3000", f"127.0.0.1:{node_port}"),
        (r"proxy_cache_path \S+", f"proxy_cache_path {folder / 'cache'}"),
        (r"\nuser [^;]*;", "\nuser root;" if os.geteuid() == 0 else "\n"),
        (r"\npid [^;]*;", f"\ndaemon off;\npid {folder / 'nginx.pid'};"),
        (r"\nerror_log \S+", f"\nerror_log {folder / 'error.log'}"),
        (r"\n *access_log /\S+", f"\naccess_log {folder / 'access.log'}"),
        (r"\nhttp \{", f"\nhttp {{\n{_temporary(folder)}"),
    ):
        text, count = re.subn(pattern, instead, text)
        if not count:
            raise SystemExit(f"deploy/nginx.conf has no {pattern!r}: front.py must follow it")
    return text


def _temporary(folder: Path) -> str:
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{name}_temp_path {folder / name};\n" for name in names)


def _await_market(url: str) -> None:
    deadline = time.monotonic() + 10
    while requests.get(f"{url}/tickers?limit=1", timeout=10).status_code != 200:
        if time.monotonic() > deadline:
            raise SystemExit("nginx is up, but the market behind it doesn't answer 200")
        time.sleep(0.1)
