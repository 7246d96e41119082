"""Follows jobs of both upstreams with the kit, across restarts of the gateway."""

import asyncio
import os

from jobgate_client import JobgateClient

client = JobgateClient(os.environ.get("JOBGATE_URL", "http://127.0.0.1:8080"), token=os.environ.get("JOBGATE_KEY"))
refs = ["marketing/demo_sales_2026", "audit/65f0c0ffee00000000000001"]


async def main():
    async for change in client.watch_jobs(refs):
        if change.problem:
            print(change.ref, change.problem.code, change.problem.message, flush=True)
            continue
        job = change.job
        done = f" {job.progress.completed}/{job.progress.total}" if job.progress else ""
        print(f"{change.ref} {job.state}{done}", job.failure or "", flush=True)


asyncio.run(main())
