"""The upstream of `scale.py`: a stand-in for MindBridge, whose jobs are found by their number.

    python3 tests/load/scale_upstream.py PORT JOBS STATUS none|list|both

The last argument is what is refused: nothing, the list of changes, or the query of many ids as well. The simulator
searches its jobs one by one, and reads no scenario of 100,000.
"""

import asyncio
import json
import re
import sys
import time
from datetime import datetime, timedelta, timezone

# jobs are this old at the start, so that the first list of changes is empty
AGE = timedelta(minutes=20)


def job_id(number):
    return f"65f0c0ffee{number:014x}"


class Upstream:
    """Jobs that are found by their number, and change on request."""

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
            head = f"HTTP/1.1 {status} X\r\ncontent-type: application/{kind}\r\ndate: {date}\r\n"
            head += f"content-length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)


def serve_upstream(port, jobs, status, refuse):
    async def serve():
        upstream = Upstream(int(jobs), status, refuse)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: UpstreamConnection(upstream), "127.0.0.1", int(port))
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    serve_upstream(*sys.argv[1:])
