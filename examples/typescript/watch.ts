// Follows jobs of both upstreams with the kit, across restarts of the gateway.
import { JobgateClient } from '@jobgate/client';

const jobgate = new JobgateClient({ url: process.env.JOBGATE_URL ?? 'http://127.0.0.1:8080', token: process.env.JOBGATE_KEY });
const refs = ['marketing/demo_sales_2026', 'audit/65f0c0ffee00000000000001'];

for await (const { ref, job, problem } of jobgate.watchJobs(refs)) {
  if (problem) {
    console.log(ref, problem.code, problem.message);
    continue;
  }
  const { state, progress, failure } = job!;
  const done = progress ? ` ${progress.completed}/${progress.total}` : '';
  console.log(`${ref} ${state}${done}${failure ? ` ${failure.code}: ${failure.message}` : ''}`);
}
