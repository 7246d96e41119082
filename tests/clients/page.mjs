// Opens the live page in a real browser and uses it. Usage: node page.mjs SCENARIO BROWSER OPTIONS, with the options as JSON.
// Prints one line of JSON for each thing that the caller shall do, and at last {"seen": …}; exits with 1 if the page is wrong.
import { start } from './page/browser.mjs';

const [scenario, kind, options] = process.argv.slice(2);
const { default: run } = await import(`./page/${scenario}.mjs`);
const browser = await start(kind);
try {
  const seen = await run(browser, JSON.parse(options));
  console.log(JSON.stringify({ seen: seen ?? {} }));
} finally {
  await browser.close();
}
process.exit(0);
