"""The processes of `scale.py`: the gateway and its upstream, their CPU time and their memory."""

import hashlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from datetime import datetime

from scale_upstream import job_id

# one client may track 20,000 jobs, so there are several; the first does everything else
KEYS = ["jg_" + letter * 43 for letter in "klmno"]
KEY = KEYS[0]
TRACKED_BY_ONE = 20_000
TOKEN = "scale-token"
MANY = 10_000_000
TICKS = os.sysconf("SC_CLK_TCK")


def references(numbers):
    return [{"external": {"source": "audit", "externalId": job_id(number)}} for number in numbers]


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

    def file_pages(self):
        """The part of the resident memory that is the program itself, in MiB."""
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"RssFile:\s+(\d+)", text).group(1)) / 1024

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
        script = [sys.executable, str(pathlib.Path(__file__).with_name("scale_upstream.py"))]
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
