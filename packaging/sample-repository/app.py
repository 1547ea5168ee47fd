"""A web app that listens on 127.0.0.1 only: the gateway reaches it all the same."""

import html
import http.server
import os

PORT = 8000
PAGE = """<!doctype html><meta charset="utf-8"><title>Sample</title>
<h1>{greeting}</h1><p>Edit <code>app.py</code>, then restart it from the terminal.</p>"""


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        greeting = html.escape(os.environ.get("GREETING", "Hello"))
        body = PAGE.format(greeting=greeting).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Page).serve_forever()
