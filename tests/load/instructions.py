#!/usr/bin/env python3
"""Instructions in user space for each request or delivered update of the hot paths, counted by callgrind.

    python3 tests/load/instructions.py target/release/jobgate [--case job] [--functions 40]
    python3 tests/load/instructions.py target/debug/jobgate --baseline tests/load/instructions.json [--write]

Runs `jobgate simulate` and, under valgrind, `jobgate serve` with a client key and a store in memory. For a query, one
connection sends the same request: first until the answer is cached and the plan compiled, then some hundred times with
counting switched on. For an update, many sockets subscribe to one job, which then changes several times; the poll that detects the
change is counted too. The figure does not depend on the load of the machine, and little on its model. Needs valgrind; Linux.

With a baseline the run fails if a case takes more instructions than the tolerance allows, or so much fewer that the
baseline is no guard any more; `--write` makes a new one. The baseline is of the build for development, which the tests
have made: its figures are some ten times those of a release, and grow with the same work.

Updates are counted only when they are named: how many of them are encoded depends on the time that they take.
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from free_ports import free_ports  # noqa: E402

# the same build varies by less than 1 % between runs, and by some 2 % between models of processors
TOLERANCE_PERCENT = 5
KEY = "jg_" + "k" * 43
FIELDS = (
    "... on Job { id externalId state isTerminal nativeState createdAt updatedAt finishedAt "
    "progress { completed total } failure { code message } freshness { observedAt ageMs isStale staleReason } }"
)


def job_id(group, number):
    return f"65f0c0ffee{group:06x}{number:08x}"


def reference(job):
    return {"external": {"source": "audit", "externalId": job}}


def body(jobs):
    if len(jobs) == 1:
        query = f"query One($ref: JobRef!) {{ job(ref: $ref) {{ {FIELDS} }} }}"
        return json.dumps({"query": query, "variables": {"ref": reference(jobs[0])}})
    query = f"query Many($refs: [JobRef!]!) {{ jobs(refs: $refs) {{ {FIELDS} }} }}"
    return json.dumps({"query": query, "variables": {"refs": [reference(job) for job in jobs]}})


WATCH = (
    "subscription Watch($refs: [JobRef!]!) { jobUpdates(refs: $refs) { kind sequence isFinal result { ... on Job { "
    "externalId state nativeState isTerminal freshness { observedAt ageMs isStale } } ... on MindBridgeJob { version } } } }"
)
WATCHED = "65f0c0ffee00000f00000000"
WATCHERS = 200
# each request is counted in one of these, of which the one with the fewest instructions is reported
WINDOWS = 5
CHANGES = 10

CASES = {
    "job": ([job_id(1, 0)], 400),
    "job-running": ([job_id(2, 0)], 400),
    "jobs": ([job_id(1, number) for number in range(200)], 20),
    "update": ([WATCHED], WATCHERS * CHANGES),
    "update-sse": ([WATCHED], WATCHERS * CHANGES),
}
QUERIES = [case for case in CASES if not case.startswith("update")]


class Subscriber:
    """One subscription on a socket of its own."""

    def __init__(self, port, transport):
        self.socket = socket.create_connection(("127.0.0.1", port), 120)
        self.stream = self.socket.makefile("rb")
        self.read = self.websocket_update if transport == "websocket" else self.event
        payload = {"query": WATCH, "variables": {"refs": [reference(WATCHED)]}}
        head = f"/graphql HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        if transport == "websocket":
            key = base64.b64encode(os.urandom(16)).decode()
            head = f"GET {head}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            head += f"sec-websocket-key: {key}\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n"
            self.socket.sendall(head.encode())
        else:
            text = json.dumps(payload)
            head = f"POST {head}accept: text/event-stream\r\ncontent-type: application/json\r\n"
            self.socket.sendall(f"{head}content-length: {len(text)}\r\n\r\n{text}".encode())
        status = self.stream.readline()
        while self.stream.readline() not in (b"\r\n", b""):
            pass
        if status.split()[1:2] not in ([b"101"], [b"200"]):
            sys.exit(f"the stream was refused: {status!r}")
        if transport == "websocket":
            self.send({"type": "connection_init"})
            self.frame()
            self.send({"id": "1", "type": "subscribe", "payload": payload})
        self.read()

    def send(self, message):
        text = json.dumps(message).encode()
        length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
        # a mask of zeros leaves the text as it is
        self.socket.sendall(b"\x81" + length + bytes(4) + text)

    def frame(self):
        kind, length = self.stream.read(2)
        if length == 126:
            length = int.from_bytes(self.stream.read(2), "big")
        return self.frame() if kind != 0x81 else self.stream.read(length)

    def websocket_update(self):
        return self.checked(self.frame())

    def event(self):
        while True:
            line = self.stream.readline()
            if line.startswith(b"data: ") or not line:
                return self.checked(line)

    @staticmethod
    def checked(text):
        if b'"jobUpdates"' not in text or b"JobProblem" in text:
            sys.exit(f"unexpected update: {text[:400]!r}")
        return text


def change(mindbridge):
    connection = http.client.HTTPConnection("127.0.0.1", mindbridge, timeout=20)
    connection.request("POST", f"/_sim/jobs/{WATCHED}/state", json.dumps({"at": "0s", "status": "IN_PROGRESS"}))
    response = connection.getresponse()
    if response.status >= 300:
        sys.exit(f"the job was not changed: {response.status} {response.read()!r}")
    connection.close()


def watch(public, mindbridge, transport):
    """Subscribes, and returns what delivers CHANGES updates to each subscriber."""
    subscribers = [Subscriber(public, transport) for _ in range(WATCHERS)]

    def deliver(times=CHANGES):
        for _ in range(times):
            change(mindbridge)
            for one in subscribers:
                one.read()

    deliver(2)
    return deliver


def until_ready(port, deadline, log):
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"the gateway did not become ready: {open(log).read()[-2000:]}")


def send(connection, text):
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", "/graphql", text, headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200 or b'"errors"' in answer or b"JobProblem" in answer:
        sys.exit(f"unexpected answer {response.status}: {answer[:400]!r}")
    return answer


def total_of(path):
    """The instructions of one window."""
    with open(path, encoding="utf-8") as file:
        return int(re.search(r"^totals: (\d+)", file.read(), re.MULTILINE).group(1))


def count(binary, case, functions, folder):
    jobs, times = CASES[case]
    mindbridge, supermetrics, public, admin = free_ports(4)
    scenario = os.path.join(folder, "scenario.yaml")
    with open(scenario, "w", encoding="utf-8") as file:
        steps = [(1, "COMPLETE"), (2, "IN_PROGRESS")]
        known = [
            {"id": job_id(group, number), "steps": [{"at": "0s", "status": status}]}
            for group, status in steps
            for number in range(200)
        ]
        known.append({"id": WATCHED, "steps": [{"at": "0s", "status": "IN_PROGRESS"}]})
        json.dump({"mindbridge": {"jobs": known}}, file)
    config = os.path.join(folder, "jobgate.yaml")
    with open(config, "w", encoding="utf-8") as file:
        many = 1_000_000
        json.dump(
            {
                "server": {"listen": f"127.0.0.1:{public}", "admin_listen": f"127.0.0.1:{admin}"},
                "sources": {
                    "audit": {
                        "upstream": "mindbridge",
                        "base_url": f"http://127.0.0.1:{mindbridge}/api",
                        "credential": {"bearer": {"env": "TOKEN"}},
                        "budget": {"per_second": 1000, "per_hour": many},
                    }
                },
                "clients": [
                    {
                        "name": "load",
                        "key_sha256": hashlib.sha256(KEY.encode()).hexdigest(),
                        "sources": {"audit": {}},
                    }
                ],
                "store": {"kind": "memory"},
                "cache": {"fresh_for": "1h"},
                "poll": {"min_interval": "500ms", "max_interval": "1s"},
                "limits": {"requests_per_second": many, "burst": many, "concurrent_requests": many},
            },
            file,
        )
    out = os.path.join(folder, f"callgrind-{case}")
    environment = {**os.environ, "TOKEN": "simulated-mindbridge-token", "TOKIO_WORKER_THREADS": "1"}
    simulate = [binary, "simulate", "--scenario", scenario]
    simulate += ["--mindbridge", f"127.0.0.1:{mindbridge}", "--supermetrics", f"127.0.0.1:{supermetrics}"]
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    log = open(os.path.join(folder, "log"), "w", encoding="utf-8")
    upstream = subprocess.Popen(simulate, stdout=log, stderr=log)
    gateway = subprocess.Popen([*valgrind, binary, "serve", "--config", config], stdout=log, stderr=log, env=environment)
    try:
        until_ready(admin, time.monotonic() + 120, log.name)
        if case.startswith("update"):
            run = watch(public, mindbridge, "sse" if case == "update-sse" else "websocket")
        else:
            connection = http.client.HTTPConnection("127.0.0.1", public, timeout=120)
            text = body(jobs)

            def run(times=times // WINDOWS):
                for _ in range(times):
                    send(connection, text)

            run(20)
        windows = 1 if case.startswith("update") else WINDOWS
        for _ in range(windows):
            for command in (["-i", "on"], None, ["-i", "off"], ["-d"]):
                if command:
                    subprocess.run(["callgrind_control", *command, str(gateway.pid)], check=True, stdout=log)
                else:
                    run()
    finally:
        gateway.terminate()
        upstream.terminate()
        gateway.wait(60)
        upstream.wait(60)
    times //= windows
    # work in the background falls into a window now and then: the one with the least is the figure
    total, out = min((total_of(f"{out}.{window}"), f"{out}.{window}") for window in range(1, windows + 1))
    each = total // times
    unit = f"an update ({WATCHERS} subscribers)" if case.startswith("update") else f"a request ({len(jobs)} jobs)"
    print(f"{case}: {each:,} instructions {unit}")
    for kind in ("yes", "no") if functions else ():
        report = subprocess.run(
            ["callgrind_annotate", f"--inclusive={kind}", out], check=True, capture_output=True, text=True
        ).stdout
        lines = [line for line in report.splitlines() if re.match(r"\s*[\d,]+ \(", line)]
        print("inclusive" if kind == "yes" else "self")
        for line in lines[:functions]:
            amount = int(re.match(r"\s*([\d,]+)", line).group(1).replace(",", ""))
            print(f"  {amount // times:>10,}  {line.split(')', 1)[1].strip()[:150]}")
    return each


def compare(path, counts):
    """Reports the cases that differ from the baseline by more than its tolerance."""
    with open(path, encoding="utf-8") as file:
        baseline = json.load(file)
    percent = baseline["tolerance_percent"]
    failed = False
    for case, count in counts.items():
        change = 100 * (count - baseline["instructions"][case]) / baseline["instructions"][case]
        verdict = "as the baseline" if abs(change) <= percent else "MORE" if change > 0 else "FEWER: write a new baseline"
        failed = failed or abs(change) > percent
        print(f"{case}: {change:+.1f} % of the baseline, tolerance {percent} %: {verdict}")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--functions", type=int, default=0, help="print this many functions")
    parser.add_argument("--keep", help="write the files of callgrind to this folder")
    parser.add_argument("--baseline", help="the committed figures to compare with")
    parser.add_argument("--write", action="store_true", help="write the baseline instead")
    arguments = parser.parse_args()
    counts = {}
    for case in arguments.case or QUERIES:
        with tempfile.TemporaryDirectory() as folder:
            folder = arguments.keep or folder
            counts[case] = count(os.path.abspath(arguments.binary), case, arguments.functions, folder)
    if arguments.baseline and arguments.write:
        with open(arguments.baseline, "w", encoding="utf-8") as file:
            json.dump({"tolerance_percent": TOLERANCE_PERCENT, "instructions": counts}, file, indent=2)
            file.write("\n")
    elif arguments.baseline and compare(arguments.baseline, counts):
        sys.exit(1)


if __name__ == "__main__":
    main()
