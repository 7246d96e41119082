// A page that shows jobs while they change.
import { createRoot } from 'react-dom/client';
import { JobgateClient } from '@jobgate/client';
import { JobgateProvider, useJobs } from '@jobgate/client/react';

// Your backend makes the token: createWatchToken of the kit, with its client key. The demo needs none.
const token = new URLSearchParams(location.search).has('login') ? async () => (await fetch('/watch-token')).text() : null;
const gateway = new URLSearchParams(location.search).get('gateway') ?? 'http://127.0.0.1:8080';
const jobgate = new JobgateClient({ url: gateway, token });

function Jobs({ refs }) {
  const { changes, status, error } = useJobs(refs);
  const row = (ref) => {
    const { job, problem } = changes.get(ref) ?? {};
    return (
      <tr key={ref}>
        <td>{ref}</td>
        <td>{job?.state ?? problem?.code ?? 'loading'}{job?.freshness.isStale && ' (stale)'}</td>
        <td>{job?.progress && <progress value={job.progress.completed} max={job.progress.total} />}</td>
      </tr>
    );
  };
  return (
    <main>
      <p role="status">{error?.message ?? status.state}</p>
      <table><tbody>{refs.map(row)}</tbody></table>
    </main>
  );
}

const refs = ['marketing/demo_sales_2026', 'audit/65f0c0ffee00000000000001'];
createRoot(document.body).render(<JobgateProvider client={jobgate}><Jobs refs={refs} /></JobgateProvider>);
