// Every designed state of the page, light and dark, wide and on a phone: axe finds nothing, no text is cut by the page's edge.
import assert from 'node:assert/strict';

import { ask } from './ask.mjs';
import { DEVICES, eachState } from './states.mjs';

export default async function looks(browser, options) {
  const found = [];
  const seen = [];
  const world = { ...options, token: () => ask('watch token', 8), outage: () => ask('outage'), recover: () => ask('recover') };
  for (const scheme of ['light', 'dark']) {
    for (const [device, width, height] of DEVICES) {
      const open = () => browser.open({ scheme, width, height, reducedMotion: 'reduce' });
      await eachState(open, world, async (page, name) => {
        const where = `${name}, ${scheme}, ${device}`;
        seen.push(where);
        found.push(...(await page.violations()).map((line) => `${where}: ${line}`));
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (wide > 0) found.push(`${where}: the page is ${wide} pixels wider than the screen`);
      });
    }
  }
  assert.deepEqual(found, []);
  return { seen };
}
