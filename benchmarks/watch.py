"""A client of one node: for each volume on standard input, when the node served it on standard
output (perf_counter, which all processes of a machine share on Linux).

A process of its own, so that looking takes nothing from whoever measures.
"""

import http.client
import json
import sys
import time

LOOK_EVERY = 0.002  # seconds
WITHIN = 10.0


def main(port: int, symbol: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for line in sys.stdin:
        print(repr(served_at(connection, symbol, int(line))), flush=True)


def served_at(connection: http.client.HTTPConnection, symbol: str, volume: int) -> float:
    deadline = time.perf_counter() + WITHIN
    while time.perf_counter() < deadline:
        connection.request("GET", f"/tickers?symbol={symbol}&limit=1")
        bars = json.loads(connection.getresponse().read()).get(symbol)
        if bars and bars[-1]["volume"] == volume:
            return time.perf_counter()
        time.sleep(LOOK_EVERY)
    raise SystemExit(f"port {connection.port}: a change wasn't served within {WITHIN:g} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
