// Bundles the explorer and its workers, and writes the files that the gateway serves, each compressed:
//
//   node build.mjs FOLDER
//
// The gateway knows these names (src/inbound/graphiql.rs) and serves no other file.
import { createRequire } from 'node:module';
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { build } from 'esbuild';

const [folder] = process.argv.slice(2);
if (!folder) {
  console.error('usage: node build.mjs FOLDER');
  process.exit(2);
}
const { resolve } = createRequire(import.meta.url);
const result = await build({
  entryPoints: {
    graphiql: 'explorer.js',
    'editor.worker': resolve('monaco-editor/esm/vs/editor/editor.worker.js'),
    'json.worker': resolve('monaco-editor/esm/vs/language/json/json.worker.js'),
    'graphql.worker': resolve('monaco-graphql/esm/graphql.worker.js'),
  },
  outdir: 'out',
  write: false,
  bundle: true,
  minify: true,
  format: 'iife',
  target: 'es2022',
  // fonts are part of the style: one file less to serve, and no path in it
  loader: { '.ttf': 'dataurl', '.woff2': 'dataurl', '.graphql': 'text' },
  define: { 'process.env.NODE_ENV': '"production"' },
  legalComments: 'inline',
  logLevel: 'warning',
});

// Beside the folder first, so that a gateway that starts meanwhile finds all of it or nothing.
const made = `${folder}.new`;
rmSync(made, { recursive: true, force: true });
mkdirSync(made, { recursive: true });
for (const file of result.outputFiles) {
  writeFileSync(join(made, `${basename(file.path)}.gz`), gzipSync(file.contents, { level: 9 }));
}
rmSync(folder, { recursive: true, force: true });
renameSync(made, folder);
console.log(`${folder}: ${result.outputFiles.length} files`);
