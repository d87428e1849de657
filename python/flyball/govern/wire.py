"""One small row from every rank to every rank, a step, and the name of whoever does not answer.

A star: every rank sends its row to rank 0 over a connection of its own, and rank 0 sends all rows back. Rows have one
size, whatever they are about, so ranks that are at different places of their program find out at once. The others are
connected with each other as well, for one purpose: a process that dies closes its connections, so each rank knows which
one it was, whatever it was doing itself.

It stands beside torch's collectives for two reasons. Where a process dies, gloo says "connection closed by peer" to its
neighbours, without a name, and lets the rest wait. And it is many times quicker for so few bytes (`python -m benches
agreement`): no thread stands between the call and the socket. Rank 0 handles one rank after the other, so it loses to a
tree from some hundreds of ranks on.

A frame is one row for each rank: the number of the call, its topic, and ten numbers. A topic below zero stands in the
row of a rank that did not answer. Who gives up sends a last frame to everybody else, so that all say the same.
"""

from __future__ import annotations

import hmac
import os
import secrets
import select
import socket
import struct
import time
import weakref
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch.distributed as dist

from flyball.errors import AgreementError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = tuple[int, int, float, float, float, float, float, float, float, float, float, float]

WORDS = 10
_ROW = struct.Struct("=qq10d")
_HELLO = struct.Struct("=16sq")
_KEY = 16
_GONE, _LATE, _NOT_WAITED_FOR = -1, -2, -3
_NOTHING = (0.0,) * WORDS
_CONNECT = 10.0  # seconds that one address is tried
_MOST_CONNECTED = 128  # ranks of which each is connected with each


class _Offer(NamedTuple):
    """How a rank can be reached, and how the two sides know each other."""

    hosts: tuple[str, ...]
    port: int
    hello: bytes
    welcome: bytes


