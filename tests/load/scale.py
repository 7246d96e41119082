#!/usr/bin/env python3
"""The figures of scale: many sockets, many subscriptions on a socket, many followed jobs, held for a time.

    python3 tests/load/scale.py target/release/jobgate sockets        # 19,000 sockets with a subscription each
    python3 tests/load/scale.py target/release/jobgate subscriptions  # 5,000 sockets with 20 each, 100,000 jobs
    python3 tests/load/scale.py target/release/jobgate polls          # 100 calls a second of one id each
    python3 tests/load/scale.py target/release/jobgate start          # starts with 100,000 jobs in the store
    python3 tests/load/scale.py target/release/jobgate requests       # 1,000,000 requests over 1,000 jobs (wrk)

Each starts the gateway with a client key and an upstream of its own: a stand-in for MindBridge in a process of its
own, since the simulator searches its jobs one by one and reads no scenario of 100,000. `sockets` and `subscriptions`
fail when an update is lost or doubled. There is no limit on time. Needs Linux, and one open file for each socket
(`ulimit -n`) both here and in the gateway.
"""

import argparse
import array
import asyncio
import hashlib
import http.client
import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone

# one client may track 20,000 jobs, so there are several; the first does everything else
KEYS = ["jg_" + letter * 43 for letter in "klmno"]
KEY = KEYS[0]
TRACKED_BY_ONE = 20_000
TOKEN = "scale-token"
MANY = 10_000_000
TICKS = os.sysconf("SC_CLK_TCK")
# jobs are this old at the start, so that the first list of changes is empty
AGE = timedelta(minutes=20)
FIELDS = (
    "kind sequence isFinal result { ... on Job { externalId state nativeState isTerminal "
    "freshness { observedAt ageMs isStale } } ... on MindBridgeJob { version } }"
)
WATCH = "subscription Watch($refs: [JobRef!]!) { jobUpdates(refs: $refs) { %s } }" % FIELDS
READ = "query Read($refs: [JobRef!]!) { jobs(refs: $refs) { ... on Job { externalId state } ... on JobProblem { code } } }"
TRACK = (
    "mutation Track($refs: [JobRef!]!) { trackJobs(input: { refs: $refs }) "
    "{ isStored results { ... on Job { externalId state } ... on JobProblem { code } } } }"
)
UNTRACK = "mutation Untrack($refs: [JobRef!]!) { untrackJobs(input: { refs: $refs }) { __typename } }"


def job_id(number):
    return f"65f0c0ffee{number:014x}"


def references(numbers):
    return [{"external": {"source": "audit", "externalId": job_id(number)}} for number in numbers]


# --- The upstream -----------------------------------------------------------------------------------------------------


