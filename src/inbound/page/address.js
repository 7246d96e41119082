// What the page shows, as the query of its URL: filters, order, and the open job. A link shows the same to every user who may see it.

const STATES = new Set(['QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELED', 'EXPIRED', 'UNKNOWN']);
const SORTS = { updated: 'UPDATED_AT', created: 'CREATED_AT', state: 'STATE' };

/** The view that the URL describes. What it does not understand is left out. */
export function readAddress(search = location.search) {
  const query = new URLSearchParams(search);
  const list = (name) => query.getAll(name).flatMap((value) => value.split(',')).map((value) => value.trim()).filter(Boolean);
  const [sort, direction] = (query.get('sort') ?? '').split('.');
  return {
    text: (query.get('q') ?? '').slice(0, 200),
    states: list('state').map((state) => state.toUpperCase()).filter((state) => STATES.has(state)),
    sources: list('source'),
    kinds: list('kind'),
    labels: query.getAll('label').map(splitLabel).filter(Boolean),
    sort: sort in SORTS ? sort : 'updated',
    ascending: direction === 'asc',
    job: readReference(query.get('job') ?? ''),
  };
}

/** The URL of a view, relative to the page. */
export function addressOf(view) {
  const query = new URLSearchParams();
  if (view.text) query.set('q', view.text);
  if (view.states.length) query.set('state', view.states.join(',').toLowerCase());
  if (view.sources.length) query.set('source', view.sources.join(','));
  if (view.kinds.length) query.set('kind', view.kinds.join(','));
  for (const { name, value } of view.labels) query.append('label', `${name}=${value}`);
  if (view.sort !== 'updated' || view.ascending) query.set('sort', view.ascending ? `${view.sort}.asc` : view.sort);
  if (view.job) query.set('job', referenceText(view.job));
  // slashes, commas and equals signs need no escape in a query, and a link that people can read is worth it
  const text = query.toString().replaceAll('%2F', '/').replaceAll('%2C', ',').replaceAll('%3A', ':').replaceAll('%3D', '=');
  return text ? `?${text}` : location.pathname;
}

/** The arguments of `jobList` for a view. */
export function listQuery(view) {
  const filter = {};
  if (view.text) filter.text = view.text;
  if (view.states.length) filter.states = view.states;
  if (view.sources.length) filter.sources = view.sources;
  if (view.kinds.length) filter.kinds = view.kinds;
  if (view.labels.length) filter.labels = view.labels;
  return { filter, order: { field: SORTS[view.sort], direction: view.ascending ? 'ASC' : 'DESC' } };
}

/** Whether two views show the same list. */
export const sameList = (one, other) => JSON.stringify(listQuery(one)) === JSON.stringify(listQuery(other));

/** `source/external ID` as a reference; null if it is none. */
export function readReference(text) {
  const slash = text.indexOf('/');
  const [source, externalId] = [text.slice(0, slash).trim(), text.slice(slash + 1).trim()];
  return slash > 0 && externalId ? { source, externalId } : null;
}

export const referenceText = ({ source, externalId }) => `${source}/${externalId}`;

/** `name=value` as a label; null if it is none. */
export function splitLabel(text) {
  const at = text.indexOf('=');
  const [name, value] = [text.slice(0, at).trim(), text.slice(at + 1).trim()];
  return at > 0 && value ? { name, value } : null;
}
