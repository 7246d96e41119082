// What the tests of the kits and of the examples run against: the real gateway in front of the simulated upstreams, behind
// a proxy that can block WebSockets and event streams. As a program it reads one command a line, {"do": NAME, "with":
// [ARGUMENTS]}, and answers each with a line; it ends with its input.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import readline from 'node:readline';
import { pathToFileURL } from 'node:url';

const BINARY = process.env.JOBGATE_BIN;
/** Only what hangs takes as long. */
const LIMIT_MS = 120_000;
const MIND_TOKEN = 'simulated-mindbridge-token';
const METRICS_KEY = 'simulated-supermetrics-key';

/** Starts jobgate, and waits for the line that `find` finds something in. */
function launch(args, env, find) {
  if (!BINARY) throw new Error('set JOBGATE_BIN to the binary of jobgate');
  const child = spawn(BINARY, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const found = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`jobgate ${args[0]} is not ready:\n${output}`)), LIMIT_MS);
    const read = (data) => {
      output += data;
      const result = find(output);
      if (result) {
        clearTimeout(timer);
        resolve(result);
      }
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`jobgate ${args[0]} ended with ${code}:\n${output}`)));
  });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  return { child, found, ended };
}

/** Prints a new key and its hash. */
async function newKey(name) {
  const { child, found } = launch(['key', 'new', name], {}, (output) => /"[0-9a-f]{64}"/.test(output) && output);
  const output = await found;
  child.kill();
  return { key: /jg_[A-Za-z0-9_-]+/.exec(output)[0], hash: /"([0-9a-f]{64})"/.exec(output)[1] };
}

/** A reverse proxy on a port of its own, to a gateway whose port changes. */
class Front {
  target = null;
  /** `webSockets`: they are refused. `streams`: the bytes of event streams are held back. `all`: an error page for everything. */
  blocked = new Set();
  /** Requests by the transport that they belong to. */
  seen = { websocket: 0, sse: 0, request: 0 };
  /** Streams that are open now. */
  open = { websocket: 0, sse: 0 };
  #sockets = new Set();

