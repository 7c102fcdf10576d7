"""A watching client: for each volume on stdin it prints when a node served it.

The time is of perf_counter, which all processes of a machine share on Linux. It is a process of its
own with a plain socket, so that watching takes little from what is measured: three such clients
with http.client took a third of a machine with two cores.
"""

import socket
import sys
import time

LOOK_EVERY = 0.004  # seconds
WITHIN = 10.0


def main(port: int, symbol: str) -> None:
    asked = f"GET /tickers?symbol={symbol}&limit=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for line in sys.stdin:
            awaited = b'"volume":%d}' % int(line)
            print(repr(served_at(connection, asked, awaited)), flush=True)


def served_at(connection: socket.socket, asked: bytes, awaited: bytes) -> float:
    deadline = time.perf_counter() + WITHIN
    while time.perf_counter() < deadline:
        connection.sendall(asked)
        if awaited in answer(connection):
            return time.perf_counter()
        time.sleep(LOOK_EVERY)
    raise SystemExit(f"{connection.getpeername()}: a change wasn't served within {WITHIN:g} s")


def answer(connection: socket.socket) -> bytes:
    """Read the next answer, whose Content-Length says where it ends."""
    received = b""
    while True:
        received += connection.recv(65_536)
        head, end, body = received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return body


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
