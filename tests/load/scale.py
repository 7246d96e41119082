#!/usr/bin/env python3
"""The figures of scale: many sockets, many subscriptions on a socket, many followed jobs, held for a time.

    python3 tests/load/scale.py target/release/jobgate sockets        # 19,000 sockets with a subscription each
    python3 tests/load/scale.py target/release/jobgate subscriptions  # 5,000 sockets with 20 each, 100,000 jobs
    python3 tests/load/scale.py target/release/jobgate polls          # 100 calls a second of one id each
    python3 tests/load/scale.py target/release/jobgate start          # starts with 100,000 jobs in the store
    python3 tests/load/scale.py target/release/jobgate requests       # 1,000,000 requests over 1,000 jobs (wrk)

Each starts the gateway with a client key and an upstream of its own: a stand-in for MindBridge in a process of its
own, since the simulator searches its jobs one by one and reads no scenario of 100,000. `sockets` and `subscriptions`
fail when an update is doubled, or not delivered within 300 s. Nothing else is limited. Needs Linux, and one open file
for each socket (`ulimit -n`) both here and in the gateway.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from scale_processes import KEY, Run, share, table
from scale_sockets import Subscribers

READ = (
    "query Read($refs: [JobRef!]!) { jobs(refs: $refs) "
    "{ ... on Job { externalId state } ... on JobProblem { code } } }"
)
TRACK = (
    "mutation Track($refs: [JobRef!]!) { trackJobs(input: { refs: $refs }) "
    "{ isStored results { ... on Job { externalId state } ... on JobProblem { code } } } }"
)
# an update that takes longer counts as lost, in seconds
LOST_AFTER = 300
UNTRACK = "mutation Untrack($refs: [JobRef!]!) { untrackJobs(input: { refs: $refs }) { __typename } }"


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
            missing += subscribers.wait(version, changed_at, watching, LOST_AFTER)
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
            run.execute(READ, range(min(20, jobs)))
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


def polls(arguments, folder):
    """Polls with one id a call: the upstream refuses the query of many. The gateway without them is measured first."""
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
                (
                    "- CPU of the gateway",
                    f"{used:.2f} s in {lasted:.0f} s, {used / lasted * 100:.2f} % of a core{each}",
                ),
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
                later = run.gateway.memory()
                rows.append((
                    f"- start {number + 1}: ready after, s; CPU until then, s; resident then and {arguments.rest} s "
                    "later, MiB",
                    f"{ready[-1]:.2f}; {cpu:.2f}; {at_once[0]:.0f}, {later[0]:.0f}; {followed:,.0f} followed",
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
  if count > last + 100 then wrk.thread:stop() end
  return wrk.format("POST", "/graphql", head, prefix .. string.format("65f0c0ffee%%014x", count %% %d) .. suffix)
end
function done(summary, latency)
  io.write(string.format("requests %%d errors %%d\\n", summary.requests,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status +
    summary.errors.timeout))
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
        command = ["wrk", "-t1", f"-c{arguments.connections}", "-d36000s", "-s", script]
        command.append(f"http://127.0.0.1:{run.public}")
        cpu, began = run.gateway.cpu(), time.monotonic()
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # its threads stop after the last request, but it waits for the end of its time
        while run.metrics().get("jobgate_graphql_operations_total", 0) < arguments.requests:
            if driver.poll() is not None:
                sys.exit("wrk ended early")
            time.sleep(0.5)
        driver.send_signal(signal.SIGINT)
        driver = driver.communicate()[0]
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
            ("pages of the program in it, MiB", f"{run.gateway.file_pages():.1f}"),
        ]
    table(rows)
    return not errors and done >= arguments.requests


def main():
    # so that the processes are ended also then
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
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
