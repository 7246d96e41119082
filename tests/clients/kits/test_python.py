"""clients/python against the real gateway: to the end of jobs, through restarts, expiry, outages and proxies.

Run by `python -m unittest` with JOBGATE_BIN set, as tests/kits.rs does."""

import asyncio
import json
import logging
import subprocess
import sys
import unittest
from contextlib import aclosing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "clients/python"))

from jobgate_client import Job, JobgateClient, JobgateError, JobProblem  # noqa: E402

# slow steps of the event loop are expected on a busy machine
logging.getLogger("asyncio").setLevel(logging.ERROR)

TRANSPORTS = ("websocket", "sse", "wait")
#: Only what hangs takes as long.
LIMIT = 180


class Stage:
    """tests/clients/kits/stage.mjs as a process."""

    def __init__(self):
        script = Path(__file__).with_name("stage.mjs")
        self._process = subprocess.Popen(["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started = self._ask("start", {"clients": True})
        self.url, self.key = started["url"], started["key"]

    def _ask(self, name, *args):
        self._process.stdin.write(json.dumps({"do": name, "with": args}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "stage.mjs has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    async def do(self, name, *args):
        return (await asyncio.to_thread(self._ask, name, *args))["result"]

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Record:
    """A watch in the background that remembers everything, and can wait for it."""

    def __init__(self, client, refs, **options):
        self.changes, self.statuses = [], []
        self._event = asyncio.Event()
        self.task = asyncio.create_task(self._run(client, refs, options))

    async def _run(self, client, refs, options):
        def on_status(status):
            self.statuses.append(status)
            self._event.set()

        try:
            async for change in client.watch_jobs(refs, on_status=on_status, **options):
                self.changes.append(change)
                self._event.set()
        finally:
            self._event.set()

    async def until(self, condition):
        while not condition():
            if self.task.done():
                self.task.result()
                raise AssertionError("the watch has ended")
            self._event.clear()
            await self._event.wait()

    def times(self, state):
        return sum(status.state == state for status in self.statuses)

    def states(self):
        return [change.job.state if change.job else change.problem.code for change in self.changes]

    def transport(self):
        return [status.transport for status in self.statuses if status.state == "live"][-1]


class KitTest(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.stage = Stage()

    @classmethod
    def tearDownClass(cls):
        cls.stage.close()

    async def asyncSetUp(self):
        self.deadline = asyncio.get_running_loop().call_later(LIMIT, asyncio.current_task().cancel)
        await self.stage.do("block")

    async def asyncTearDown(self):
        self.deadline.cancel()

    def client(self, **options):
        return JobgateClient(self.stage.url, **{"token": self.stage.key, "max_pause": 0.2, **options})

    async def jobs(self, count=1):
        return [f"mind/{name}" for name in await self.stage.do("newJobs", count)]

    async def set(self, ref, status, **more):
        await self.stage.do("set", ref.split("/")[1], status, more)

    async def test_a_job_is_followed_to_its_terminal_state(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                [ref] = await self.jobs()
                seen = []
                async for change in self.client(transports=[transport]).watch_job(ref):
                    job = change.job
                    seen.append((change.ref, change.kind, change.is_final, job.state, job.source, job.data["kind"]))
                    if not change.is_final:
                        await self.set(ref, "COMPLETE")
                rest = ("mind", "ANALYSIS_RUN")
                expected = [(ref, "SNAPSHOT", False, "RUNNING", *rest), (ref, "ENDED", True, "SUCCEEDED", *rest)]
                self.assertEqual(seen, expected)

    async def test_a_killed_gateway_that_returns_repeats_and_loses_nothing(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                one, other = await self.jobs(2)
                record = Record(self.client(transports=[transport]), [one, other])
                await record.until(lambda: len(record.changes) == 2)
                await self.stage.do("killGateway")
                await record.until(lambda: record.times("reconnecting") >= 2)
                await self.set(one, "ERROR", error="BROKEN", error_message="why")
                await self.stage.do("startGateway")
                await record.until(lambda: len(record.changes) == 3)
                await self.set(other, "COMPLETE")
                await record.task
                self.assertEqual(record.states(), ["RUNNING", "RUNNING", "FAILED", "SUCCEEDED"])
                failure = record.changes[2].job.failure
                self.assertEqual((failure.code, failure.message), ("BROKEN", "why"))

    async def test_a_stopped_gateway_that_returns_ends_no_watch(self):
        for transport in ("websocket", "sse"):
            with self.subTest(transport):
                [ref] = await self.jobs()
                record = Record(self.client(transports=[transport]), [ref])
                await record.until(lambda: record.times("live") == 1)
                await self.stage.do("killGateway", "SIGTERM")
                await self.stage.do("startGateway")
                await record.until(lambda: record.times("live") == 2)
                await self.set(ref, "COMPLETE")
                await record.task
                self.assertEqual(record.states(), ["RUNNING", "SUCCEEDED"])

    async def test_an_error_page_of_a_proxy_ends_no_watch(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                [ref] = await self.jobs()
                await self.stage.do("block", "all")
                record = Record(self.client(transports=[transport]), [ref])
                await record.until(lambda: record.times("reconnecting") >= 3)
                await self.stage.do("block")
                await self.set(ref, "COMPLETE")
                await record.task
                self.assertEqual(record.states(), ["SUCCEEDED"])

    async def test_an_expired_token_is_renewed(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                [ref] = await self.jobs()
                calls = []

                async def token():
                    calls.append(1)
                    return await self.stage.do("watchToken", [ref.split("/")[1]], "2s")

                record = Record(self.client(transports=[transport], token=token), [ref])
                await record.until(lambda: record.times("live") >= 2)
                await self.set(ref, "COMPLETE")
                await record.task
                self.assertEqual(record.states(), ["RUNNING", "SUCCEEDED"])
                self.assertGreaterEqual(len(calls), 2)

    async def test_rejected_tokens_end_the_watch(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                calls = []

                def token():
                    calls.append(1)
                    return f"jg_unknown{len(calls)}"

                for source in ("jg_unknown", token):
                    with self.assertRaises(JobgateError) as raised:
                        await self.client(transports=[transport], token=source).await_job("mind/a")
                    self.assertEqual(raised.exception.code, "UNAUTHENTICATED")
                self.assertEqual(len(calls), 4)

    async def test_a_function_that_fails_is_called_again(self):
        [ref] = await self.jobs()
        await self.set(ref, "COMPLETE")
        calls = []

        def token():
            calls.append(1)
            if len(calls) < 3:
                raise OSError("the backend does not respond")
            return self.stage.key

        self.assertEqual((await self.client(token=token).await_job(ref)).state, "SUCCEEDED")
        self.assertEqual(len(calls), 3)

    async def test_an_upstream_outage_is_an_update_and_ends_no_watch(self):
        for transport in ("websocket", "sse"):
            with self.subTest(transport):
                [ref] = await self.jobs()
                record = Record(self.client(transports=[transport]), [ref])
                await record.until(lambda: len(record.changes) == 1)
                await self.stage.do("outage")
                await record.until(lambda: record.changes[-1].job.stale_reason == "UNAVAILABLE")
                await self.stage.do("endOutage")
                await self.set(ref, "COMPLETE")
                await record.task
                self.assertEqual((record.states()[-1], record.times("reconnecting")), ("SUCCEEDED", 0))

    async def test_blocked_transports_are_replaced(self):
        for blocked, expected in (((), "websocket"), (("webSockets",), "sse"), (("webSockets", "streams"), "wait")):
            with self.subTest(expected):
                [ref] = await self.jobs()
                await self.stage.do("block", *blocked)
                record = Record(self.client(), [ref])
                await record.until(lambda: len(record.changes) == 1)
                await self.set(ref, "COMPLETE")
                await record.task
                self.assertEqual((record.states(), record.transport()), (["RUNNING", "SUCCEEDED"], expected))
                self.assertEqual(record.times("reconnecting"), 0)

    async def test_more_jobs_than_a_subscription_can_have_are_split(self):
        refs = await self.jobs(230)
        record = Record(self.client(), refs)
        await record.until(lambda: len(record.changes) == len(refs))
        for ref in refs:
            await self.set(ref, "COMPLETE")
        await record.task
        self.assertEqual(sum(change.is_final for change in record.changes), len(refs))

    async def test_a_slow_reader_gets_the_newest_state(self):
        slow, other = await self.jobs(2)
        seen = []
        async with aclosing(self.client().watch_jobs([slow, other])) as changes:
            async for change in changes:
                seen.append((change.ref, change.job.state))
                if len(seen) == 2:
                    for ref in (other, slow):
                        await self.set(ref, "COMPLETE")
                        await self.client().await_job(ref)
        self.assertEqual(sorted(seen[2:]), sorted([(slow, "SUCCEEDED"), (other, "SUCCEEDED")]))

    async def test_await_job(self):
        [ref] = await self.jobs()
        client = self.client()
        with self.assertRaises(JobgateError) as raised:
            await client.await_job(ref, timeout=0.3)
        self.assertEqual(raised.exception.code, "TIMED_OUT")
        await self.set(ref, "ERROR", error="BROKEN")
        job = await client.await_job(ref, fields="transitions { state }")
        self.assertEqual((job.state, job.failure.code, job.is_terminal), ("FAILED", "BROKEN", True))
        self.assertEqual(job.data["transitions"][-1]["state"], "FAILED")
        with self.assertRaises(JobgateError) as raised:
            await client.await_job("mind/never")
        self.assertEqual((raised.exception.code, raised.exception.problem.code), ("NOT_FOUND", "NOT_FOUND"))

    async def test_jobs_and_watch_tokens(self):
        [ref] = await self.jobs()
        found = await self.client().jobs([ref, "mind/never", "metrics/q"])
        self.assertIsInstance(found[0], Job)
        self.assertIsInstance(found[1], JobProblem)
        self.assertEqual((found[2].progress.completed, found[2].progress.total), (1, 3))
        token = await self.client().create_watch_token([ref])
        [again] = await self.client(token=token).jobs([found[0].id])
        self.assertEqual(again.external_id, found[0].external_id)

    async def test_a_request_renews_an_expired_token(self):
        [ref] = await self.jobs()
        calls = []

        def token():
            calls.append(1)
            return self.stage.do("watchToken", [ref.split("/")[1]], "2s")

        client = self.client(token=token)
        while len(calls) < 2:
            self.assertEqual((await client.jobs([ref]))[0].state, "RUNNING")

    async def test_an_invalid_field_ends_the_watch(self):
        for transport in TRANSPORTS:
            with self.subTest(transport), self.assertRaises(JobgateError) as raised:
                await self.client(transports=[transport]).await_job("mind/a", fields="unknown")
            self.assertEqual((raised.exception.code, raised.exception.retryable), ("GRAPHQL_VALIDATION_FAILED", False))

    async def test_a_mistake_in_a_call_is_an_error_that_says_how_to_write_it(self):
        for ref in ("", "mind/", "/a"):
            with self.assertRaisesRegex(ValueError, "write 'SOURCE/EXTERNAL_ID'"):
                await self.client().jobs([ref])
        with self.assertRaisesRegex(TypeError, "write 'SOURCE/EXTERNAL_ID'"):
            await self.client().jobs([7])
        with self.assertRaisesRegex(ValueError, "write https://HOST"):
            JobgateClient("nowhere")
        with self.assertRaisesRegex(ValueError, "must not contain a credential"):
            JobgateClient("https://a:b@host")
        with self.assertRaisesRegex(ValueError, "websocket, sse, wait"):
            JobgateClient("https://host", transports=["telnet"])
        with self.assertRaisesRegex(TypeError, "token must be a text"):
            JobgateClient("https://host", token="")


if __name__ == "__main__":
    unittest.main()
