"""Nobody is someone else for a header's sake: who sent a request is who called, through nginx and
without it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.front import Front, needs_nginx, nginx
from tests.support.target import Target, a_bar, request, send, target

BANNED = (403, "Source IP is banned")
LIE = json.dumps(a_bar(open=99_000, high=99_000, low=99_000, close=99_000)).encode()
BAR = json.dumps(a_bar()).encode()
NO_BAR = b"{"
LIAR, INNOCENT, VICTIM = "127.0.0.66", "127.0.0.7", "203.0.113.77"
VICTIMS = (VICTIM, "2001:db8::77")
LIMIT = 8  # requests a day: used up by a test, and not given back in one

# Every header by which some server or proxy takes a client for another.
NAMES = [
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Originating-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "X-ProxyUser-Ip",
    "X-Forwarded",
    "Forwarded-For",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "Fastly-Client-IP",
    "Client-IP",
    "Via",
    "Remote-Addr",
    "REMOTE_ADDR",
    "X_Forwarded_For",
    "X-Forwarded_For",
    "HTTP_X_FORWARDED_FOR",
    "X-Forwarded-Host",
    "X-Forwarded-Server",
]
SPOOFS: dict[str, list[str]] = {
    **{name: [f"{name}: {VICTIM}"] for name in NAMES},
    "one address": [f"X-Forwarded-For: {VICTIM}"],
    "a list": [f"X-Forwarded-For: {VICTIM}, 198.51.100.7, 127.0.0.1"],
    "the proxy itself": ["X-Forwarded-For: 127.0.0.1"],
    "several lines": [f"X-Forwarded-For: {VICTIM}", "X-Forwarded-For: 127.0.0.1"],
    "a port": [f"X-Forwarded-For: {VICTIM}:80"],
    "IPv6": ["X-Forwarded-For: 2001:db8::77"],
    "IPv6 in brackets": ["X-Forwarded-For: [2001:db8::77]:443"],
    "IPv4 in IPv6": [f"X-Forwarded-For: ::ffff:{VICTIM}"],
    "garbage": ["X-Forwarded-For: ' OR 1=1 --, <script>, %s, unknown"],
    "nothing": ["X-Forwarded-For:"],
    "commas": ["X-Forwarded-For: ,,,,"],
    "500 hops": [f"X-Forwarded-For: {', '.join([VICTIM] * 500)}"],
    "another case": [f"x-fOrWaRdEd-FoR: {VICTIM}"],
    "RFC 7239": [f'Forwarded: for={VICTIM};proto=https;by=127.0.0.1, for="[2001:db8::77]"'],
    "a protocol": ["X-Forwarded-Proto: http", "X-Forwarded-Port: 443"],
    "TLS, as some proxies say it": ["X-Forwarded-Ssl: on", "X-Forwarded-Protocol: ssl"],
    "the server's variables": ["SCRIPT_NAME: /admin", "PATH_INFO: /health"],
    "hop by hop": ["Connection: close, X-Forwarded-For", f"X-Forwarded-For: {VICTIM}"],
    "all at once": [
        f"X-Forwarded-For: {VICTIM}",
        f"X-Real-IP: {VICTIM}",
        f"True-Client-IP: {VICTIM}",
        f"Forwarded: for={VICTIM}",
    ],
}
SETTINGS = {"unset": "", "nginx": "127.0.0.1", "a network": "127.0.0.0/30, ::1/128"}


@dataclass(frozen=True)
class Scene:
    """A node that calls none, one, or some addresses its proxies, and has banned the liar."""

    node: Target
    trusts_nginx: bool

    def post(self, body: bytes, *lines: str, source: str, port: int = 0) -> tuple[int, str]:
        """The answer's status and detail, straight from the node or by another port."""
        data = request("/public/gossip", body, *lines)
        answer = send(port or self.node.port, data, source=source)
        assert answer is not None
        return answer.status, answer.detail

    def assert_liar_stays(self, lines: list[str], *, port: int = 0) -> None:
        """Banned, limited, and nobody else instead of it."""
        self.node.forget_limits()
        before = self.node.state()
        for _ in range(LIMIT):
            assert self.post(BAR, *lines, source=LIAR, port=port) == BANNED
        assert self.post(BAR, *lines, source=LIAR, port=port)[0] == 429
        assert self.post(NO_BAR, source=INNOCENT, port=port)[0] == 400
        if self.trusts_nginx:
            for victim in VICTIMS:
                named = f"X-Forwarded-For: {victim}"
                assert self.post(NO_BAR, named, source="127.0.0.1")[0] == 400
        assert self.node.state() == before


@pytest.fixture(scope="module", params=SETTINGS)
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    proxies = SETTINGS[request.param]
    folder = tmp_path_factory.mktemp("target")
    with target(
        folder,
        # Who calls by IPv4 has an IPv6 address there.
        bind="[::]" if request.param == "a network" else "",
        TRUSTED_PROXIES=proxies,
        PUBLIC_RATE=f"{LIMIT}/1d",
    ) as node:
        node.ban(LIAR)
        yield Scene(node, trusts_nginx=bool(proxies))
        assert "Traceback" not in node.log()


@pytest.fixture(scope="module")
def front(scene: Scene) -> Iterator[Front]:
    # Whose limits are shown in test_banned_flood; here it is the node's that count.
    with nginx(scene.node.folder / "front", scene.node.port, limits=False) as front:
        yield front


