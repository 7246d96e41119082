// How times, durations, numbers and the words of the schema are written for people.

const NUMBER = new Intl.NumberFormat('en');
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const DAY = new Intl.DateTimeFormat('en', { month: 'short', day: 'numeric' });
const FULL = new Intl.DateTimeFormat('en', { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' });

/** The look of each state: a colour, an icon and a word. */
export const STATES = {
  QUEUED: { tone: 'wait', icon: 'clock', word: 'Queued' },
  RUNNING: { tone: 'run', icon: 'arc', word: 'Running' },
  SUCCEEDED: { tone: 'good', icon: 'check', word: 'Succeeded' },
  FAILED: { tone: 'bad', icon: 'cross', word: 'Failed' },
  CANCELED: { tone: 'idle', icon: 'dash', word: 'Canceled' },
  EXPIRED: { tone: 'idle', icon: 'hourglass', word: 'Expired' },
  UNKNOWN: { tone: 'idle', icon: 'question', word: 'Unknown' },
};

/** The look of the health of a source. */
export const HEALTH = {
  HEALTHY: { tone: 'good', icon: 'check', word: 'healthy' },
  UNKNOWN: { tone: 'idle', icon: 'question', word: 'no call yet' },
  THROTTLED: { tone: 'wait', icon: 'bang', word: 'throttled' },
  DEGRADED: { tone: 'bad', icon: 'bang', word: 'degraded' },
  UNAVAILABLE: { tone: 'bad', icon: 'cross', word: 'unavailable' },
  CREDENTIAL_REJECTED: { tone: 'bad', icon: 'cross', word: 'credential rejected' },
  UNCONFIGURED: { tone: 'bad', icon: 'cross', word: 'no credential' },
};

/** The names of the upstreams as their vendors write them. */
export const UPSTREAMS = { MINDBRIDGE: 'MindBridge', SUPERMETRICS: 'Supermetrics' };

/** What a value of the schema that this page does not know looks like. */
export const look = (table, value) => table[value] ?? { tone: 'idle', icon: 'question', word: words(value) };

/** `CREDENTIAL_REJECTED` as `credential rejected`. */
export const words = (name) => String(name).toLowerCase().replaceAll('_', ' ');

/** `12345` as `12,345`. */
export const number = (value) => NUMBER.format(value);

/** One or many of something, with the number. */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** A duration in at most two units: `12 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86_400)];
  if (minutes < 60) return seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** A duration in one unit, for estimates and ages: `40 s`, `2 min`, `3 h`. */
export function roughly(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3570) return `${Math.round(seconds / 60)} min`;
  if (seconds < 84_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** How long ago: `now`, `3 s ago`, `5 min ago`. */
export const ago = (milliseconds) => (milliseconds < 1000 ? 'now' : `${roughly(milliseconds)} ago`);

/** The time of day, with the day if it is not today. */
export function clock(time, now = Date.now()) {
  const date = new Date(time);
  const sameDay = date.toDateString() === new Date(now).toDateString();
  return sameDay ? CLOCK.format(date) : `${DAY.format(date)}, ${CLOCK.format(date).slice(0, 5)}`;
}

/** The complete date and time, for the text that appears on hover. */
export const full = (time) => FULL.format(new Date(time));
