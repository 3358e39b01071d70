"""Processes hear of one another's end. Here they are threads' ends of real sockets."""

import errno
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from parsimony.distributed import watch
from parsimony.distributed.watch import Ended, Watch

PATIENCE = 60.0  # seconds
NESTED, ENDLESS = b"[" * 60_000 + b"\n", b"x" * 100_000


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Watch]]:
    """Ranks 0 to 2, which know each other and end no process."""
    monkeypatch.setattr(watch, "GRACE", 1e9)
    zero = Watch(0, "token", explain=lambda rank: f"was killed (asked for {rank})")
    watches = [zero, *(Watch(rank, "token", ("127.0.0.1", zero.port)) for rank in (1, 2))]
    until(lambda: {peer.rank for peer in zero._peers} == {1, 2})
    yield watches
    for one in watches:
        one.last_words = lambda ended: None
        one.close()


def until(happened) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_reason_is_told_to_all(group: list[Watch], rank: int) -> None:
    group[rank].report("failed: out of luck", code=3)
    assert [one.verdict() for one in group] == [Ended(rank, "failed: out of luck", 3)] * 3


def test_the_first_reason_counts(group: list[Watch]) -> None:
    group[2].report("failed: first")
    assert group[1].verdict()
    group[1].report("failed: because of it")
    group[1].close()
    time.sleep(0.5)
    assert {one.ended for one in group} == {Ended(2, "failed: first")}


def test_who_goes_without_a_word_is_asked_after(group: list[Watch]) -> None:
    group[1]._peers[0].connection.shutdown(socket.SHUT_RDWR)  # as the system does for a process that is killed
    assert group[2].verdict() == group[0].verdict() == Ended(1, "was killed (asked for 1)")


def test_who_ends_well_is_not_missed(group: list[Watch]) -> None:
    group[1].close()
    until(lambda: len(group[0]._peers) == 1)
    group[0].close()
    until(lambda: not group[2]._peers)
    assert [one.ended for one in group] == [None] * 3


def test_silence_is_noticed(group: list[Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SILENCE", 3.0)
    monkeypatch.setattr(watch, "BEAT", 0.2)
    group[1]._peers.clear()  # it is there, but tells and hears nothing
    assert group[0].verdict() == Ended(1, "has not been heard of for 3 s")


def test_a_stranger_is_turned_away(group: list[Watch]) -> None:
    for words in (
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"rank": 1, "token": "guessed", "ended": {}}\n',
        b"[]\n",
        b"\xff\n",
        NESTED,
        ENDLESS,
    ):
        with socket.create_connection(("127.0.0.1", group[0].port)) as stranger:
            stranger.sendall(words)
            stranger.settimeout(PATIENCE)
            assert stranger.recv(1) == b""
    assert group[0].ended is None
    assert group[0]._thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("disk_is_full", [False, True])
def test_who_hangs_is_ended_after_its_last_words(
    group: list[Watch], monkeypatch: pytest.MonkeyPatch, disk_is_full: bool
) -> None:
    ended = threading.Event()
    words, codes = [], []

    def last_words(ended: Ended) -> None:
        words.append(ended)
        if disk_is_full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def exit(code: int) -> None:
        codes.append(code)
        ended.set()
        raise SystemExit  # of the thread, in the place of the process

    monkeypatch.setattr(watch, "GRACE", 0.1)
    monkeypatch.setattr(watch.os, "_exit", exit)
    group[0].last_words = last_words
    for one in group[1:]:
        one.close()
    group[0].report("was told to end", code=143)
    assert ended.wait(PATIENCE)
    assert words == [Ended(0, "was told to end", 143)]
    assert codes == [143]
