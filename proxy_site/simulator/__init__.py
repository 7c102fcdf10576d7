"""The exchange simulator: a stand-in for the broker's chart API (VCI), for the demo and the tests.

It speaks the wire protocol of the upstream on loopback, so that the node's real client is what
runs. Prices are made up; they keep the exchanges' rules. It reads no settings and no environment.
"""

from proxy_site.simulator.clock import AcceleratedClock, session_start
from proxy_site.simulator.faults import BodyFault
from proxy_site.simulator.market import Frame, SimulatedMarket, SimulationError
from proxy_site.simulator.server import SimulatorServer

__all__ = [
    "AcceleratedClock",
    "BodyFault",
    "Frame",
    "SimulatedMarket",
    "SimulationError",
    "SimulatorServer",
    "session_start",
]
