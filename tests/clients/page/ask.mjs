// Asks the test that started this program: one line of JSON each way.
import { createInterface } from 'node:readline';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the test do something, and returns its answer. */
export async function ask(what, argument = null) {
  process.stdout.write(`${JSON.stringify({ ask: what, argument })}\n`);
  const { value, done } = await lines.next();
  if (done) throw new Error(`no answer to ${what}`);
  return JSON.parse(value);
}
