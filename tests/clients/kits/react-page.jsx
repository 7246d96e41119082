// A page with the React hooks of the kit, for browser.test.mjs: two components that watch one job, and a list.
import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { JobgateClient } from '@jobgate/client';
import { JobgateProvider, useJob, useJobs } from '@jobgate/client/react';

const parameters = new URLSearchParams(location.search);
const client = new JobgateClient({ url: parameters.get('gateway'), token: () => fetch('/token').then((response) => response.text()), maxPauseMs: 200 });

function One({ id, name }) {
  const { job, problem, isFinal, status } = useJob(name);
  return <p id={id} data-status={status.state} data-final={isFinal}>{job?.state ?? problem?.code ?? 'none'}</p>;
}

function List({ names }) {
  // a new list with each rendering
  const { changes } = useJobs([...names]);
  return <ul id="list">{names.map((name) => <li key={name}>{`${name} ${changes.get(name)?.job?.state}`}</li>)}</ul>;
}

function App() {
  const [isShown, setShown] = useState(true);
  const [count, setCount] = useState(0);
  const names = parameters.getAll('job');
  return (
    <JobgateProvider client={client}>
      <button id="toggle" onClick={() => setShown(!isShown)}>toggle</button>
      <button id="again" onClick={() => setCount(count + 1)}>again</button>
      {isShown && <><One id="first" name={names[0]} /><One id="second" name={names[0]} /><One id="none" name={null} /><List names={names} /></>}
    </JobgateProvider>
  );
}

createRoot(document.getElementById('root')).render(<StrictMode><App /></StrictMode>);
