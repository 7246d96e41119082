// The kits as files: generated parts match the schema, the JavaScript matches its declarations, and the package is complete.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const run = (program, ...args) => promisify(execFile)(program, args, { cwd: root }).catch((error) => assert.fail(`${error.stdout}${error.stderr}`));

test('the generated files match the schema', () => run('node', 'clients/generate.mjs', '--check'));

test('the kit and its declarations agree', () => run('tests/clients/node_modules/.bin/tsc', '-p', 'clients/typescript'));

test('the Python kit is typed', () => run('target/tools/clients/bin/mypy', '--strict', 'clients/python/jobgate_client'));

test('the package has every file that it imports', async () => {
  const { stdout } = await run('npm', 'pack', '--dry-run', '--json', './clients/typescript');
  const [{ files }] = Object.values(JSON.parse(stdout)).flat();
  const packed = new Set(files.map(({ path }) => path));
  const missing = [];
  for (const path of packed) {
    if (!/\.(js|d\.ts)$/.test(path)) continue;
    const source = readFileSync(`${root}clients/typescript/${path}`, 'utf8');
    for (const [, target] of source.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)) {
      const resolved = new URL(target, `file:///${path}`).pathname.slice(1);
      if (!packed.has(resolved)) missing.push(`${path}: ${target}`);
    }
  }
  assert.deepEqual(missing, []);
  for (const needed of ['index.js', 'index.d.ts', 'react/index.js', 'react/index.d.ts', 'README.md', 'package.json']) assert.ok(packed.has(needed), needed);
});

test('every file of the kits, the examples and their tests opens with a comment', () => {
  const skipped = /node_modules|__pycache__|__generated__|build|\.egg-info/;
  const files = ['clients', 'examples', 'tests/clients'].flatMap((folder) =>
    readdirSync(root + folder, { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile() && /\.(m?js|ts|jsx|py|sh|yml)$/.test(entry.name))
      .map((entry) => join(entry.parentPath ?? entry.path, entry.name)))
    .filter((path) => !skipped.test(path.slice(root.length)));
  assert.ok(files.length > 40, `${files.length} files were read`);
  assert.deepEqual(files.filter((path) => !/^(#!.*\n)?(\/\/|\/\*|#|""")/.test(readFileSync(path, 'utf8'))), []);
});
