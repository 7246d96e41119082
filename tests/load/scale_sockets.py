"""The subscribers of `scale.py`: all sockets in one thread, with a few hundred bytes of state each."""

import array
import json
import re
import select
import socket
import sys
import time

from scale_processes import KEY, references, timestamp

FIELDS = (
    "kind sequence isFinal result { ... on Job { externalId state nativeState isTerminal "
    "freshness { observedAt ageMs isStale } } ... on MindBridgeJob { version } }"
)
WATCH = "subscription Watch($refs: [JobRef!]!) { jobUpdates(refs: $refs) { %s } }" % FIELDS

UPDATE = re.compile(
    rb'"sequence":(\d+),"isFinal":(true|false).*?"observedAt":"([^"]+)".*?"version":"?(\d+)', re.DOTALL
)
OPERATION = re.compile(rb'^\{"id":"(\d+)","type":"(\w+)"')


def frame(text):
    """A text frame. A mask of zeros leaves the text as it is."""
    length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text


class Connection:
    """One WebSocket, with its state."""

    __slots__ = ("socket", "first", "unread", "phase", "began")

    def __init__(self, one, first):
        self.socket, self.first, self.unread, self.phase, self.began = one, first, b"", "upgrade", time.monotonic()


class Subscribers:
    """All sockets, in one thread."""

    OPENING = 100

    def __init__(self, port, sockets, each, jobs):
        self.port, self.sockets, self.each, self.jobs = port, sockets, each, jobs
        self.count = sockets * each
        self.poll = select.epoll()
        self.connections = {}
        self.sequence = array.array("q", [-1]) * self.count
        self.version = array.array("i", [0]) * self.count
        self.final = bytearray(self.count)
        self.snapshots = self.open = self.doubled = self.skipped = self.completed = self.pings = self.others = 0
        self.opening, self.late, self.detected, self.failures = [], [], [], []
        self.expected, self.changed_at, self.arrived = 0, 0.0, 0

    def connect(self, number):
        one = socket.socket()
        # one address has some 28,000 ephemeral ports
        one.bind((f"127.0.0.{2 + number % 32}", 0))
        one.connect(("127.0.0.1", self.port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setblocking(False)
        one.send(
            b"GET /graphql HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"authorization: Bearer " + KEY.encode() + b"\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        )
        self.connections[one.fileno()] = Connection(one, number * self.each)
        self.poll.register(one.fileno(), select.EPOLLIN)

    def establish(self):
        """Opens all, some at a time, until each subscription has its snapshot."""
        number, reported_from, deadline = 0, 1, time.monotonic() + 900
        while self.snapshots < self.count and time.monotonic() < deadline and not self.failures:
            while number < self.sockets and number - self.open < self.OPENING:
                self.connect(number)
                number += 1
            self.handle_events(0.5)
            if number >= reported_from:
                print(f"{self.snapshots:,} of {self.count:,} subscriptions", file=sys.stderr, flush=True)
                reported_from += max(1, self.sockets // 10)

    def handle_events(self, seconds):
        for descriptor, _ in self.poll.poll(seconds, 1024):
            connection = self.connections[descriptor]
            try:
                data = connection.socket.recv(65536)
            except BlockingIOError:
                continue
            except OSError as error:
                data = b""
                self.failures.append(repr(error))
            if not data:
                self.failures.append(f"closed by the gateway, phase {connection.phase}")
                self.poll.unregister(descriptor)
                continue
            connection.unread += data
            self.read(connection)

    def read(self, connection):
        if connection.phase == "upgrade":
            head, found, rest = connection.unread.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.failures.append(repr(head[:200]))
                return
            connection.phase, connection.unread = "init", rest
            connection.socket.send(frame(b'{"type":"connection_init"}'))
        unread, at = connection.unread, 0
        while len(unread) - at >= 2:
            length, start = unread[at + 1], at + 2
            if length == 126:
                if len(unread) - at < 4:
                    break
                length, start = int.from_bytes(unread[at + 2 : at + 4], "big"), at + 4
            if len(unread) - start < length:
                break
            self.receive(connection, unread[at] & 0xF, unread[start : start + length])
            at = start + length
        connection.unread = unread[at:]

    def receive(self, connection, opcode, text):
        if opcode == 9:
            self.pings += 1
            connection.socket.send(bytes([0x8A, 0x80 | len(text)]) + bytes(4) + text)
        elif opcode == 1 and connection.phase == "init":
            connection.phase = "open"
            self.subscribe(connection)
        elif opcode == 1:
            self.update(connection, text)
        else:
            self.failures.append(f"frame {opcode}: {text[:200]!r}")

    def subscribe(self, connection):
        messages = []
        for operation in range(self.each):
            payload = {"query": WATCH, "variables": {"refs": references([(connection.first + operation) % self.jobs])}}
            message = {"id": str(operation), "type": "subscribe", "payload": payload}
            messages.append(frame(json.dumps(message).encode()))
        connection.socket.send(b"".join(messages))

    def update(self, connection, text):
        operation = OPERATION.match(text)
        found = UPDATE.search(text)
        if operation and operation.group(2) == b"complete":
            self.completed += 1
            return
        if not operation or not found:
            self.failures.append(repr(text[:600]))
            return
        index = connection.first + int(operation.group(1))
        sequence, version, is_final = int(found.group(1)), int(found.group(4)), found.group(2) == b"true"
        before = self.version[index]
        if before == 0:
            self.snapshots += 1
            if (index + 1) % self.each == 0:
                self.open += 1
                self.opening.append(time.monotonic() - connection.began)
        elif sequence <= self.sequence[index] or self.final[index]:
            self.doubled += 1
        elif version == before:
            # the same state with a new sequence: something else has changed, such as its freshness
            self.others += 1
        else:
            self.skipped += version - before - 1
            now = time.time()
            self.late.append(now - self.changed_at)
            self.detected.append(now - timestamp(found.group(3).decode()))
            self.arrived += version == self.expected
        self.sequence[index], self.version[index], self.final[index] = sequence, version, is_final

    def serve(self, seconds, sample=lambda: None):
        """Answers pings and takes updates for a time."""
        end, next_sample = time.monotonic() + seconds, 0.0
        while (now := time.monotonic()) < end:
            if now >= next_sample:
                sample()
                next_sample = now + 10
            self.handle_events(min(0.5, end - now))

    def wait(self, version, changed_at, watching, seconds):
        """Waits until all who watch a changed job have it; returns how many have not."""
        self.expected, self.changed_at = version, changed_at
        end = time.monotonic() + seconds
        while self.arrived < watching and time.monotonic() < end:
            self.handle_events(0.2)
        return watching - self.arrived

    def close(self):
        for connection in self.connections.values():
            connection.socket.close()
        self.poll.close()
