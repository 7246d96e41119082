#!/usr/bin/env python3
"""Ten hostile requests for large answers at once, against a demo gateway in a memory cgroup of 1 GiB.

Reports what each was answered, the p99 of another client before and during them, and the resident memory before, at
its peak and 30 s after. Needs root for the cgroup (version 1 or 2); without one it says so and limits nothing.

    python3 tests/load/answers.py target/release/jobgate
"""
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

LIMIT = 1 << 30
URL = "http://127.0.0.1:18080/graphql"


def cgroup(pid):
    for base, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        folder = pathlib.Path(base, "jobgate-answers")
        try:
            folder.mkdir(exist_ok=True)
            (folder / limit).write_text(str(LIMIT))
            (folder / "cgroup.procs").write_text(str(pid))
            return folder
        except OSError:
            continue
    return None


def ask(query, variables=None, timeout=60):
    body = json.dumps({"query": query, "variables": variables or {}}).encode()
    request = urllib.request.Request(URL, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, ValueError) as error:
        return type(error).__name__, b""


def resident(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmRSS")]
    return int(lines[0][1]) // 1024 if lines else 0


def p99(seconds, until=None):
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end and (until is None or until()):
        began = time.monotonic()
        status, _ = ask("{ jobList(first: 10) { nodes { id state } } }")
        took.append((time.monotonic() - began, status))
        time.sleep(0.005)
    failed = sum(1 for _, status in took if status != 200)
    took = sorted(one for one, _ in took)
    return (took[int(len(took) * 0.99)] * 1000 if took else 0.0), len(took), failed


def main():
    gateway = subprocess.Popen(
        [sys.argv[1], "demo", "--listen", "127.0.0.1:18080", "--admin-listen", "127.0.0.1:19090"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    folder = cgroup(gateway.pid)
    print("memory cgroup of 1 GiB:", folder or "none could be made, nothing is limited")
    try:
        trial(gateway.pid)
        print("gateway is running:", gateway.poll() is None)
    finally:
        gateway.kill()
        gateway.wait()
        if folder:
            time.sleep(0.5)
            folder.rmdir()


def trial(pid):
    source = 'filter: { states: [SUCCEEDED], sources: ["marketing"] }'
    for _ in range(60):
        time.sleep(1)
        status, body = ask("{ jobList(first: 1, %s) { nodes { id } } }" % source)
        if status == 200 and json.loads(body)["data"]["jobList"]["nodes"]:
            break
    job = json.loads(body)["data"]["jobList"]["nodes"][0]["id"]
    rows = " ".join(
        "r%d: rows(first: 100) { header nodes { cells } edges { cursor node { cells } } }" % n for n in range(4)
    )
    hostile = "query($refs: [JobRef!]!) { jobs(refs: $refs) { ... on SupermetricsJob { %s } } }" % rows
    allowed = "{ job(ref: { id: \"%s\" }) { ... on SupermetricsJob { rows(first: 100) { nodes { cells } } } } }" % job
    status, body = ask(allowed)
    print("one page of rows:", status, len(body), "bytes")
    alone, count, failed = p99(10)
    before = resident(pid)
    print(f"p99 alone {alone:.1f} ms ({count} requests, {failed} failed), memory {before} MB")

    answers, refs = [], {"refs": [{"id": job}] * 200}
    peak, going = [before], threading.Event()
    threads = [threading.Thread(target=lambda: answers.append(ask(hostile, refs))) for _ in range(10)]

    def watch():
        while not going.is_set():
            peak.append(resident(pid))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for thread in threads:
        thread.start()
    during, count, failed = p99(10)
    for thread in threads:
        thread.join()
    going.set()
    watcher.join()
    for status, body in answers:
        code = body[:400].decode(errors="replace") if len(body) < 2000 else ""
        print("  answered", status, len(body), "bytes", code[:200])
    print(f"p99 during {during:.1f} ms ({count} requests, {failed} failed), {during / max(alone, 0.001):.2f} times")
    time.sleep(30)
    print(f"memory peak {max(peak)} MB, 30 s later {resident(pid)} MB, before {before} MB")


main()
