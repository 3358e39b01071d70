"""The processes of a run hear of one another, so that none waits for one that has ended. Imports no torch.

A collective operation waits for its slowest process: for half an hour or for ever, if that one is gone. So each
process has a thread that hears from rank 0 every BEAT, and rank 0's hears from all. The first that ends too early, with
its reason, is told to all; what then does not end by itself is ended.
"""

import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field

BEAT = 2.0  # seconds
SILENCE = 20.0  # seconds, after which a process counts as gone
GRACE = 10.0  # seconds to end by oneself when another has ended
LONGEST = 2**16  # bytes that a stranger may send without making sense, characters of a reason
HELD_UP = 5.0  # seconds between two rounds of our own: it was this process that stood still, so nobody's silence counts


@dataclass(frozen=True)
class Ended:
    """What is told of a process that ended before its time; all others end with `code`."""

    rank: int
    why: str
    code: int = 1


@dataclass
class _Peer:
    connection: socket.socket
    rank: int | None = None
    unread: bytes = b""
    heard: float = field(default_factory=time.monotonic)


class Watch:
    """Of rank 0, which listens on `port` of `host` ("": to all the machine's addresses), when it is given no address;
    else of another rank.

    `ended` is what the run ends of, once something is. `explain(rank)` says what rank 0 can find out about one that
    went without a word. `last_words(ended)` is called before a process is ended that did not end by itself.
    """

    def __init__(
        self,
        rank: int,
        token: str,
        address: tuple[str, int] | None = None,
        *,
        host: str = "127.0.0.1",
        explain: Callable[[int], str] = lambda rank: "ended without a word",
        last_words: Callable[[Ended], None] = lambda ended: None,
    ) -> None:
        self.rank, self.token = rank, token
        self.explain, self.last_words = explain, last_words
        self.ended: Ended | None = None
        self._mine: Ended | None = None  # for the thread to tell: no lock, since signal handlers come here
        self._closing = threading.Event()
        self._told = threading.Event()
        self._ended_at = 0.0
        self._selector = selectors.DefaultSelector()
        self._peers: list[_Peer] = []
        if address is None:
            self._server: socket.socket | None = socket.create_server((host, 0))
            self.port = self._server.getsockname()[1]
            self._selector.register(self._server, selectors.EVENT_READ)
        else:
            self._server = None
            self._add(socket.create_connection(address, timeout=SILENCE), rank=0)
            self._send(self._peers[0], {"rank": rank, "token": token})
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self._thread.start()

    def report(self, why: str, code: int = 1) -> None:
        """This process ends, and the run with it, unless another's end was told before. Safe in a signal handler."""
        if self._mine is None:
            self._mine = Ended(self.rank, why[:LONGEST], code)

    def verdict(self) -> Ended | None:
        """What the run ends of, waited for as long as it takes to notice."""
        self._told.wait(SILENCE + 3 * BEAT)
        return self.ended

    def close(self) -> None:
        """This process has ended well, or what it reported is told."""
        self._closing.set()
        self._thread.join(2 * BEAT)

    def _add(self, connection: socket.socket, rank: int | None = None) -> None:
        connection.settimeout(SILENCE)
        peer = _Peer(connection, rank)
        self._peers.append(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _run(self) -> None:
        last = beaten = time.monotonic()
        while not self._closing.is_set():
            ready = self._selector.select(timeout=0.2)
            now = time.monotonic()
            if now - last > HELD_UP:
                for peer in self._peers:
                    peer.heard = now
            last = now
            for key, _ in ready:
                if key.data is None:
                    assert self._server
                    self._add(self._server.accept()[0])
                else:
                    self._read(key.data)
            if self._mine:
                self._decide(self._mine)
            if now - beaten > BEAT:
                beaten = now
                for peer in list(self._peers):
                    self._send(peer, {})
                    if now - peer.heard > SILENCE:
                        self._lost(peer, f"has not been heard of for {SILENCE:.0f} s")
            if self.ended and time.monotonic() - self._ended_at > self._grace(self.ended):
                try:
                    self.last_words(self.ended)
                finally:  # whatever hinders them, as a full disk may
                    os._exit(self.ended.code)
        if self._mine:
            self._decide(self._mine)
        for peer in list(self._peers):
            self._send(peer, {"bye": True})
            peer.connection.close()
        if self._server:
            self._server.close()

    def _grace(self, ended: Ended) -> float:
        """Rank 0 has files to finish, and who failed its traceback; the others only wait."""
        return GRACE if self.rank in (0, ended.rank) else GRACE / 4

    def _read(self, peer: _Peer) -> None:
        try:
            received = peer.connection.recv(65536)
        except OSError:
            received = b""
        if not received:
            return self._lost(peer)
        peer.heard = time.monotonic()
        *lines, peer.unread = (peer.unread + received).split(b"\n")
        if peer.rank is None and len(peer.unread) > LONGEST:
            return self._forget(peer)
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                return self._forget(peer)  # a stranger, or a scanner of ports
            if peer.rank is None:
                if message.get("token") != self.token:
                    return self._forget(peer)
                peer.rank = message["rank"]
            if "ended" in message:
                self._decide(Ended(**message["ended"]))
            if "bye" in message:
                return self._forget(peer)
        return None

    def _lost(self, peer: _Peer, why: str | None = None) -> None:
        self._forget(peer)
        if peer.rank is not None:
            self._decide(Ended(peer.rank, why or self.explain(peer.rank)))

    def _forget(self, peer: _Peer) -> None:
        if peer in self._peers:
            self._peers.remove(peer)
            self._selector.unregister(peer.connection)
            peer.connection.close()

    def _decide(self, ended: Ended) -> None:
        if self.ended:
            return
        self.ended, self._ended_at = ended, time.monotonic()
        for peer in list(self._peers):
            self._send(peer, {"ended": asdict(ended)})
        self._told.set()

    def _send(self, peer: _Peer, message: dict) -> None:
        with suppress(OSError):  # that it is gone is seen when it is read
            peer.connection.sendall(json.dumps(message).encode() + b"\n")
