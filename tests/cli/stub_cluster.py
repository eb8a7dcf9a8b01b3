"""A cluster's API of fixed answers, and a kubeconfig for it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMESPACE = "/api/v1/namespaces/team"
NODE = {
    "metadata": {"name": "gpu-1"},
    "status": {"allocatable": {"cpu": "32", "memory": "120Gi", "nvidia.com/gpu": "2"}},
}
ANSWERS: dict[str, Any] = {
    "/version/": {"major": "1", "minor": "36+", "gitVersion": "v1.36.3"},
    NAMESPACE: {"metadata": {"name": "team", "labels": {}}},
    f"{NAMESPACE}/secrets/huggingface": {
        "metadata": {"name": "huggingface"},
        "data": {"token": "aGY="},
    },
    f"{NAMESPACE}/resourcequotas": {"items": []},
    f"{NAMESPACE}/limitranges": {"items": []},
    "/api/v1/nodes": {"items": [NODE]},
}
"""A cluster on which everything is there. A number in place of an answer is a status."""


@contextmanager
def stub_cluster(folder: Path, answers: Mapping[str, Any]) -> Iterator[Path]:
    """Serve `answers` and yield the kubeconfig's path; its context is called `stub`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path, 404)
            status = answer if isinstance(answer, int) else 200
            body = json.dumps({} if isinstance(answer, int) else answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield kubeconfig(folder, server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(folder: Path, port: int) -> Path:
    """Write a kubeconfig with one context, `stub`, for a cluster on this machine."""
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "stub",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "stub", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path