  async listen() {
    const agent = new http.Agent({ keepAlive: false });
    this.server = http.createServer((request, response) => {
      const isStream = request.headers.accept?.includes('text/event-stream');
      this.seen[isStream ? 'sse' : 'request'] += 1;
      if (isStream) this.#count('sse', response);
      if (this.blocked.has('all')) return response.writeHead(503, { 'content-type': 'text/html' }).end('<h1>Service unavailable</h1>');
      if (!this.target) return request.socket.destroy();
      const { method, url, headers } = request;
      const passed = http.request({ ...this.target, agent, method, path: url, headers }, (answer) => {
        response.on('close', () => answer.destroy());
        answer.on('error', () => response.destroy());
        if (isStream && this.blocked.has('streams')) return answer.resume();
        response.writeHead(answer.statusCode, answer.headers);
        response.flushHeaders();
        // an aborted response of the gateway is aborted here too
        answer.on('aborted', () => request.socket.destroy());
        answer.pipe(response);
      });
      passed.on('error', () => request.socket.destroy());
      response.on('close', () => passed.destroy());
      request.pipe(passed);
    });
    this.server.on('upgrade', (request, socket, head) => {
      this.seen.websocket += 1;
      this.#count('websocket', socket);
      socket.on('error', () => {});
      if (this.blocked.has('webSockets') || this.blocked.has('all')) return socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
      if (!this.target) return socket.destroy();
      const passed = net.connect(this.target.port, this.target.host, () => {
        const lines = [`${request.method} ${request.url} HTTP/1.1`];
        for (let at = 0; at < request.rawHeaders.length; at += 2) lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`);
        passed.write(`${lines.join('\r\n')}\r\n\r\n`);
        passed.write(head);
        passed.pipe(socket).pipe(passed);
      });
      for (const [one, other] of [[passed, socket], [socket, passed]]) one.on('close', () => other.destroy());
      passed.on('error', () => socket.destroy());
    });
    this.server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return this.server.address().port;
  }

  #count(transport, stream) {
    this.open[transport] += 1;
    stream.on('close', () => (this.open[transport] -= 1));
  }

  close() {
    this.server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

export class Stage {
  #made = 0;

  /**
   * `rest` is further configuration, `origins` are `server.allowed_origins`; with `clients` a key is needed: `stage.key`.
   * `names` are those of the sources, and `jobs` their first jobs.
   */
  static async start({ rest = {}, origins = [], clients = false, jobs = {}, names = {} } = {}) {
    const stage = new Stage();
    stage.folder = mkdtempSync(join(tmpdir(), 'jobgate-kits-'));
    try {
      await stage.#build({ rest, origins, clients, jobs, names });
    } catch (error) {
      await stage.close();
      throw error;
    }
    return stage;
  }

  async #build({ rest, origins, clients, jobs, names }) {
    const running = (id) => ({ id, type: 'ANALYSIS_RUN', steps: [{ status: 'IN_PROGRESS' }] });
    const { mind = ['a', 'b', 'c'], metrics = ['q'] } = jobs;
    const { mind: mindbridge = 'mind', metrics: supermetrics = 'metrics' } = names;
    const scenario = {
      mindbridge: { token: MIND_TOKEN, jobs: mind.map(running) },
      supermetrics: { api_key: METRICS_KEY, jobs: metrics.map((id) => ({ id, steps: [{ status: 'RUNNING', ready: 1, total: 3 }] })) },
    };
    this.#write('scenario.yaml', scenario);
    const any = '127.0.0.1:0';
    this.simulator = launch(['simulate', '--scenario', join(this.folder, 'scenario.yaml'), '--mindbridge', any, '--supermetrics', any], {}, (output) => {
      const [mind, metrics] = [...new Set(output.match(/http:\/\/127\.0\.0\.1:\d+[a-z0-9/]*/g))];
      return metrics && { mind, metrics };
    });
    this.upstreams = await this.simulator.found;
    const { key, hash } = await newKey('ui');
    this.key = key;
    const budget = { per_second: 1000, per_hour: 1_000_000, concurrency: 50 };
    const source = (upstream, base_url, credential) => ({ upstream, base_url, credential, budget });
    this.config = {
      poll: { min_interval: '100ms', max_interval: '1s', missing_for: '2s' },
      store: { kind: 'memory' },
      // other tokens than before a restart would hide that they are renewed
      watch_tokens: { secret: { env: 'WATCH_SECRET' } },
      sources: {
        [mindbridge]: source('mindbridge', this.upstreams.mind, { bearer: { env: 'MIND_TOKEN' } }),
        [supermetrics]: source('supermetrics', this.upstreams.metrics, { api_key: { env: 'METRICS_KEY' } }),
      },
      ...(clients ? { clients: [{ name: 'ui', key_sha256: hash, sources: [mindbridge, supermetrics] }] } : {}),
      ...rest,
      server: { listen: any, admin_listen: any, header_timeout: '2m', allowed_origins: origins, ...rest.server },
    };
    this.front = new Front();
    this.port = await this.front.listen();
    this.url = `http://127.0.0.1:${this.port}`;
    await this.startGateway();
  }

  #write(name, value) {
    writeFileSync(join(this.folder, name), JSON.stringify(value));
  }

  async startGateway() {
    this.#write('jobgate.yaml', this.config);
    const env = { MIND_TOKEN, METRICS_KEY, WATCH_SECRET: this.watchSecret ?? 'a secret of the tests with more than 32 bytes' };
    this.gateway = launch(['serve', '--config', join(this.folder, 'jobgate.yaml')], env, (output) => /public=(?:\x1b\[\d+m)*127\.0\.0\.1:(\d+)/.exec(output) ?? /"public":"127\.0\.0\.1:(\d+)/.exec(output));
    const [, port] = await this.gateway.found;
    this.front.target = { host: '127.0.0.1', port: Number(port) };
  }

  async killGateway(signal = 'SIGKILL') {
    this.front.target = null;
    this.gateway.child.kill(signal);
    await this.gateway.ended;
  }

  /** Other tokens are valid from the next start on. */
  changeWatchSecret() {
    this.watchSecret = `another secret of the tests, ${Math.random()}, which is long enough`;
  }

  async #control(upstream, method, path, body) {
    const response = await fetch(`${new URL(this.upstreams[upstream]).origin}/_sim/${path}`, {
      method, body: body === undefined ? undefined : JSON.stringify(body), headers: { 'content-type': 'application/json' },
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  }

  /** Sets the state of a MindBridge job. */
  set(id, status, more = {}) {
    return this.#control('mind', 'POST', `jobs/${id}/state`, { status, ...more });
  }

  /** Sets the state of a Supermetrics query. */
  setQuery(id, status, more = {}) {
    return this.#control('metrics', 'POST', `jobs/${id}/state`, { status, ...more });
  }

  /** Adds MindBridge jobs that run, and returns their ids: a completed job is stored, so each test has its own. */
  async newJobs(count = 1) {
    const ids = Array.from({ length: count }, () => `job${(this.#made += 1)}`);
    for (const id of ids) await this.#control('mind', 'POST', 'jobs', { id, type: 'ANALYSIS_RUN', steps: [{ status: 'IN_PROGRESS' }] });
    return ids;
  }

  /** MindBridge fails until `endOutage`. */
  outage() {
    return this.#control('mind', 'POST', 'faults', { kind: { answer: { status: 503, body: 'empty' } } });
  }

  endOutage() {
    return this.#control('mind', 'DELETE', 'faults');
  }

  block(...what) {
    this.front.blocked = new Set(what);
  }

  /** What was requested through the proxy, by transport. */
  seen() {
    return { ...this.front.seen };
  }

  /** A watch token for jobs, made with the key. */
  async watchToken(externalIds, ttl) {
    const query = 'mutation($input: CreateWatchTokenInput!) { createWatchToken(input: $input) { token } }';
    const refs = externalIds.map((externalId) => ({ external: { source: 'mind', externalId } }));
    const { host, port } = this.front.target ?? {};
    if (!port) throw new Error('the gateway is not running');
    const response = await fetch(`http://${host}:${port}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${this.key}` },
      body: JSON.stringify({ query, variables: { input: { refs, ttl } } }),
    });
    return (await response.json()).data.createWatchToken.token;
  }

  async close() {
    this.front?.close();
    for (const process of [this.gateway, this.simulator]) {
      process?.child.kill('SIGKILL');
      await process?.ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  let stage;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: name, with: args = [] } = JSON.parse(line);
    let answer;
    try {
      if (name === 'start') {
        stage = await Stage.start(...args);
        answer = { url: stage.url, key: stage.key };
      } else answer = { result: (await stage[name](...args)) ?? null };
    } catch (error) {
      answer = { error: String(error) };
    }
    console.log(JSON.stringify(answer));
  }
  await stage?.close();
}
