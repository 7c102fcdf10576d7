import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reputation.address import (
    AddressError,
    UnknownClientError,
    actor_named,
    actor_of,
    client_of,
    may_be_proxy,
    network_of,
    untrusted_neighbour,
)

PROXIES = ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]


def behind_proxy(forwarded_for: str | None, *, peer: str = "127.0.0.1") -> str:
    return client_of(peer=peer, forwarded_for=forwarded_for, trusted_proxies=PROXIES)


class TestActor:
    @pytest.mark.parametrize(
        ("ip", "actor"),
        [
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("::FFFF:cb00:7109", "203.0.113.9"),
            ("2001:db8:1:2::77", "2001:db8:1:2::/64"),
            ("2001:0DB8:0001:0002:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::77", "2001:db8:1:3::/64"),
            ("::1", "::/64"),
            ("fe80::1%eth0", "fe80::/64"),
        ],
    )
    def test_is_an_ipv4_address_or_an_ipv6_64(self, ip: str, actor: str) -> None:
        assert actor_of(ip) == actor

    @pytest.mark.parametrize(
        "ip",
        [
            "2002:cb00:7109::1",  # 6to4
            "2002:cb00:7109:ffff:1:2:3:4",
            "64:ff9b::203.0.113.9",  # NAT64
            "64:ff9b::cb00:7109",
            "2001:0:4136:e378:8000:63bf:34ff:8ef6",  # Teredo, by two servers
            "2001:0:4136:e379:0:1:34ff:8ef6",
            "::203.0.113.9",  # IPv4-compatible
        ],
    )
    def test_of_a_tunnel_is_the_ipv4_address_that_it_belongs_to(self, ip: str) -> None:
        assert actor_of(ip) == "203.0.113.9"

    @pytest.mark.parametrize(
        ("ip", "actor"),
        [
            ("::", "::/64"),
            ("::1:203.0.113.9", "::/64"),
            ("64:ff9b:0:0:0:1:203.0.113.9", "64:ff9b::/64"),
            ("64:ff9b:1::203.0.113.9", "64:ff9b:1::/64"),
            ("2001:1:4136:e378:8000:63bf:34ff:8ef6", "2001:1:4136:e378::/64"),
            ("2003:cb00:7109::1", "2003:cb00:7109::/64"),
        ],
    )
    def test_beside_a_tunnels_network_is_a_64(self, ip: str, actor: str) -> None:
        assert actor_of(ip) == actor

    @pytest.mark.parametrize(
        "nonsense",
        ["", " ", "localhost", "1.2.3", "1.2.3.4:80", "1.2.3.004", "1.2.3.4/32", "::1/64", "[::1]"],
    )
    def test_is_refused_for_what_is_no_address(self, nonsense: str) -> None:
        with pytest.raises(AddressError):
            actor_of(nonsense)

    @given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
    def test_covers_every_address_of_its_64(
        self, address: ipaddress.IPv6Address, host: int
    ) -> None:
        neighbour = ipaddress.IPv6Address(int(address) >> 64 << 64 | host)
        if ":" in actor_of(str(address)) and ":" in actor_of(str(neighbour)):
            assert actor_of(str(neighbour)) == actor_of(str(address))
            assert neighbour in ipaddress.ip_network(actor_of(str(address)))

    @given(st.ip_addresses())
    def test_is_named_by_any_of_its_addresses_and_by_itself(
        self, address: ipaddress.IPv4Address | ipaddress.IPv6Address
    ) -> None:
        actor = actor_of(str(address))
        assert actor_named(f" {address} ") == actor
        assert actor_named(actor) == actor

    @pytest.mark.parametrize("actor", ["::/64", "64:ff9b::/64", "fe80::/64"])
    def test_beside_a_tunnels_network_is_named_by_itself(self, actor: str) -> None:
        assert actor_named(actor) == actor

    @pytest.mark.parametrize(
        "text", ["203.0.113.0/24", "203.0.113.0/64", "2001:db8::/32", "20", ""]
    )
    def test_is_not_named_by_a_part_or_another_network(self, text: str) -> None:
        with pytest.raises(AddressError):
            actor_named(text)