class Wire:
    """The connections of one rank.

    Args:
        rank: Its number.
        ranks: How many there are.
        peers: The connections to others by their rank: to rank 0, or on rank 0 to all; those between others are used
            to see who is gone, and may be missing.
        timeout: Seconds that rank 0 waits for the others. They wait for rank 0 twice as long, so that it can tell them
            whom it missed.
        topics: What each topic is called in messages.
    """

    def __init__(
        self, rank: int, ranks: int, peers: Mapping[int, socket.socket], timeout: float, topics: Sequence[str]
    ) -> None:
        self.rank = rank
        self.ranks = ranks
        self.timeout = timeout
        self._topics = topics
        self._calls = 0
        self._torn = ""
        self._peers = dict(peers)
        self._ranks = {peer.fileno(): number for number, peer in peers.items()}
        self._poll = select.poll()
        for peer in peers.values():
            peer.settimeout(2.0 * timeout)
            self._poll.register(peer, select.POLLIN)
        self.close = weakref.finalize(self, _close, list(peers.values()))
        # A loader's worker that outlives its rank would hold the connections open, and hide that it died.
        alive = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _leave(alive()))

    def exchange(self, topic: int, words: Sequence[float] = _NOTHING) -> list[Row]:
        """Send a row of ten numbers, and return those of all ranks.

        Raises:
            AgreementError: A rank is gone, late, or at another place of its program; it is named, and the wire is torn.
        """
        if self._torn:
            raise AgreementError(f"the ranks have lost each other before, and cannot agree any more: {self._torn}")
        self._calls = calls = self._calls + 1
        own = _ROW.pack(calls, topic, *words)
        frame = self._collect(own) if self.rank == 0 else self._ask(own)
        rows: list[Row] = list(_ROW.iter_unpack(frame))
        for row in rows:
            if row[0] != calls or row[1] != topic:
                raise self._tear(frame)
        return rows

    def roll_call(self, patience: float) -> AgreementError | None:
        """Say who is gone, without a word to the others: for where something else than this has failed.

        Args:
            patience: Seconds to wait until somebody is, as a death may be seen elsewhere first.
        """
        if self._torn:
            return None
        gone: set[int] = set()
        until = time.monotonic() + patience
        while not gone and (ready := self._poll.poll(max(0.0, until - time.monotonic()) * 1000.0)):
            for descriptor, _ in ready:
                number = self._ranks[descriptor]
                last = _received(self._peers[number], _ROW.size)
                if last is None:
                    gone.add(number)
                elif _ROW.unpack(last)[1] < 0:  # it has given up, and says because of whom
                    rows = _ROW.iter_unpack(self._rest_of_frame(number, last))
                    gone |= {one for one, row in enumerate(rows) if row[1] == _GONE}
        gone.discard(self.rank)
        if not gone:
            return None
        self._calls += 1
        topics = (_GONE if one in gone else _NOT_WAITED_FOR for one in range(self.ranks))
        return self._tear(b"".join(map(self._absent, topics)))

    def _collect(self, own: bytes) -> bytes:
        """On rank 0: wait for the row of every other rank, and send all rows to all of them."""
        rows: list[bytes | None] = [own, *([None] * (self.ranks - 1))]
        missing = self.ranks - 1
        until = time.monotonic() + self.timeout
        gone, wait = False, self.timeout
        while missing and not gone:
            ready = self._poll.poll(max(0.0, wait) * 1000.0)
            for descriptor, _ in ready:
                number = self._ranks[descriptor]
                row = _received(self._peers[number], _ROW.size)
                if row is None:
                    gone, row = True, self._absent(_GONE)
                elif _ROW.unpack(row)[1] < 0:  # it has given up, and this is why
                    return self._rest_of_frame(number, row)
                rows[number] = row
                missing -= 1
            if not ready and wait <= 0.0:
                break
            wait = until - time.monotonic()
        absent = self._absent(_NOT_WAITED_FOR if gone else _LATE)
        frame = b"".join(absent if row is None else row for row in rows)
        if not missing and not gone:
            for peer in self._peers.values():
                with suppress(OSError):  # who goes now is missed at the next call
                    peer.sendall(frame)
        return frame

    def _ask(self, own: bytes) -> bytes:
        """On the others: send the row to rank 0, and wait for all rows."""
        hub = self._peers[0]
        with suppress(OSError):  # what rank 0 said before it closed can still be read
            hub.sendall(own)
        topic = _GONE
        try:
            frame = _received(hub, _ROW.size * self.ranks)
        except TimeoutError:
            frame, topic = None, _LATE
        if frame is not None:
            return frame
        rows = [self._absent(_NOT_WAITED_FOR)] * self.ranks
        rows[0], rows[self.rank] = self._absent(topic), own
        return b"".join(rows)

    def _rest_of_frame(self, number: int, first: bytes) -> bytes:
        return first + (_received(self._peers[number], _ROW.size * (self.ranks - 1)) or b"")

    def _absent(self, topic: int) -> bytes:
        return _ROW.pack(self._calls, topic, *_NOTHING)

    def _tear(self, frame: bytes) -> AgreementError:
        """Say who is missing, or who is elsewhere, also to the others; there is no agreeing after this."""
        for peer in self._peers.values():
            with suppress(OSError):
                peer.sendall(frame)
                peer.shutdown(socket.SHUT_WR)
        rows: list[Row] = list(_ROW.iter_unpack(frame))
        told: list[str] = []
        absent: list[int] = []
        seconds = self.timeout * (2.0 if rows[0][1] == _LATE else 1.0)
        for topic, words in (
            (_GONE, "{} gone: the process has ended, or left the run with an error of its own"),
            (_LATE, f"{{}} late: no answer for {seconds:g} s"),
        ):
            found = [rank for rank, row in enumerate(rows) if row[1] == topic]
            if found:
                told.append(words.format(_are(found)))
                absent += found
        places = {rank: (row[0], row[1]) for rank, row in enumerate(rows) if row[1] >= 0}
        elsewhere: list[int] = []
        if len(set(places.values())) > 1:
            numbers = Counter(places.values())
            # The many are right; where two halves differ, rank 0 is.
            right = max(numbers, key=lambda place: (numbers[place], place == places.get(0)))
            elsewhere = [rank for rank, place in places.items() if place != right]
            at = {place: [rank for rank, one in places.items() if one == place] for place in numbers}
            told.append("; ".join(f"{_are(found)} at {self._called(place)}" for place, found in at.items()))
        self._torn = "; ".join(told)
        where = f" in {self._called(next(iter(places.values())))}" if places else ""
        if absent:
            remedy = "Look at what these ranks said last, and start the run again from its last checkpoint"
        else:
            remedy = "Call the governor in the same order on every rank"
        return AgreementError(
            f"the ranks cannot agree{where}: {self._torn}. {remedy}", ranks=tuple(absent or elsewhere)
        )

    def _called(self, place: tuple[int, int]) -> str:
        return f"`{self._topics[place[1]]}` (call {place[0]})"