class TestDirect:
    @pytest.mark.parametrize("name", SPOOFS)
    def test_a_banned_actor_stays_banned_and_limited(self, name: str, scene: Scene) -> None:
        scene.assert_liar_stays(SPOOFS[name])

    def test_a_lie_is_its_senders(self, scene: Scene) -> None:
        scene.node.forget_limits()
        status, _detail = scene.post(LIE, *SPOOFS["all at once"], source="127.0.0.68")
        assert status == 400
        assert "127.0.0.68" in scene.node.actors()
        assert set(scene.node.actors()).isdisjoint(VICTIMS)

    def test_ten_thousand_hops_are_refused(self, scene: Scene) -> None:
        scene.node.forget_limits()
        hops = f"X-Forwarded-For: {', '.join([VICTIM] * 10_000)}"
        lines = [f"X-Forwarded-For: {VICTIM}"] * 90
        for sender in (LIAR, INNOCENT, "127.0.0.1"):
            assert scene.post(BAR, hops, source=sender)[0] == 431
        assert scene.post(BAR, *lines, source=LIAR) == BANNED

    def test_by_ipv6_it_is_its_64(self, tmp_path: Path) -> None:
        with target(tmp_path, bind="[::]", PUBLIC_RATE=f"{LIMIT}/1d") as node:
            scene = Scene(node, trusts_nginx=False)
            assert scene.post(LIE, f"X-Forwarded-For: {VICTIM}", source="::1")[0] == 400
            assert scene.post(LIE, f"X-Forwarded-For: {VICTIM}", source="127.0.0.68")[0] == 400
            assert node.actors() == {"::/64": 1, "127.0.0.68": 1}


class TestProxysWord:
    """A trusted proxy's word, and no other's."""

    def test_ipv6_is_one_actor_a_64(self, scene: Scene) -> None:
        if not scene.trusts_nginx:
            pytest.skip("this node trusts no proxy")
        scene.node.forget_limits()
        for host in range(LIMIT):
            named = f"X-Forwarded-For: [2001:db8:0:1:{host}:{host:x}::1]:443"
            assert scene.post(NO_BAR, named, source="127.0.0.1")[0] == 400
        for other, status in (("2001:db8:0:1::ff", 429), ("2001:db8:0:2::1", 400)):
            assert scene.post(NO_BAR, f"X-Forwarded-For: {other}", source="127.0.0.1")[0] == status

    def test_ipv4_in_ipv6_is_ipv4(self, scene: Scene) -> None:
        if not scene.trusts_nginx:
            pytest.skip("this node trusts no proxy")
        scene.node.forget_limits()
        for form in (LIAR, f"::ffff:{LIAR}", f"[::ffff:{LIAR}]:1", f"{LIAR}:1", "::ffff:7f00:42"):
            assert scene.post(BAR, f"X-Forwarded-For: {form}", source="127.0.0.1") == BANNED


@needs_nginx
class TestBehindNginx:
    @pytest.mark.parametrize("name", SPOOFS)
    def test_a_banned_actor_stays_banned_and_limited(
        self, name: str, scene: Scene, front: Front
    ) -> None:
        if scene.trusts_nginx:
            scene.assert_liar_stays(SPOOFS[name], port=front.port)
            return
        # Without TRUSTED_PROXIES nginx is the sender of everything, whatever stands in it.
        scene.node.forget_limits()
        for sender in range(LIMIT):
            assert (
                scene.post(NO_BAR, *SPOOFS[name], source=f"127.0.1.{sender}", port=front.port)[0]
                == 400
            )
        assert scene.post(NO_BAR, *SPOOFS[name], source=INNOCENT, port=front.port)[0] == 429
        assert scene.post(NO_BAR, *SPOOFS[name], source=INNOCENT)[0] == 400

    def test_a_lie_is_its_senders(self, scene: Scene, front: Front) -> None:
        scene.node.forget_limits()
        lines = SPOOFS["all at once"]
        assert scene.post(LIE, *lines, source="127.0.0.69", port=front.port)[0] == 400
        assert ("127.0.0.69" if scene.trusts_nginx else "127.0.0.1") in scene.node.actors()
        assert set(scene.node.actors()).isdisjoint(VICTIMS)

    def test_ten_thousand_hops_are_refused(self, scene: Scene, front: Front) -> None:
        hops = f"X-Forwarded-For: {', '.join([VICTIM] * 10_000)}"
        assert scene.post(BAR, hops, source=INNOCENT, port=front.port)[0] == 400


@needs_nginx
def test_where_trusted_proxies_lacks_nginx_health_and_the_log_say_so(tmp_path: Path) -> None:
    """Six clients' mistakes ban everybody then."""
    with (
        target(tmp_path, BAN_AFTER_FAILURES="5") as node,
        nginx(node.folder / "front", node.port, limits=False) as front,
    ):
        scene = Scene(node, trusts_nginx=False)
        for client in range(6):
            scene.post(LIE, source=f"127.0.1.{client}", port=front.port)
        assert scene.post(BAR, source=INNOCENT, port=front.port) == BANNED
        named = "X-Forwarded-For comes from 127.0.0.1, which TRUSTED_PROXIES doesn't name"
        problems = node.get("/health").json()["problems"]
        assert sum(named in problem for problem in problems) == 1
        assert node.log().count(named) == 1