class TestNetwork:
    @pytest.mark.parametrize(
        ("actor", "prefix", "network"),
        [
            ("203.0.113.9", 64, "203.0.113.0/24"),
            ("203.0.113.9", 48, "203.0.113.0/24"),
            ("2001:db8:1:2::/64", 64, "2001:db8:1:2::/64"),
            ("2001:db8:1:2ff::/64", 56, "2001:db8:1:200::/56"),
            ("2001:db8:1:2::/64", 48, "2001:db8:1::/48"),
            ("2001:db8:1:2::/64", 32, "2001:db8::/32"),
        ],
    )
    def test_is_a_24_or_a_prefix_of_the_64(self, actor: str, prefix: int, network: str) -> None:
        assert network_of(actor, ipv6_prefix=prefix) == network

    @given(st.ip_addresses(), st.integers(32, 64))
    def test_has_every_actor(
        self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int
    ) -> None:
        actor = actor_of(str(address))
        within = ipaddress.ip_network(network_of(actor, ipv6_prefix=prefix))
        assert ipaddress.ip_address(actor.removesuffix("/64")) in within


class TestClientWithoutTrustedProxies:
    @pytest.mark.parametrize("forwarded_for", [None, "", "198.51.100.7", "garbage"])
    @pytest.mark.parametrize(
        ("peer", "client"),
        [("203.0.113.9", "203.0.113.9"), ("2001:DB8::1", "2001:db8::1"), ("127.0.0.1",) * 2],
    )
    def test_is_the_peer_whatever_the_headers_say(
        self, peer: str, client: str, forwarded_for: str | None
    ) -> None:
        assert client_of(peer=peer, forwarded_for=forwarded_for, trusted_proxies=[]) == client

    @pytest.mark.parametrize("trusted_proxies", [[], PROXIES])
    def test_on_a_unix_socket_is_unknown_and_the_remedy_named(
        self, trusted_proxies: list[str]
    ) -> None:
        with pytest.raises(UnknownClientError, match=r"unix socket.*TCP port.*TRUSTED_PROXIES"):
            client_of(peer="", forwarded_for="203.0.113.9", trusted_proxies=trusted_proxies)

    def test_at_a_peer_that_is_no_address_is_unknown(self) -> None:
        with pytest.raises(UnknownClientError, match="peer"):
            client_of(peer="somewhere", forwarded_for=None, trusted_proxies=[])