def connect(rank: int, ranks: int, timeout: float, topics: Sequence[str]) -> Wire:
    """Connect the ranks of the default process group; all of them must call this.

    Raises:
        AgreementError: A rank did not come, or cannot reach another.
    """
    here = (socket.gethostname(), _boot())
    everyone: list[tuple[str, str] | None] = [None] * ranks
    offers: list[Any] = [None] * ranks
    # They meet in a group on the CPU, whatever the run's own is made of; it is not needed afterwards.
    try:
        group: Any = dist.new_group(backend="gloo")
        dist.all_gather_object(everyone, here, group=group)
        listener, offer = _listen(local=len(set(everyone)) == 1, ranks=ranks)
        dist.all_gather_object(offers, offer, group=group)
        dist.destroy_process_group(group)
    except (RuntimeError, dist.DistError) as error:
        raise AgreementError(
            f"the {ranks} ranks could not find each other ({str(error).splitlines()[0]}): every rank must make its "
            "governor, in the same order as the others"
        ) from error
    until = time.monotonic() + timeout
    lower = range(rank) if ranks <= _MOST_CONNECTED or not rank else range(1)
    higher = range(rank + 1, ranks) if ranks <= _MOST_CONNECTED or not rank else range(0)
    with listener:
        peers = {number: _reach(offers[number], number, rank) for number in lower}
        peers |= _accept(listener, offer, higher, until)
    return Wire(rank, ranks, peers, timeout, topics)


def _listen(*, local: bool, ranks: int) -> tuple[socket.socket, _Offer]:
    if local:
        listener = socket.create_server(("127.0.0.1", 0), backlog=ranks)
        hosts: tuple[str, ...] = ("127.0.0.1",)
    else:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        listener = socket.create_server(("", 0), family=family, backlog=ranks, dualstack_ipv6=dual)
        name = socket.gethostname()
        found = [name]
        with suppress(OSError):
            found += [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
        # What this machine is called by the others, as far as the launcher said so.
        named = os.environ.get("MASTER_ADDR") if dist.get_rank() == 0 else None
        hosts = tuple(dict.fromkeys([named, *found] if named else found))
    port = listener.getsockname()[1]
    return listener, _Offer(hosts, port, secrets.token_bytes(_KEY), secrets.token_bytes(_KEY))


def _accept(listener: socket.socket, offer: _Offer, higher: range, until: float) -> dict[int, socket.socket]:
    come: dict[int, socket.socket] = {}
    while len(come) < len(higher):
        listener.settimeout(max(0.001, until - time.monotonic()))
        try:
            peer, _ = listener.accept()
            peer.settimeout(_CONNECT)
            said = _received(peer, _HELLO.size)
        except TimeoutError as error:
            missing = [rank for rank in higher if rank not in come]
            _close(list(come.values()))
            raise AgreementError(
                f"{_are(missing)} late: no connection from there to port {offer.port} of {' or '.join(offer.hosts)}. "
                "Let the name of every machine be one that the others can resolve",
                ranks=tuple(missing),
            ) from error
        hello, rank = _HELLO.unpack(said) if said is not None and len(said) == _HELLO.size else (b"", -1)
        if not hmac.compare_digest(hello, offer.hello):
            peer.close()  # a stranger
            continue
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(offer.welcome)
        come[rank] = peer
    return come


def _reach(offer: _Offer, number: int, rank: int) -> socket.socket:
    failures = []
    for host in offer.hosts:
        try:
            peer = socket.create_connection((host, offer.port), timeout=_CONNECT)
        except OSError as error:
            failures.append(f"{host}: {error}")
            continue
        try:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(_HELLO.pack(offer.hello, rank))
            if hmac.compare_digest(_received(peer, _KEY) or b"", offer.welcome):
                return peer
            failures.append(f"{host}: somebody else listens at port {offer.port}")
        except OSError as error:
            failures.append(f"{host}: {error}")
        peer.close()
    raise AgreementError(
        f"rank {rank} cannot reach rank {number} ({'; '.join(failures)}): let the name of every machine be one that "
        "the others can resolve, and `MASTER_ADDR` an address of the machine of rank 0 that they reach",
        ranks=(number,),
    )


def _received(peer: socket.socket, size: int) -> bytes | None:
    """Return so many bytes, or None if the other end is closed.

    Raises:
        TimeoutError: They did not come in time.
    """
    try:
        data = peer.recv(size)
        while 0 < len(data) < size:
            more = peer.recv(size - len(data))
            data = data + more if more else b""
    except TimeoutError:
        raise
    except OSError:
        return None
    return data or None


def _are(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} is"
    return f"ranks {', '.join(map(str, ranks))} are"


def _leave(wire: Wire | None) -> None:
    if wire is not None:
        wire.close()


def _close(peers: Sequence[socket.socket]) -> None:
    for peer in peers:
        peer.close()


def _boot() -> str:
    """Return what tells two machines of one name apart."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return ""
