"""Fixtures of these tests; what they are made of is in tests/support/front.py."""

import time
from collections.abc import Iterator

import pytest

from tests.support.front import LEFT_ALONE, Front, Stub, _Handler, _Server, nginx


@pytest.fixture(scope="module")
def _stub_server() -> Iterator[tuple[Stub, type[_Handler]]]:
    class Handler(_Handler):
        stub = Stub()

    with _Server(Handler) as server:
        Handler.stub.port = server.port
        yield Handler.stub, Handler


@pytest.fixture(scope="module")
def _front_of_stub(
    tmp_path_factory: pytest.TempPathFactory, _stub_server: tuple[Stub, type[_Handler]]
) -> Iterator[Front]:
    with nginx(tmp_path_factory.mktemp("front"), _stub_server[0].port) as front:
        for path in LEFT_ALONE:
            front.get(path)
        front.began = time.time()
        yield front


@pytest.fixture
def stub(_stub_server: tuple[Stub, type[_Handler]]) -> Stub:
    """The stub as new."""
    held, handler = _stub_server
    handler.stub = Stub(port=held.port)
    return handler.stub


@pytest.fixture
def front(_front_of_stub: Front, stub: Stub) -> Front:
    """nginx in front of the stub. Its cache lives as long as the module: tests use keys of their
    own."""
    return _front_of_stub
