"""Peers, which end with their test."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from facts.peer import Peer, Talk, saying


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(talk: Talk | bytes, **options: socket.AddressFamily) -> Peer:
        peer = Peer(saying(talk) if isinstance(talk, bytes) else talk, **options)
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.close()