class TestClientBehindTrustedProxies:
    @pytest.mark.parametrize(
        ("forwarded_for", "client"),
        [
            ("203.0.113.9", "203.0.113.9"),
            ("  203.0.113.9  ", "203.0.113.9"),
            ("203.0.113.9:5678", "203.0.113.9"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("[::ffff:203.0.113.9]:1", "203.0.113.9"),
            ("203.0.113.9, 10.1.2.3", "203.0.113.9"),
            ("203.0.113.9,10.1.2.3:80,::ffff:10.0.0.1 , [fd00::2]:80", "203.0.113.9"),
            ("198.51.100.7, 203.0.113.9", "203.0.113.9"),
            ("unknown,,'\"<, 203.0.113.9,10.0.0.1", "203.0.113.9"),
        ],
    )
    def test_is_the_right_most_untrusted_hop(self, forwarded_for: str, client: str) -> None:
        assert behind_proxy(forwarded_for) == client

    @pytest.mark.parametrize("peer", ["10.9.8.7", "::ffff:127.0.0.1", "fd12::1"])
    def test_is_found_behind_any_address_of_the_trusted_networks(self, peer: str) -> None:
        assert behind_proxy("203.0.113.9", peer=peer) == "203.0.113.9"

    def test_is_found_behind_networks_written_in_mapped_form(self) -> None:
        client = client_of(
            peer="10.0.0.1",
            forwarded_for="203.0.113.9, ::ffff:10.0.0.2",
            trusted_proxies=["::ffff:10.0.0.0/104"],
        )
        assert client == "203.0.113.9"

    def test_is_the_peer_when_that_is_no_trusted_proxy(self) -> None:
        assert behind_proxy("203.0.113.9", peer="198.51.100.7") == "198.51.100.7"

    @pytest.mark.parametrize(
        "forwarded_for",
        [
            None,
            "",
            " ",
            ",",
            "203.0.113.9,",
            "203.0.113.9, , 10.0.0.1",
            "203.0.113.9, unknown",
            "203.0.113.9, unix:, 10.0.0.1",
            "203.0.113.9, _hidden, 10.0.0.1",
            "203.0.113.9, 1.2.3.4:x",
            "203.0.113.9, 1.2.3.4:123456",
            "203.0.113.9, [2001:db8::1",
            "203.0.113.9, [2001:db8::1]443",
            "203.0.113.9, [1.2.3.4",
            "203.0.113.9, 1.2.3.4 5.6.7.8",
            "203.0.113.9, 1.2.3.4/32",
            "10.0.0.1",
            "127.0.0.1, 10.0.0.1, fd00::1",
        ],
    )
    def test_that_is_not_named_is_refused_rather_than_judged_as_the_proxy(
        self, forwarded_for: str | None
    ) -> None:
        with pytest.raises(UnknownClientError):
            behind_proxy(forwarded_for)

    @pytest.mark.parametrize(
        ("forwarded_for", "remedy"),
        [
            (None, "must add the client's address"),
            ("unknown", "something else than an IP address"),
            ("10.0.0.1", "the first proxy must add"),
        ],
    )
    def test_that_is_not_named_is_refused_with_the_remedy(
        self, forwarded_for: str | None, remedy: str
    ) -> None:
        with pytest.raises(UnknownClientError, match=remedy):
            behind_proxy(forwarded_for)

    def test_refusals_dont_repeat_what_was_sent(self) -> None:
        with pytest.raises(UnknownClientError) as refusal:
            behind_proxy("<script>")
        assert "script" not in str(refusal.value)

    made_up = st.one_of(
        st.text(max_size=60),
        st.lists(
            st.one_of(
                st.ip_addresses().map(str),
                st.sampled_from(["10.0.0.1", "127.0.0.1", "", "unknown", "[::1]:80", '"', "for=x"]),
            )
        ).map(",".join),
    )

    @given(
        made_up,
        st.ip_addresses().filter(
            lambda ip: (
                not any(
                    ipaddress.ip_address(actor_of(str(ip)).partition("/")[0])
                    in ipaddress.ip_network(proxy)
                    for proxy in PROXIES
                )
            )
        ),
        st.lists(st.sampled_from(["10.0.0.1", "10.255.0.1:80", "fd00::1", "[fd00::1]:80"])),
    )
    def test_is_the_same_whatever_it_makes_up_on_the_left(
        self,
        made_up: str,
        client: ipaddress.IPv4Address | ipaddress.IPv6Address,
        proxies: list[str],
    ) -> None:
        truth = ", ".join([str(client), *proxies])
        assert behind_proxy(f"{made_up}, {truth}") == behind_proxy(truth)
        assert actor_of(behind_proxy(f"{made_up},{truth}")) == actor_of(str(client))

    @given(made_up)
    def test_is_nobody_else_when_the_proxy_itself_names_garbage(self, made_up: str) -> None:
        with pytest.raises(UnknownClientError):
            behind_proxy(f"{made_up}, unknown, 10.0.0.1")


@pytest.mark.parametrize(
    ("peer", "forwards", "expected"),
    [
        ("10.0.0.1", False, True),  # trusted
        ("14.225.0.9", True, False),  # anyone may send a header
        ("192.168.1.1", True, True),
        ("127.0.0.1", True, True),
        ("::1", True, True),
        ("::ffff:192.168.1.1", True, True),
        ("192.168.1.1", False, False),
        ("", False, True),
    ],
)
def test_who_may_be_a_proxy(peer: str, forwards: bool, expected: bool) -> None:
    found = may_be_proxy(peer=peer, forwards=forwards, trusted_proxies=["10.0.0.0/8"])
    assert found is expected


class TestUntrustedNeighbour:
    @pytest.mark.parametrize(
        ("peer", "address"),
        [
            *((one, one) for one in ("127.0.0.1", "127.8.9.1", "10.1.2.3", "172.31.0.1")),
            *((one, one) for one in ("192.168.1.1", "169.254.1.1", "100.64.0.1", "::1")),
            *((one, one) for one in ("fd00::1", "fe80::1")),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("fe80::1%eth0", "fe80::1"),
        ],
    )
    def test_calls_from_this_machine_or_a_private_network(self, peer: str, address: str) -> None:
        assert untrusted_neighbour(peer=peer, trusted_proxies=["203.0.113.1"]) == address
        assert untrusted_neighbour(peer=peer, trusted_proxies=["0.0.0.0/0", "::/0"]) is None

    @pytest.mark.parametrize(
        "peer",
        [
            *("8.8.8.8", "203.0.113.9", "172.32.0.1", "100.128.0.1", "2001:db8::1"),
            *("::ffff:8.8.8.8", "", "unix:", "localhost"),
        ],
    )
    def test_is_nobody_of_the_internet(self, peer: str) -> None:
        assert untrusted_neighbour(peer=peer, trusted_proxies=[]) is None
