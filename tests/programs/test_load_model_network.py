"""The model loader behind a proxy, and with certificates of the network's own."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

FILES = {"config.json": b"{}", "model.bin": b"weights"}


def test_a_proxy_is_used(hub: Any, load: Any) -> None:
    hub.commit(FILES)
    for _, headers in hub.web.answers.values():
        headers["Location"] = headers["Location"].replace(hub.endpoint, "http://cdn.invalid")
    proxy = {"HTTP_PROXY": hub.endpoint, "http_proxy": hub.endpoint}
    done = load("owner/name", **{**hub.environ, **proxy, "HF_ENDPOINT": "http://hub.invalid"})
    assert done.code == 0, done.stderr
    assert done.files == FILES


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path = tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *(
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
                str(tmp_path / "key.pem"),
                "-out",
                str(path),
            ),
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture
def secure(hub: Any, web_handler: Any, certificate: Path) -> Iterator[str]:
    """The hub's address over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), web_handler(hub.web))
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_of_the_network_serve_all_requests(
    hub: Any, load: Any, secure: str, certificate: Path, variable: str
) -> None:
    hub.commit(FILES)
    for _, headers in hub.web.answers.values():
        headers["Location"] = headers["Location"].replace(hub.endpoint, secure)
    done = load("owner/name", **{**hub.environ, "HF_ENDPOINT": secure, variable: str(certificate)})
    assert done.code == 0, done.stderr
    assert done.files == FILES


def test_a_certificate_that_nobody_vouches_for_is_refused(hub: Any, load: Any, secure: str) -> None:
    hub.commit(FILES)
    done = load("owner/name", "--attempts", "2", **{**hub.environ, "HF_ENDPOINT": secure})
    assert (done.code, done.message["error"]) == (69, "SourceUnavailableError")
    assert "SSL_CERT_FILE" in done.message["hint"]
