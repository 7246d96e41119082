// clients/typescript in Node.js against the real gateway: to the end of jobs, through restarts, expiry, outages and proxies.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, beforeEach, describe, test } from 'node:test';
import WebSocket from 'ws';
import { JobgateClient, JobgateError } from '../../../clients/typescript/index.js';
import { Stage } from './stage.mjs';

const TRANSPORTS = ['websocket', 'sse', 'wait'];
/** Only what hangs takes as long. */
const timeout = 900_000;

let stage;
before(async () => (stage = await Stage.start({ clients: true })));
after(() => stage.close());

/** Options of a client, with pauses that a test can wait for. */
const options = (more = {}) => ({ url: stage.url, token: stage.key, WebSocket, maxPauseMs: 200, ...more });
const client = (more) => new JobgateClient(options(more));

const newJobs = (count) => stage.newJobs(count);

/** A watch by callbacks that remembers everything, and can wait for it. */
class Record {
  updates = [];
  statuses = [];
  error = null;
  ended = false;
  #wake = () => {};

  constructor(jobgate, refs, more = {}) {
    const noted = (change) => {
      change();
      this.#wake();
    };
    this.stop = jobgate.watchJobs(refs, {
      ...more,
      onUpdate: (update) => noted(() => this.updates.push(update)),
      onStatus: (status) => noted(() => this.statuses.push(status)),
      onError: (error) => noted(() => (this.error = error)),
      onEnd: () => noted(() => (this.ended = true)),
    });
  }

