// A web server for pages, on another origin than the gateway: files, text that a test made, and watch tokens.
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { extname, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const TYPES = { '.js': 'text/javascript', '.mjs': 'text/javascript', '.html': 'text/html; charset=utf-8' };

export class Pages {
  /** Answers by path: a text, or a function that returns one. */
  made = new Map();

  async listen() {
    this.server = http.createServer(async ({ url }, response) => {
      const { pathname } = new URL(url, 'http://localhost');
      try {
        const made = this.made.get(pathname);
        const body = made === undefined ? readFileSync(ROOT + normalize(pathname).replace(/^\/+/, '')) : typeof made === 'function' ? await made() : made;
        response.writeHead(200, { 'content-type': TYPES[extname(pathname)] ?? 'text/plain' }).end(body);
      } catch (error) {
        response.writeHead(pathname === '/favicon.ico' ? 204 : 500).end(String(error));
      }
    });
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.port = this.server.address().port;
  }

  close() {
    this.server.close();
    this.server.closeAllConnections();
  }
}
