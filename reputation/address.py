"""The client's address: this module tells which client sent a request, and which actor it is.

It is pure: it takes the peer's address and the header's text, never a request or settings.

python-ipware 4.1 can't answer the first question: its ``proxy_list`` names one proxy a hop, in
order and number, so "any number of hops inside these networks" can't be said, and it never looks at
the TCP peer before it believes a header. Where a hop is garbage it either skips it, so that a name
which the client made up takes its place, or (strict) lets the client's garbage void the header.
"""

import functools
import ipaddress
import re
from collections.abc import Collection

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# A host gets a /64 and uses any address of it (RFC 4291 2.5.4, RFC 8981), so a /64 is one actor.
ACTOR_PREFIX = 64
INDEPENDENT_PREFIX = 24  # of IPv4

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # RFC 4291 2.5.5.2
# Networks whose addresses end in the IPv4 address that they belong to.
_ENDS_IN_IPV4 = (
    ipaddress.IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052 2.1
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible, RFC 4291 2.5.5.1
)
# Nobody calls from these over the internet: loopback (RFC 1122 3.2.1.3, RFC 4291 2.5.3), private
# (RFC 1918, RFC 4193), link-local (RFC 3927, RFC 4291 2.5.6), shared by a provider (RFC 6598).
_NEIGHBOURS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("100.64.0.0/10", "::1/128", "fc00::/7", "fe80::/10"),
    )
)
_BRACKETED_HOP = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?")
_IPV4_HOP = re.compile(r"([0-9.]+)(?::[0-9]{1,5})?")


class AddressError(ValueError):
    """A text is no IP address."""


class UnknownClientError(Exception):
    """A request doesn't say which client it is from; it can't be judged, so it is refused."""


@functools.lru_cache(maxsize=1024)
def actor_of(ip: str) -> str:
    """Return the actor that a client at ``ip`` is, in canonical form.

    An IPv4 address is its own actor (``203.0.113.9``), and so is every IPv6 address that belongs to
    one: mapped (``::ffff:203.0.113.9``), 6to4 (``2002:cb00:7109::1``), Teredo, NAT64 and
    IPv4-compatible. Any other IPv6 address belongs to the actor of its /64
    (``2001:db8:1:2::/64``). A scope (``%eth0``) is dropped. Raises AddressError.
    """
    address = _parse(ip)
    if isinstance(address, ipaddress.IPv6Address):
        address = _tunnelled(address) or address
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address), ACTOR_PREFIX), strict=False))


def _tunnelled(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address whose holder has this IPv6 address too; None if there is none.

    The holder of one IPv4 address has 65,536 networks of 6to4 (RFC 3056), and one of each Teredo
    server (RFC 4380 4: the client's address, inverted, stands last).
    """
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        _server, client = address.teredo
        return client
    last = int(address) & 0xFFFFFFFF
    # 0.0.0.0 and 0.0.0.1 are no hosts, and :: and ::1 no IPv4-compatible addresses.
    if last > 1 and any(address in network for network in _ENDS_IN_IPV4):
        return ipaddress.IPv4Address(last)
    return None


def network_of(actor: str, *, ipv6_prefix: int = ACTOR_PREFIX) -> str:
    """Return an actor's network: the /24 of an IPv4 address (``203.0.113.0/24``), or the
    ``ipv6_prefix`` of a /64.

    The holder of one address of a /24 often has more; actors of two networks count as independent.
    """
    if ":" in actor:
        return str(ipaddress.IPv6Network(actor).supernet(new_prefix=ipv6_prefix))
    return str(ipaddress.IPv4Network((actor, INDEPENDENT_PREFIX), strict=False))


def actor_named(text: str) -> str:
    """Return the actor that an operator names by any address it covers, or by its canonical form.

    Raises AddressError.
    """
    text = text.strip()
    bare = text.removesuffix(f"/{ACTOR_PREFIX}")
    if bare != text and ":" not in bare:
        raise AddressError(f"{text[:60]!r} is a network; an IPv4 actor is one address")
    return actor_of(bare)


def client_of(*, peer: str, forwarded_for: str | None, trusted_proxies: Collection[str]) -> str:
    """Return the address of the client that sent a request, without port or scope.

    ``peer`` is the other end of the connection (WSGI's REMOTE_ADDR), ``forwarded_for`` the value of
    X-Forwarded-For (several lines joined by commas), ``trusted_proxies`` networks in CIDR form.
    Each proxy adds the address it was called from on the right, so only what stands to the right of
    the last untrusted hop was written by proxies; that hop is the client. A peer that is no trusted
    proxy is the client itself, whatever its headers say.

    Raises UnknownClientError when the peer has no address, or is a proxy and names no client.
    """
    caller = _peer(peer)
    proxies = _networks(tuple(trusted_proxies))
    if not _within(caller, proxies):
        return str(caller)
    for hop in reversed((forwarded_for or "").split(",")):
        address = _hop(hop)
        if not _within(address, proxies):
            return str(address)
    raise UnknownClientError(
        "X-Forwarded-For names trusted proxies only: the first proxy must add its client's address"
    )


def may_be_proxy(*, peer: str, forwards: bool, trusted_proxies: Collection[str]) -> bool:
    """Tell whether the other end of a connection may be a proxy, through which others call.

    A trusted proxy is one. So, perhaps, is a private address that sends X-Forwarded-For: a proxy
    that TRUSTED_PROXIES forgot.
    """
    try:
        address = _parse(peer)
    except AddressError:
        return True  # a unix socket, for instance
    return _within(address, _networks(tuple(trusted_proxies))) or (forwards and address.is_private)


def untrusted_neighbour(*, peer: str, trusted_proxies: Collection[str]) -> str | None:
    """Return the address of a peer that calls from this machine or a private network and is no
    trusted proxy; None for any other."""
    try:
        address = _parse(peer)
    except AddressError:
        return None  # a unix socket, for instance
    if not _within(address, _NEIGHBOURS) or _within(address, _networks(tuple(trusted_proxies))):
        return None
    return str(address)


def _peer(text: str) -> Address:
    if not text:
        raise UnknownClientError(
            "The server doesn't know the address of its peer, as on a unix socket: bind it to a "
            "TCP port and name the proxy in front of it in TRUSTED_PROXIES"
        )
    try:
        return _parse(text)
    except AddressError as error:
        raise UnknownClientError("The address of the peer is no IP address") from error


def _hop(text: str) -> Address:
    """Parse one hop: an address, with or without port; IPv6 with a port stands in brackets."""
    text = text.strip()
    if not text:
        raise UnknownClientError(
            "A trusted proxy named no client: it must add the client's address to X-Forwarded-For"
        )
    match = _BRACKETED_HOP.fullmatch(text) or _IPV4_HOP.fullmatch(text)
    try:
        return _parse(match[1] if match else text)
    except AddressError as error:
        raise UnknownClientError(
            "X-Forwarded-For has something else than an IP address where a trusted proxy names "
            "its client"
        ) from error


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise AddressError(f"{text[:60]!r} is not an IP address") from None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


def _within(address: Address, networks: Collection[Network]) -> bool:
    return any(address in network for network in networks)


@functools.lru_cache(maxsize=16)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(_unmapped(ipaddress.ip_network(text)) for text in texts)


def _unmapped(network: Network) -> Network:
    """Return the network in IPv4 form if it is written in mapped form: addresses are compared
    unmapped."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        ipv4 = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((ipv4, network.prefixlen - _MAPPED.prefixlen))
    return network
