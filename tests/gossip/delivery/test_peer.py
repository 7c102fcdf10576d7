"""A peer: its name, its door and its token."""

import pytest

from gossip.delivery.peer import Peer, PeerKind

TOKEN = "a-token-that-nobody-sees"


class TestPeer:
    def test_an_internal_peer_needs_the_token(self) -> None:
        with pytest.raises(ValueError, match="needs the token"):
            Peer("https://b.example.com", PeerKind.INTERNAL)

    def test_a_public_peer_never_gets_a_token(self) -> None:
        with pytest.raises(ValueError, match="must not get it"):
            Peer("https://b.example.com", PeerKind.PUBLIC, TOKEN)

    def test_its_token_is_not_in_its_text(self) -> None:
        assert TOKEN not in repr(Peer("https://b.example.com", PeerKind.INTERNAL, TOKEN))

    @pytest.mark.parametrize(
        ("url", "name", "path"),
        [
            ("https://b.example.com", "b.example.com:443", "/public/gossip"),
            ("http://b.example.com/", "b.example.com:80", "/public/gossip"),
            ("http://10.0.0.1:3000/node/", "10.0.0.1:3000", "/node/public/gossip"),
            ("http://[::1]:3000", "[::1]:3000", "/public/gossip"),
        ],
    )
    def test_it_has_a_name_for_logs_and_a_door(self, url: str, name: str, path: str) -> None:
        peer = Peer(url, PeerKind.PUBLIC)
        assert (peer.name, peer.path) == (name, path)

    def test_an_internal_peer_has_the_door_with_the_token(self) -> None:
        assert Peer("https://b.example.com/", PeerKind.INTERNAL, TOKEN).path == "/gossip"

    def test_its_id_is_stable_and_depends_on_address_and_kind_alone(self) -> None:
        public = Peer("https://b.example.com", PeerKind.PUBLIC)
        internal = Peer("https://b.example.com", PeerKind.INTERNAL, TOKEN)
        assert public.id == Peer("https://b.example.com/", PeerKind.PUBLIC).id
        assert internal.id == Peer("https://b.example.com", PeerKind.INTERNAL, "another-token").id
        assert len({public.id, internal.id, Peer("https://c.example.com", PeerKind.PUBLIC).id}) == 3
        assert "example" not in public.id
