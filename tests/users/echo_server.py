"""A small HTTP server that says who it is and what inputs it found; argument: its port."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

INPUTS = json.loads(Path(os.environ["INFERENCE_INPUTS"]).read_text()) if "INFERENCE_INPUTS" in os.environ else None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"pid": os.getpid(), "inputs": INPUTS, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Requests are not logged."""


if __name__ == "__main__":
    print("echo server of process", os.getpid(), flush=True)
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
