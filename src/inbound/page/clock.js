// The one timer of the page, and the time of the gateway. The timer stops while the tab is hidden.

const TICK_MS = 1000;

const listeners = new Set();
let timer = null;
let ticks = 0;
/** What the gateway's clock is ahead of this machine's. */
let offset = 0;
let isMeasured = false;

/** The gateway's time, in milliseconds. */
export const now = () => Date.now() + offset;

/** Learns the gateway's time from an answer that has just arrived. */
export function learnTime({ observedAt, ageMs }) {
  // the largest age that the schema can express says nothing about the time
  if (typeof ageMs !== 'number' || ageMs >= 2_147_483_647) return;
  const measured = Date.parse(observedAt) + ageMs - Date.now();
  // a late answer shows an early time: small differences are the network's, large ones the clock's
  if (Number.isFinite(measured) && (!isMeasured || measured > offset || offset - measured > 1000)) offset = measured;
  isMeasured = true;
}

/** Calls `listener(ticks)` once a second while the tab is visible, and at once when it becomes visible again. */
export function onTick(listener) {
  listeners.add(listener);
}

function tick() {
  ticks += 1;
  for (const listener of listeners) listener(ticks);
}

function run() {
  clearInterval(timer);
  timer = null;
  if (document.hidden) return;
  tick();
  timer = setInterval(tick, TICK_MS);
}

document.addEventListener('visibilitychange', run);
queueMicrotask(run);