class Upstream:
    """Jobs that are found by their number, and change when they are told to."""

    def __init__(self, jobs, status, refuse):
        self.jobs, self.refuse = jobs, refuse
        self.first = self.date(datetime.now(timezone.utc) - AGE)
        self.state = (1, status, self.first)
        # the changed jobs, and when they changed
        self.changed = {}
        self.counts = {"one": 0, "query": 0, "list": 0}

    @staticmethod
    def date(at):
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def document(self, job):
        number = int(job[10:], 16)
        if number >= self.jobs or job != job_id(number):
            return None
        version, status, modified = self.changed.get(number, self.state)
        user = '{"userId":"66a1b2c3d4e5f60718293a4d","userName":"Ada Auditor"}'
        return (
            f'{{"id":"{job}","version":{version},"creationDate":"{self.first}","lastModifiedDate":"{modified}",'
            f'"createdUserInfo":{user},"lastModifiedUserInfo":{user},"type":"ANALYSIS_RUN","status":"{status}"}}'
        )

    def change(self, count, status):
        """Changes the first jobs at one moment."""
        now = self.date(datetime.now(timezone.utc))
        for number in range(count):
            version, _, _ = self.changed.get(number, self.state)
            self.changed[number] = (version + 1, status, now)
        return json.dumps({"at": now})

    def answer(self, method, path, body):
        path, _, query = path.partition("?")
        if path == "/control/counts":
            return 200, json.dumps(self.counts)
        if path == "/control/change":
            wanted = json.loads(body)
            return 200, self.change(wanted["jobs"], wanted["status"])
        if method == "POST":
            question = json.loads(body)
            kind = "query" if "id" in question else "list"
            self.counts[kind] += 1
            if self.refuse == "both" or self.refuse == kind:
                return 403, self.problem(403, "FORBIDDEN")
            return 200, self.page(kind, question, dict(part.split("=") for part in query.split("&") if part))
        self.counts["one"] += 1
        document = self.document(path.rpartition("/")[2])
        return (200, document) if document else (404, self.problem(404, "NOT_FOUND"))

    def page(self, kind, question, query):
        page, size = int(query.get("page", 0)), int(query.get("size", 20))
        if kind == "query":
            ids = question["id"]
            ids = ids["$in"] if isinstance(ids, dict) else [ids]
        else:
            since = question["lastModifiedDate"]["$gte"]
            since = self.date(datetime.fromisoformat(since.replace("Z", "+00:00")).astimezone(timezone.utc))
            whole = since <= self.first
            ids = range(self.jobs) if whole else [n for n, (_, _, at) in self.changed.items() if at >= since]
            ids = [job_id(number) for number in ids]
        total, pages = len(ids), -(-len(ids) // size)
        content = [document for document in map(self.document, ids[page * size : (page + 1) * size]) if document]
        last = "true" if page + 1 >= pages else "false"
        return (
            f'{{"pageNumber":{page},"totalPages":{pages},"numberOfElements":{len(content)},"totalElements":{total},'
            f'"pageSize":{size},"size":{size},"number":{page},"first":{"false" if page else "true"},"last":{last},'
            f'"content":[{",".join(content)}]}}'
        )

    @staticmethod
    def problem(status, code):
        problem = [{"problemType": code, "severity": "ERROR", "reason": code.lower()}]
        kind = "https://developer.mindbridge.ai/problems/" + code.lower()
        return json.dumps({"type": kind, "title": code, "status": status, "problems": problem})


class UpstreamConnection(asyncio.Protocol):
    """As much of HTTP/1.1 as the gateway uses."""

    def __init__(self, upstream):
        self.upstream, self.unread = upstream, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.unread += data
        while True:
            head, found, rest = self.unread.partition(b"\r\n\r\n")
            if not found:
                return
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            length = int(length.group(1)) if length else 0
            if len(rest) < length:
                return
            self.unread = rest[length:]
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            path = path.removeprefix("/api/v1/async-results") if path.startswith("/api/") else path
            status, text = self.upstream.answer(method, path, rest[:length])
            kind = "json" if status == 200 else "problem+json"
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
            body = text.encode()
            head = f"HTTP/1.1 {status} X\r\ncontent-type: application/{kind}\r\ndate: {date}\r\ncontent-length: {len(body)}"
            self.transport.write(head.encode() + b"\r\n\r\n" + body)


def serve_upstream(port, jobs, status, refuse):
    async def serve():
        upstream = Upstream(int(jobs), status, refuse)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: UpstreamConnection(upstream), "127.0.0.1", int(port))
        await server.serve_forever()

    asyncio.run(serve())


# --- The processes ----------------------------------------------------------------------------------------------------


class Process:
    """The CPU time and the memory of a process, as the system counts them."""

    def __init__(self, child):
        self.child, self.pid = child, child.pid

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self):
        """Resident memory now and at its peak, in MiB."""
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return tuple(int(re.search(rf"{name}:\s+(\d+)", text).group(1)) / 1024 for name in ("VmRSS", "VmHWM"))

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)


