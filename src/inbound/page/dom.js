// Elements, and the icons of the page. External text is inserted as text, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

/** The element with an id. */
export const $ = (id) => document.getElementById(id);

/** Makes an element: attributes, then children. A value of null or false leaves the attribute out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Sets a text only if it differs: an unchanged text costs no layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute only if it differs; null removes it. */
export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** The shapes of the icons, in a square of 12 units. */
const SHAPES = {
  check: ['M2 6.2l3 3 5-6'],
  cross: ['M3 3l6 6M9 3l-6 6'],
  dash: ['M3 6h6'],
  bang: ['M6 2v5M6 9v1'],
  question: ['M4.2 4.4a1.9 1.9 0 1 1 2.6 1.8c-.5.2-.8.5-.8 1.2M6 9.4v.8'],
  arc: ['M9.9 6.8A4 4 0 1 1 6.7 2.1'],
  clock: ['M6 2a4 4 0 1 0 0 8 4 4 0 0 0 0-8', 'M6 4v2.2l1.5.9'],
  hourglass: ['M3.2 2h5.6M3.2 10h5.6M3.8 2c0 4 4.4 4 4.4 8M8.2 2c0 4-4.4 4-4.4 8'],
};

/** An icon for the eye only; the word beside it is what a screen reader reads. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 12 12');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', `icon ${name}`);
  for (const d of SHAPES[name] ?? []) {
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', d);
    svg.append(path);
  }
  return svg;
}

/** A coloured label of an icon and a word. */
export function chip({ tone, icon: shape, word }) {
  return element('span', { class: 'chip', 'data-tone': tone }, icon(shape), element('span', {}, word));
}