  /** Waits until this is true. */
  async until(condition) {
    while (!condition(this)) await new Promise((resolve) => (this.#wake = resolve));
  }

  /** How often the connection was `state`. */
  times(state) {
    return this.statuses.filter((status) => status.state === state).length;
  }

  live(times = 1) {
    return this.until(() => this.times('live') >= times);
  }

  /** The states that were reported. */
  states() {
    return this.updates.map(({ job, problem }) => job?.state ?? problem.code);
  }

  transport() {
    return this.statuses.findLast(({ state }) => state === 'live')?.transport;
  }
}

for (const transport of TRANSPORTS) {
  describe(`over ${transport}`, { timeout }, () => {
    const only = (more) => client({ transports: [transport], ...more });

    test('a job is followed to its terminal state', async () => {
      const [id] = await newJobs();
      const seen = [];
      for await (const { ref, kind, isFinal, job } of only().watchJob(`mind/${id}`)) {
        seen.push([ref, kind, isFinal, job.__typename, job.state, job.source.name, job.externalId, job.kind]);
        if (!isFinal) await stage.set(id, 'COMPLETE');
      }
      const rest = ['MindBridgeJob'];
      assert.deepEqual(seen, [
        [`mind/${id}`, 'SNAPSHOT', false, ...rest, 'RUNNING', 'mind', id, 'ANALYSIS_RUN'],
        [`mind/${id}`, 'ENDED', true, ...rest, 'SUCCEEDED', 'mind', id, 'ANALYSIS_RUN'],
      ]);
    });

    test('a killed gateway that returns repeats nothing and loses nothing', async () => {
      const [one, other] = await newJobs(2);
      const record = new Record(only(), [`mind/${one}`, { source: 'mind', externalId: other }]);
      await record.until(({ updates }) => updates.length >= 2);
      await stage.killGateway();
      await record.until(() => record.times('reconnecting') >= 2);
      await stage.set(one, 'ERROR', { error: 'BROKEN', error_message: 'why' });
      await stage.startGateway();
      await record.until(({ updates }) => updates.length >= 3);
      await stage.set(other, 'COMPLETE');
      await record.until(({ ended }) => ended);
      assert.deepEqual(record.states(), ['RUNNING', 'RUNNING', 'FAILED', 'SUCCEEDED']);
      assert.deepEqual(record.updates[2].job.failure, { code: 'BROKEN', message: 'why' });
      assert.deepEqual(record.updates.map(({ kind }) => kind), ['SNAPSHOT', 'SNAPSHOT', 'ENDED', 'ENDED']);
      assert.equal(record.error, null);
    });

    test('a stopped gateway that returns ends no watch', async () => {
      const [id] = await newJobs();
      const record = new Record(only(), [`mind/${id}`]);
      await record.live();
      await stage.killGateway('SIGTERM');
      await stage.startGateway();
      // a request that waits is completed by the shutdown, and another connection follows
      if (transport !== 'wait') await record.live(2);
      await stage.set(id, 'COMPLETE');
      await record.until(({ ended }) => ended);
      assert.deepEqual(record.states(), ['RUNNING', 'SUCCEEDED']);
    });

    test('an error page of a proxy ends no watch', async () => {
      const [id] = await newJobs();
      stage.block('all');
      const record = new Record(only(), [`mind/${id}`]);
      await record.until(() => record.times('reconnecting') >= 3);
      stage.block();
      await stage.set(id, 'COMPLETE');
      await record.until(({ ended }) => ended);
      assert.deepEqual(record.states(), ['SUCCEEDED']);
      assert.ok(record.statuses.some(({ error }) => error?.code === 'UNREACHABLE' && error.retryable));
    });

    test('an expired token is renewed', async () => {
      const [id] = await newJobs();
      let calls = 0;
      const token = () => {
        calls += 1;
        return stage.watchToken([id], '2s');
      };
      const record = new Record(only({ token }), [`mind/${id}`]);
      await record.live(2);
      await stage.set(id, 'COMPLETE');
      await record.until(({ ended }) => ended);
      assert.deepEqual(record.states(), ['RUNNING', 'SUCCEEDED']);
      assert.ok(calls >= 2, `${calls}`);
      assert.equal(record.error, null);
    });

    test('a token that is unknown after a restart is renewed', async () => {
      const [id] = await newJobs();
      const token = () => stage.watchToken([id], '1h');
      const record = new Record(only({ token }), [`mind/${id}`]);
      await record.live();
      stage.changeWatchSecret();
      await stage.killGateway();
      await stage.startGateway();
      await record.live(2);
      await stage.set(id, 'COMPLETE');
      await record.until(({ ended }) => ended);
      assert.deepEqual(record.states(), ['RUNNING', 'SUCCEEDED']);
    });

    test('an unknown key ends the watch', async () => {
      const record = new Record(only({ token: 'jg_unknown' }), ['mind/a']);
      await record.until(({ error }) => error);
      assert.equal(record.error.code, 'UNAUTHENTICATED');
      assert.deepEqual([record.times('failed'), record.times('live'), record.updates.length], [1, 0, 0]);
    });

    test('a function that gets nothing but rejected tokens ends the watch', async () => {
      let calls = 0;
      const record = new Record(only({ token: async () => `jg_unknown${(calls += 1)}` }), ['mind/a']);
      await record.until(({ error }) => error);
      assert.deepEqual([record.error.code, calls], ['UNAUTHENTICATED', 4]);
    });

    test('a function that takes long is waited for', async () => {
      const [id] = await newJobs();
      await stage.set(id, 'COMPLETE');
      const before = stage.seen();
      let found;
      const record = new Record(only({ token: () => new Promise((resolve) => (found = resolve)) }), [`mind/${id}`]);
      await record.until(() => found);
      assert.deepEqual(stage.seen(), before, 'nothing is requested without it');
      found(stage.key);
      await record.until(({ ended }) => ended);
      assert.equal(record.times('reconnecting'), 0);
    });

    test('a function that fails is called again', async () => {
      const [id] = await newJobs();
      await stage.set(id, 'COMPLETE');
      let calls = 0;
      const token = () => {
        calls += 1;
        if (calls < 3) throw new Error('the backend does not respond');
        return stage.key;
      };
      const record = new Record(only({ token }), [`mind/${id}`]);
      await record.until(({ ended }) => ended);
      assert.equal(calls, 3);
      assert.ok(record.statuses.some(({ error }) => error?.code === 'TOKEN_UNAVAILABLE' && error.message.includes('the backend does not respond')));
    });

    test('an upstream outage is an update, and ends no watch', async () => {
      const [id] = await newJobs();
      const jobgate = only();
      // a request that waits returns at an end only, so a second watch shows the outage
      const record = new Record(jobgate, [`mind/${id}`], { maxStaleness: '1s' });
      await record.until(({ updates }) => updates.length >= 1);
      await stage.outage();
      if (transport === 'wait') {
        const stale = new Record(jobgate, [`mind/${id}`], { maxStaleness: '0s' });
        await stale.until(() => stale.updates.some(({ job }) => job?.freshness.isStale));
        stale.stop();
      } else await record.until(() => record.updates.at(-1).job.freshness.staleReason === 'UNAVAILABLE');
      await stage.endOutage();
      await stage.set(id, 'COMPLETE');
      await record.until(({ ended }) => ended);
      assert.equal(record.states().at(-1), 'SUCCEEDED');
      assert.equal(record.times('reconnecting'), 0);
    });

    test('an invalid field ends the watch', async () => {
      const record = new Record(only(), ['mind/a'], { fields: 'unknown' });
      await record.until(({ error }) => error);
      assert.deepEqual([record.error.code, record.error.retryable], ['GRAPHQL_VALIDATION_FAILED', false]);
    });

    test('a job that does not exist ends with a problem', async () => {
      const seen = [];
      for await (const { isFinal, job, problem } of only().watchJob('mind/never')) seen.push([isFinal, job, problem.code, problem.ref.externalId]);
      assert.deepEqual(seen.at(-1), [true, null, 'NOT_FOUND', 'never']);
    });
  });
}

describe('fallback', { timeout }, () => {
  beforeEach(() => stage.block());

  /** Follows a job to its end, and returns the transport that was used. */
  async function followed(jobgate) {
    const [id] = await newJobs();
    const record = new Record(jobgate, [`mind/${id}`]);
    await record.until(({ updates }) => updates.length >= 1);
    await stage.set(id, 'COMPLETE');
    await record.until(({ ended }) => ended);
    assert.deepEqual(record.states(), ['RUNNING', 'SUCCEEDED']);
    assert.equal(record.times('reconnecting'), 0, JSON.stringify(record.statuses));
    return record.transport();
  }

  test('WebSocket is used where it works', async () => {
    assert.equal(await followed(client()), 'websocket');
  });

  test('blocked WebSockets are replaced by server-sent events', async () => {
    stage.block('webSockets');
    const jobgate = client();
    const before = stage.seen();
    assert.equal(await followed(jobgate), 'sse');
    assert.equal(await followed(jobgate), 'sse');
    assert.equal(stage.seen().websocket - before.websocket, 1, 'the second watch uses what worked');
  });

  test('many watches that fall back together share few event streams', async () => {
    stage.block('webSockets');
    const ids = await newJobs(10);
    const jobgate = client();
    const records = [];
    for (const id of ids) {
      records.push(new Record(jobgate, [`mind/${id}`]));
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    for (const record of records) await record.until(({ updates }) => updates.length >= 1);
    while (stage.front.open.sse > 2) await new Promise((resolve) => setTimeout(resolve, 20));
    await Promise.all(ids.map((id) => stage.set(id, 'COMPLETE')));
    for (const record of records) await record.until(({ ended }) => ended);
    for (const record of records) assert.deepEqual(record.states(), ['RUNNING', 'SUCCEEDED']);
  });

  test('held back event streams are replaced by requests that wait', async () => {
    stage.block('webSockets', 'streams');
    assert.equal(await followed(client()), 'wait');
  });

  test('without a WebSocket in the environment the others are used', async () => {
    assert.equal(await followed(client({ WebSocket: undefined })), globalThis.WebSocket ? 'websocket' : 'sse');
  });

  test('an unavailable gateway is not taken for a blocked transport', async () => {
    const [id] = await newJobs();
    const record = new Record(client(), [`mind/${id}`]);
    await record.live();
    await stage.killGateway();
    await record.until(() => record.times('reconnecting') >= 4);
    await stage.startGateway();
    await record.live(2);
    assert.equal(record.transport() === 'wait', false);
    record.stop();
  });

  test('while the gateway is away no WebSocket is tried', async () => {
    const [id] = await newJobs();
    let opened = 0;
    class Counted extends WebSocket {
      constructor(...args) {
        super(...args);
        opened += 1;
      }
    }
    const record = new Record(client({ WebSocket: Counted, transports: ['websocket'] }), [`mind/${id}`]);
    await record.live();
    await stage.killGateway();
    await record.until(() => record.times('reconnecting') >= 6);
    assert.equal(opened, 1);
    await stage.startGateway();
    await record.live(2);
    assert.deepEqual([opened, record.transport()], [2, 'websocket']);
    record.stop();
  });

  test('a server that is no gateway ends the watch', async () => {
    const server = http.createServer((_, response) => response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>Not found</h1>'));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const jobgate = client({ url: `http://127.0.0.1:${server.address().port}` });
    const record = new Record(jobgate, ['mind/a']);
    await record.until(({ error }) => error);
    assert.equal(record.error.code, 'NOT_A_GATEWAY');
    await assert.rejects(jobgate.jobs(['mind/a']), { code: 'NOT_A_GATEWAY' });
    server.close();
  });
});

describe('sharing', { timeout }, () => {
  test('watches share one connection, which is closed after the last', async () => {
    const ids = await newJobs(3);
    const jobgate = client();
    const before = stage.seen().websocket;
    const first = new Record(jobgate, ids.slice(0, 2).map((id) => `mind/${id}`));
    await first.until(({ updates }) => updates.length >= 2);
    const second = new Record(jobgate, [`mind/${ids[2]}`]);
    await second.live();
    assert.equal(stage.seen().websocket - before, 1);
    first.stop();
    second.stop();
    while (stage.front.open.websocket > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  });

  test('a later watcher of a job begins with its state', async () => {
    const [id] = await newJobs();
    const jobgate = client();
    const first = new Record(jobgate, [`mind/${id}`]);
    await first.until(({ updates }) => updates.length >= 1);
    const second = new Record(jobgate, [`mind/${id}`]);
    await second.until(({ updates }) => updates.length >= 1);
    first.stop();
    await stage.set(id, 'COMPLETE');
    await second.until(({ ended }) => ended);
    assert.deepEqual([first.states(), second.states()], [['RUNNING'], ['RUNNING', 'SUCCEEDED']]);
    assert.deepEqual(second.updates.map(({ kind }) => kind), ['SNAPSHOT', 'ENDED']);
  });

  test('many watches over server-sent events leave connections to the browser', async () => {
    const ids = await newJobs(12);
    const jobgate = client({ transports: ['sse'] });
    const records = [];
    for (const id of ids) {
      records.push(new Record(jobgate, [`mind/${id}`]));
      await records.at(-1).until(({ updates }) => updates.length >= 1);
      assert.ok(stage.front.open.sse <= 5, `${stage.front.open.sse} are open`);
    }
    for (const id of ids) await stage.set(id, 'COMPLETE');
    for (const record of records) {
      await record.until(({ ended }) => ended);
      assert.deepEqual(record.states(), ['RUNNING', 'SUCCEEDED']);
    }
  });

  test('more watches than a WebSocket carries operations share subscriptions', async () => {
    const ids = await newJobs(210);
    const jobgate = client({ transports: ['websocket'] });
    const records = [];
    for (const id of ids) {
      records.push(new Record(jobgate, [`mind/${id}`]));
      // each in a turn of its own
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    for (const record of records) await record.until(({ updates }) => updates.length >= 1);
    await Promise.all(ids.map((id) => stage.set(id, 'COMPLETE')));
    for (const record of records) await record.until(({ ended }) => ended);
    assert.equal(records.filter((record) => record.times('reconnecting') > 0).length, 0);
  });

  test('more jobs than a subscription can have are split', async () => {
    const ids = await newJobs(230);
    const record = new Record(client(), ids.map((id) => `mind/${id}`));
    await record.until(({ updates }) => updates.length >= ids.length);
    await Promise.all(ids.map((id) => stage.set(id, 'COMPLETE')));
    await record.until(({ ended }) => ended);
    assert.equal(record.updates.filter(({ isFinal }) => isFinal).length, ids.length);
  });
});

describe('the interface', { timeout }, () => {
  test('leaving the loop ends the watch', async () => {
    const [id] = await newJobs();
    for await (const { job } of client().watchJob(`mind/${id}`)) {
      assert.equal(job.state, 'RUNNING');
      break;
    }
    while (stage.front.open.websocket > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  });

  test('a signal ends a watch: an iteration throws its reason', async () => {
    const [id] = await newJobs();
    const control = new AbortController();
    const iterate = async () => {
      for await (const _ of client().watchJob(`mind/${id}`, { signal: control.signal })) control.abort();
    };
    await assert.rejects(iterate(), { name: 'AbortError' });
    await assert.rejects(iterate(), { name: 'AbortError' }, 'before it began');
  });

  test('a signal ends a watch by callbacks', async () => {
    const [id] = await newJobs();
    const control = new AbortController();
    const record = new Record(client(), [`mind/${id}`], { signal: control.signal });
    await record.until(({ updates }) => updates.length >= 1);
    control.abort();
    await stage.set(id, 'COMPLETE');
    const other = new Record(client(), [`mind/${id}`]);
    await other.until(({ ended }) => ended);
    assert.deepEqual([record.states(), record.ended], [['RUNNING'], false]);
  });

  test('a slow reader gets the newest state of each job', async () => {
    const [id, other] = await newJobs(2);
    const jobgate = client();
    const seen = [];
    for await (const { ref, job } of jobgate.watchJobs([`mind/${id}`, `mind/${other}`])) {
      seen.push([ref, job.state]);
      if (seen.length !== 2) continue;
      // a quick reader of the same client has received all of it
      const quick = new Record(jobgate, [`mind/${id}`, `mind/${other}`]);
      await stage.set(id, 'IN_PROGRESS', { error_message: 'still running' });
      await quick.until(({ updates }) => updates.some(({ job }) => job.errorMessage === 'still running'));
      await stage.set(id, 'COMPLETE');
      await stage.set(other, 'COMPLETE');
      await quick.until(({ ended }) => ended);
    }
    assert.deepEqual(seen.slice(2).sort(), [[`mind/${id}`, 'SUCCEEDED'], [`mind/${other}`, 'SUCCEEDED']].sort());
  });

  test('awaitJob returns a job that failed', async () => {
    const [id] = await newJobs();
    await stage.set(id, 'ERROR', { error: 'BROKEN' });
    const job = await client().awaitJob(`mind/${id}`, { fields: 'transitions { state }' });
    assert.deepEqual([job.state, job.failure.code, job.transitions.at(-1).state], ['FAILED', 'BROKEN', 'FAILED']);
  });

  test('awaitJob throws the problem of a job that does not exist', async () => {
    await assert.rejects(client().awaitJob('mind/never'), (error) => {
      assert.ok(error instanceof JobgateError);
      assert.deepEqual([error.code, error.problem.ref.source], ['NOT_FOUND', 'mind']);
      return true;
    });
  });

  test('awaitJob ends with its time limit, and with its signal', async () => {
    const [id] = await newJobs();
    await assert.rejects(client().awaitJob(`mind/${id}`, { timeoutMs: 300 }), { code: 'TIMED_OUT' });
    await assert.rejects(client().awaitJob(`mind/${id}`, { signal: AbortSignal.timeout(300) }), { name: 'TimeoutError' });
  });

  test('jobs returns a job or a problem for each reference, in their order', async () => {
    const [id] = await newJobs();
    const found = await client().jobs([`mind/${id}`, 'mind/never', 'metrics/q']);
    assert.deepEqual(found.map((one) => one.state ?? one.code), ['RUNNING', 'NOT_FOUND', 'RUNNING']);
    assert.deepEqual(found[2].progress, { completed: 1, total: 3 });
    const [again] = await client().jobs([{ id: found[0].id }]);
    assert.equal(again.externalId, id);
  });

  test('a node ID is watched like an external one', async () => {
    const [id] = await newJobs();
    const [{ id: node }] = await client().jobs([`mind/${id}`]);
    await stage.set(id, 'COMPLETE');
    const job = await client().awaitJob(node);
    assert.deepEqual([job.externalId, job.state], [id, 'SUCCEEDED']);
  });

  test('a watch token of the kit is accepted by the kit', async () => {
    const [id] = await newJobs();
    await stage.set(id, 'COMPLETE');
    const { token, expiresAt } = await client().createWatchToken([`mind/${id}`], { ttl: '1m' });
    assert.ok(Date.parse(expiresAt) > Date.now());
    assert.equal((await client({ token }).awaitJob(`mind/${id}`)).state, 'SUCCEEDED');
    await assert.rejects(client({ token }).createWatchToken([`mind/${id}`]), { code: 'FORBIDDEN' });
  });

  test('a request renews an expired token', async () => {
    const [id] = await newJobs();
    let calls = 0;
    const token = () => {
      calls += 1;
      return stage.watchToken([id], '2s');
    };
    const jobgate = client({ token });
    const states = new Set();
    while (calls < 2) states.add((await jobgate.jobs([`mind/${id}`]))[0].state);
    assert.deepEqual([...states], ['RUNNING']);
    await assert.rejects(client({ token: 'jg_unknown' }).jobs([`mind/${id}`]), { code: 'UNAUTHENTICATED', status: 401 });
  });

  test('a mistake in a call is an error that says how to write it', () => {
    const cases = [
      [() => client({ url: 'nowhere' }), /not a URL: write https/],
      [() => client({ url: 'ftp://host' }), /must begin with http/],
      [() => client({ url: 'https://host/?token=x' }), /must not contain a credential/],
      [() => client({ token: '' }), /token must be a text/],
      [() => client({ token: 7 }), /token must be a text/],
      [() => client({ transports: ['telnet'] }), /websocket, sse, wait, not telnet/],
      [() => client({ transports: [] }), /transports must be some of/],
    ];
    for (const ref of ['', 'mind/', '/a', {}, null, undefined, 7, { source: 'mind' }, { source: '', externalId: 'a' }, { id: '' }]) {
      cases.push([() => client().watchJobs([ref], { onUpdate() {} }), /is not a job reference: write 'SOURCE\/EXTERNAL_ID'/]);
    }
    for (const [call, message] of cases) assert.throws(call, (error) => error instanceof TypeError && message.test(error.message), String(message));
  });

  test('a watch of no job ends at once', async () => {
    const record = new Record(client(), []);
    await record.until(({ ended }) => ended);
    for await (const _ of client().watchJobs([])) assert.fail();
  });
});