class Run:
    """The gateway and its upstream."""

    def __init__(self, arguments, folder, sockets=1_000, status="IN_PROGRESS", refuse="none", **sections):
        self.arguments, self.folder = arguments, folder
        self.public, self.admin, self.upstream_port = (arguments.port + offset for offset in range(3))
        self.config = os.path.join(folder, "jobgate.json")
        clients = [
            {"name": f"load-{number}", "key_sha256": hashlib.sha256(key.encode()).hexdigest(), "sources": {"audit": {}}}
            for number, key in enumerate(KEYS)
        ]
        source = {
            "upstream": "mindbridge",
            "base_url": f"http://127.0.0.1:{self.upstream_port}/api",
            "credential": {"bearer": {"env": "SCALE_TOKEN"}},
            "budget": {"per_second": arguments.budget, "per_hour": arguments.budget * 3600},
        }
        config = {
            "server": {
                "listen": f"127.0.0.1:{self.public}",
                "admin_listen": f"127.0.0.1:{self.admin}",
                "max_connections": sockets + 100,
                # for clients on a busy machine, who have half of it for their first message
                "header_timeout": "1m",
            },
            "sources": {"audit": source},
            "clients": clients,
            "store": {"kind": "memory"},
            # a subscription starts with the job that was read for the warm-up, without a call of its own
            "cache": {"fresh_for": "1h"},
            "limits": {
                "requests_per_second": 1_000_000, "burst": 1_000_000, "concurrent_requests": 1_000_000,
                "jobs_watched": MANY,
            },
            "streams": {"max_streams_per_client": 1_000_000, "max_operations_per_client": MANY},
            "telemetry": {"log_level": "warn"},
            **sections,
        }
        pathlib.Path(self.config).write_text(json.dumps(config))
        self.log = open(os.path.join(folder, "log"), "a", encoding="utf-8")
        script = [sys.executable, os.path.abspath(__file__), "upstream"]
        script += [str(self.upstream_port), str(arguments.jobs), status, refuse]
        self.upstream = Process(subprocess.Popen(script, stdout=self.log, stderr=self.log))
        self.gateway = None
        deadline = time.monotonic() + 60
        while True:
            try:
                self.counts()
                break
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit("the upstream does not answer")
                time.sleep(0.1)

    def start(self):
        """Starts the gateway, and returns the seconds until it was ready."""
        began = time.monotonic()
        environment = {**os.environ, "SCALE_TOKEN": TOKEN}
        command = [os.path.abspath(self.arguments.binary), "serve", "--config", self.config]
        self.gateway = Process(subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment))
        while True:
            try:
                if self.get(self.admin, "/readyz")[0] == 200:
                    return time.monotonic() - began
            except OSError:
                pass
            if self.gateway.child.poll() is not None or time.monotonic() > began + 120:
                sys.exit(f"the gateway did not become ready: {self.output()}")
            time.sleep(0.002)

    def output(self):
        return pathlib.Path(self.log.name).read_text()[-2000:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.gateway, self.upstream):
            if process and process.child.poll() is None:
                process.stop()
        output = self.output()
        if output:
            print("\nlog of the gateway (its end):\n" + output)

    @staticmethod
    def get(port, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST" if body else "GET", path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def counts(self):
        return json.loads(self.get(self.upstream_port, "/control/counts")[1])

    def change(self, jobs, status):
        answer = self.get(self.upstream_port, "/control/change", json.dumps({"jobs": jobs, "status": status}))
        return timestamp(json.loads(answer[1])["at"])

    def metrics(self):
        """The samples of the metrics endpoint, labels of one name added up."""
        sums = {}
        for line in self.get(self.admin, "/metrics")[1].splitlines():
            sample = re.match(r"(\w+)(?:\{[^}]*\})? ([\d.e+]+)$", line)
            if sample:
                sums[sample.group(1)] = sums.get(sample.group(1), 0) + float(sample.group(2))
        return sums

    def execute(self, query, jobs, at_once=200):
        """Executes a document about these jobs, some at once, one request after the other."""
        connection = http.client.HTTPConnection("127.0.0.1", self.public, timeout=60)
        for first in range(0, len(jobs), at_once):
            key = KEYS[first // TRACKED_BY_ONE % len(KEYS)]
            headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
            variables = {"refs": references(jobs[first : first + at_once])}
            connection.request("POST", "/graphql", json.dumps({"query": query, "variables": variables}), headers)
            response = connection.getresponse()
            text = response.read()
            if response.status != 200 or b'"errors"' in text or b'"code"' in text or b'"isStored":false' in text:
                sys.exit(f"unexpected answer {response.status}: {text[:400]!r}")


def timestamp(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def share(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


def table(rows):
    print()
    for name, value in rows:
        print(f"| {name} | {value} |")
    sys.stdout.flush()


# --- The subscribers --------------------------------------------------------------------------------------------------

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
        number, told, deadline = 0, 1, time.monotonic() + 900
        while self.snapshots < self.count and time.monotonic() < deadline and not self.failures:
            while number < self.sockets and number - self.open < self.OPENING:
                self.connect(number)
                number += 1
            self.handle_events(0.5)
            if number >= told:
                print(f"{self.snapshots:,} of {self.count:,} subscriptions", file=sys.stderr, flush=True)
                told += max(1, self.sockets // 10)

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


def hold(arguments, folder, sockets, each):
    """Opens the subscriptions, holds them, and changes a group of jobs twice, the second time to the end."""
    jobs, group = arguments.jobs, arguments.group
    refuse = "list" if arguments.refuse_list else "none"
    rows, clean = [], True
    with Run(arguments, folder, sockets, refuse=refuse) as run:
        run.start()
        run.execute(READ, range(jobs))
        ready, cpu = run.gateway.memory(), run.gateway.cpu()
        began = time.monotonic()
        subscribers = Subscribers(run.public, sockets, each, jobs)
        subscribers.establish()
        count = subscribers.count
        rows += [
            ("sockets, subscriptions, jobs", f"{sockets:,}, {count:,}, {jobs:,}"),
            ("resident with the jobs in memory, before the sockets, MiB", f"{ready[0]:.1f}"),
            ("to establish all, s", f"{time.monotonic() - began:.1f}"),
            ("CPU to establish a subscription, µs", f"{(run.gateway.cpu() - cpu) / count * 1e6:.0f}"),
            (
                f"to establish one socket ({each} subscriptions), p50 / p99, s",
                f"{share(subscribers.opening, 0.5):.2f} / {share(subscribers.opening, 0.99):.2f}",
            ),
        ]
        if subscribers.failures:
            sys.exit(f"{len(subscribers.failures)} failed, as by: {subscribers.failures[0]}")
        subscribers.serve(arguments.settle)
        start, cpu, calls, metrics = run.gateway.memory(), run.gateway.cpu(), run.counts(), run.metrics()
        upstream_cpu, pings, began = run.upstream.cpu(), subscribers.pings, time.monotonic()
        seen = []
        subscribers.serve(arguments.seconds, lambda: seen.append((run.gateway.memory()[0], run.gateway.cpu())))
        held, lasted = run.gateway.memory(), time.monotonic() - began
        used, made, after = run.gateway.cpu() - cpu, run.counts(), run.metrics()
        made = {kind: (made[kind] - calls[kind]) / lasted for kind in made}
        polls = after.get("jobgate_poll_lag_seconds_count", 0) - metrics.get("jobgate_poll_lag_seconds_count", 0)
        lag = after.get("jobgate_poll_lag_seconds_sum", 0) - metrics.get("jobgate_poll_lag_seconds_sum", 0)
        steps = [(later[1] - earlier[1]) * 10 for earlier, later in zip(seen, seen[1:])]
        rows += [
            ("held for, s", f"{lasted:.0f}"),
            ("resident at the start, the end, least and most, MiB", "%.1f, %.1f, %.1f, %.1f" % (
                start[0], held[0], min(one for one, _ in seen), max(one for one, _ in seen))),
            ("resident at its peak, MiB", f"{held[1]:.1f}"),
            ("memory a subscription, kB", f"{(held[0] - ready[0]) * 1024 / count:.1f}"),
            ("memory a socket, kB", f"{(held[0] - ready[0]) * 1024 / sockets:.1f}"),
            ("CPU of the gateway, s", f"{used:.1f} ({used / lasted * 100:.1f} % of a core)"),
            ("CPU in the first, middle and last 10 s, % of a core", "%.1f, %.1f, %.1f" % (
                steps[0], steps[len(steps) // 2], steps[-1])) if steps else ("CPU", "-"),
            ("CPU of the upstream, s", f"{run.upstream.cpu() - upstream_cpu:.1f}"),
            ("upstream calls a second: batches, lists, single", "%.2f, %.2f, %.2f" % (
                made["query"], made["list"], made["one"])),
            ("polls of jobs a second, mean delay of one, s", f"{polls / lasted:.1f}, {lag / max(polls, 1):.2f}"),
            ("jobs followed", f"{after.get('jobgate_jobs_followed', 0):,.0f}"),
            ("pings answered", f"{subscribers.pings - pings:,}"),
            ("updates without a change of the job, until then", f"{subscribers.others:,}"),
        ]
        watching = sum(1 for index in range(count) if index % jobs < group)
        missing = 0
        for version, status in ((2, "IN_PROGRESS"), (3, "COMPLETE")):
            subscribers.late, subscribers.detected, subscribers.arrived = [], [], 0
            cpu, began = run.gateway.cpu(), time.monotonic()
            subscribers.changed_at = time.time()
            subscribers.expected = version
            changed_at = run.change(group, status)
            missing += subscribers.wait(version, changed_at, watching, 300)
            used = run.gateway.cpu() - cpu
            rows += [
                (f"change to {status}: jobs, deliveries", f"{group:,}, {watching:,}"),
                ("- changed to delivered, p50 / p99 / last, s", "%.2f / %.2f / %.2f" % tuple(
                    share(subscribers.late, part) for part in (0.5, 0.99, 1))),
                ("- detected to delivered, p50 / p99 / last, s", "%.2f / %.2f / %.2f" % tuple(
                    share(subscribers.detected, part) for part in (0.5, 0.99, 1))),
                ("- CPU of the gateway, a delivery, µs", f"{used:.2f} s, {used / watching * 1e6:.0f}"),
            ]
            subscribers.serve(15)
        final = sum(subscribers.final)
        lost = missing + subscribers.skipped + (count - subscribers.snapshots) + abs(watching - final)
        clean = not (lost or subscribers.doubled or subscribers.failures)
        clean = clean and subscribers.completed == watching
        before = run.gateway.memory()
        subscribers.close()
        time.sleep(arguments.rest)
        after = run.gateway.memory()
        # an allocator may return memory only when its threads work again
        for _ in range(500):
            run.execute(READ, range(20))
        time.sleep(arguments.rest)
        woken = run.gateway.memory()
        rows += [
            ("lost, doubled", f"{lost:,}, {subscribers.doubled:,}"),
            ("final updates, completed operations", f"{final:,}, {subscribers.completed:,} of {watching:,}"),
            ("sockets that failed", f"{len(subscribers.failures):,} {subscribers.failures[:3] or ''}"),
            (
                f"resident before the sockets closed, {arguments.rest} s after, and after 500 requests, MiB",
                f"{before[0]:.1f}, {after[0]:.1f}, {woken[0]:.1f}",
            ),
        ]
    table(rows)
    return clean


# --- Other figures ----------------------------------------------------------------------------------------------------


def polls(arguments, folder):
    """Polls with one id a call: the upstream refuses the query of many. The same gateway without them is measured first."""
    interval = max(1, round(arguments.jobs / arguments.rate))
    poll = {"min_interval": f"{interval}s", "max_interval": f"{interval}s", "unsubscribe_grace": "1s"}
    rows = []
    with Run(arguments, folder, refuse="both", poll=poll) as run:
        run.start()
        run.execute(READ, range(arguments.jobs), 100)
        for name in ("without polls", "with polls", "without polls again"):
            if name == "with polls":
                run.execute(TRACK, range(arguments.jobs))
            elif name != "without polls":
                run.execute(UNTRACK, range(arguments.jobs))
            time.sleep(interval + 5)
            cpu, upstream, calls, began = run.gateway.cpu(), run.upstream.cpu(), run.counts(), time.monotonic()
            time.sleep(arguments.seconds)
            lasted, made = time.monotonic() - began, run.counts()
            used = run.gateway.cpu() - cpu
            made = {kind: made[kind] - calls[kind] for kind in made}
            each = f", {used / made['one'] * 1e6:.0f} µs a call" if made["one"] else ""
            rows += [
                (f"{name}: calls a second, single / other", "%.1f / %.1f" % (
                    made["one"] / lasted, (made["query"] + made["list"]) / lasted)),
                ("- CPU of the gateway", f"{used:.2f} s in {lasted:.0f} s, {used / lasted * 100:.2f} % of a core{each}"),
                ("- CPU of the upstream", f"{run.upstream.cpu() - upstream:.2f} s"),
                ("- resident, MiB", f"{run.gateway.memory()[0]:.1f}"),
            ]
    table(rows)
    return True


def start(arguments, folder):
    """Starts with a store of jobs: completed ones, then tracked ones that run."""
    rows = []
    for status, query in (("COMPLETE", READ), ("IN_PROGRESS", TRACK)):
        path = os.path.join(folder, f"store-{status}")
        with Run(arguments, folder, status=status, store={"kind": "embedded", "path": path}) as run:
            rows.append((f"{status}: start with an empty store, s", f"{run.start():.2f}"))
            began = time.monotonic()
            run.execute(query, range(arguments.jobs))
            took = time.monotonic() - began
            # what is not terminal is written within 0.2 s
            time.sleep(2)
            filled = run.gateway.memory()
            run.gateway.stop()
            size = sum(one.stat().st_size for one in pathlib.Path(path).iterdir()) / 2**20
            rows.append(("- filled in, s; file, MiB; resident, MiB", f"{took:.0f}; {size:.0f}; {filled[0]:.0f}"))
            ready = []
            for number in range(arguments.times):
                ready.append(run.start())
                cpu, at_once = run.gateway.cpu(), run.gateway.memory()
                time.sleep(arguments.rest)
                followed = run.metrics().get("jobgate_jobs_followed", 0)
                rows.append((
                    f"- start {number + 1}: ready after, s; CPU until then, s; resident then and {arguments.rest} s later, MiB",
                    f"{ready[-1]:.2f}; {cpu:.2f}; {at_once[0]:.0f}, {run.gateway.memory()[0]:.0f}; {followed:,.0f} followed",
                ))
                if number + 1 == arguments.times:
                    run.execute(READ, range(200))
                run.gateway.stop()
    table(rows)
    return True


WRK = """
local count, last = 0, %d
local head = { ["content-type"] = "application/json", ["authorization"] = "Bearer %s" }
local prefix, suffix = %s, %s
function request()
  count = count + 1
  if count > last then wrk.thread:stop() end
  return wrk.format("POST", "/graphql", head, prefix .. string.format("65f0c0ffee%%014x", count %% %d) .. suffix)
end
function done(summary, latency)
  io.write(string.format("requests %%d errors %%d\\n", summary.requests,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
"""


def requests(arguments, folder):
    """Requests for one job each, of one client, by `wrk`."""
    query = (
        "query One($ref: JobRef!) { job(ref: $ref) { ... on Job { id externalId state isTerminal nativeState createdAt "
        "updatedAt finishedAt progress { completed total } failure { code message } "
        "freshness { observedAt ageMs isStale staleReason } } } }"
    )
    body = json.dumps({"query": query, "variables": {"ref": {"external": {"source": "audit", "externalId": "#"}}}})
    prefix, suffix = body.split("#")
    rows = []
    status = arguments.status
    with Run(arguments, folder, status=status) as run:
        run.start()
        started = run.gateway.memory()
        run.execute(READ, range(arguments.jobs))
        before = run.gateway.memory()
        script = os.path.join(folder, "requests.lua")
        text = WRK % (arguments.requests, KEY, json.dumps(prefix), json.dumps(suffix), arguments.jobs)
        pathlib.Path(script).write_text(text)
        command = ["wrk", "-t1", f"-c{arguments.connections}", "-d36000s", "-s", script, f"http://127.0.0.1:{run.public}"]
        cpu, began = run.gateway.cpu(), time.monotonic()
        driver = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lasted, used, after = time.monotonic() - began, run.gateway.cpu() - cpu, run.gateway.memory()
        time.sleep(arguments.rest)
        rested = run.gateway.memory()
        done, errors = map(int, re.search(r"requests (\d+) errors (\d+)", driver).groups())
        rows = [
            ("requests, errors, jobs, connections", f"{done:,}, {errors}, {arguments.jobs:,}, {arguments.connections}"),
            ("in, s; requests a second", f"{lasted:.0f}; {done / lasted:.0f}"),
            ("CPU a request, µs", f"{used / done * 1e6:.1f}"),
            ("resident after the start, with the jobs, MiB", f"{started[0]:.1f}, {before[0]:.1f}"),
            (f"resident after the requests, {arguments.rest} s later, MiB", f"{after[0]:.1f}, {rested[0]:.1f}"),
            ("resident at its peak, MiB", f"{rested[1]:.1f}"),
        ]
    table(rows)
    return not errors and done >= arguments.requests


def main():
    # so that the processes are ended also then
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if sys.argv[1:2] == ["upstream"]:
        return serve_upstream(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("case", choices=["sockets", "subscriptions", "polls", "start", "requests"])
    parser.add_argument("--port", type=int, default=23_000, help="the first of three ports")
    parser.add_argument("--sockets", type=int)
    parser.add_argument("--each", type=int, help="subscriptions on a socket")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--group", type=int, help="jobs that change")
    parser.add_argument("--seconds", type=int, help="for how long all is held, or polls are counted")
    parser.add_argument("--settle", type=int, default=10, help="seconds between the last subscription and the figures")
    parser.add_argument("--rest", type=int, help="seconds of rest before memory is read again")
    parser.add_argument("--budget", type=int, default=100, help="calls a second")
    parser.add_argument("--rate", type=int, default=100, help="polls: calls a second")
    parser.add_argument("--times", type=int, default=3, help="start: how often")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--status", default="COMPLETE", help="requests: the state of the jobs")
    parser.add_argument("--refuse-list", action="store_true", help="jobs are polled in batches, as no list can be had")
    arguments = parser.parse_args()
    defaults = {
        "sockets": {"sockets": 19_000, "each": 1, "jobs": 100, "group": 100, "seconds": 600, "rest": 30},
        "subscriptions": {"sockets": 5_000, "each": 20, "jobs": 100_000, "group": 5_000, "seconds": 600, "rest": 30},
        "polls": {"jobs": 1_000, "seconds": 60, "rest": 0},
        "start": {"jobs": 100_000, "rest": 5},
        "requests": {"jobs": 1_000, "rest": 60},
    }[arguments.case]
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.case in ("polls", "start"):
        arguments.budget = max(arguments.budget, 1_000 if arguments.case == "start" else 2 * arguments.rate)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.case in ("sockets", "subscriptions"):
            clean = hold(arguments, folder, arguments.sockets, arguments.each)
        else:
            clean = {"polls": polls, "start": start, "requests": requests}[arguments.case](arguments, folder)
    sys.exit(0 if clean else 1)


if __name__ == "__main__":
    main()
