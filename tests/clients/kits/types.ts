// What the declarations of clients/typescript promise to a typed program. Compiled by sources.test.mjs, never run.
import { JobgateClient, JobgateError, possibleTypes } from '../../../clients/typescript/index.js';
import type { JobFilter, JobRef, JobState, SupermetricsJob, WatchedJob } from '../../../clients/typescript/index.js';
import { useJob, useJobs } from '../../../clients/typescript/react/index.js';

const client = new JobgateClient({ url: 'https://jobs.example.com', token: async () => 'jgw_…' });

export async function iterate(): Promise<JobState | undefined> {
  for await (const { job, problem, isFinal } of client.watchJob('audit/1', { maxStaleness: '5s' })) {
    if (isFinal && problem) throw new Error(`${problem.code} ${problem.ref.externalId ?? ''}`);
    if (job?.__typename === 'MindBridgeJob') console.log(job.kind, job.source.name);
    if (job?.__typename === 'SupermetricsJob') console.log(job.progress?.completed, job.result?.totalRows);
    // @ts-expect-error: only jobs of Supermetrics have it
    job?.result;
    return job?.state;
  }
  return undefined;
}

export function callbacks(): void {
  const stop: () => void = client.watchJobs(['audit/1', { source: 'audit', externalId: '2' }, { id: 'x' }], {
    onUpdate: ({ job }) => console.log(job?.state),
    onStatus: (status) => status.state === 'reconnecting' && console.log(status.error.code, status.retryInMs),
    onError: (error) => error instanceof JobgateError && console.log(error.status, error.retryable),
  });
  stop();
  // @ts-expect-error: a reference has two parts
  client.watchJob({ source: 'audit' });
  // @ts-expect-error: rows are not among the fields that are selected
  client.awaitJob('audit/1').then((job: WatchedJob) => job.rows);
}

export async function further(): Promise<void> {
  const { transitions } = await client.awaitJob<WatchedJob & Pick<SupermetricsJob, 'transitions'>>('a/b', { fields: 'transitions { state }' });
  console.log(transitions[0]?.state, possibleTypes.Job);
  const data = await client.execute<{ sources: { name: string }[] }>('{ sources { name } }');
  console.log(data.sources[0]?.name);
}

export function Component(): string {
  const { job, status, error } = useJob('audit/1');
  const { changes } = useJobs(['audit/1'], { fields: 'transitions { state }' });
  return `${job?.state} ${status.state} ${error?.message} ${changes.get('audit/1')?.job?.state}`;
}

export const filter: JobFilter = { states: ['RUNNING'] };
export const ref: JobRef = { external: { source: 'audit', externalId: '1' } };
// @ts-expect-error: exactly one of the two
export const both: JobRef = { id: '1', external: { source: 'audit', externalId: '1' } };
// @ts-expect-error: not a state
export const state: JobState = 'DONE';
