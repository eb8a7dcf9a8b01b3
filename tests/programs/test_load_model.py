"""The model loader as a process: what it publishes, and how it waits and ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from patience import patient, wait_for

pytest.importorskip("huggingface_hub")


def safetensors(size: int = 1000, seed: int = 0) -> bytes:
    """Return a file of one tensor of `size` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    block = hashlib.sha256(str(seed).encode()).digest()
    return struct.pack("<Q", len(header)) + header + (block * (size // 32 + 1))[:size]


FILES = {
    "config.json": b'{"architectures": ["Tiny"]}',
    "empty.txt": b"",
    "model.safetensors": safetensors(),
    "sub/tokenizer.json": b"{}",
}


def rss(pid: int) -> int:
    line = next(
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return int(line.split()[1]) * 1024


def is_waiting(pid: int) -> bool:
    return b"-I\0-S\0-c\0" in Path(f"/proc/{pid}/cmdline").read_bytes()


# What is published


def test_a_repository_is_published_with_its_description(hub: Any, load: Any) -> None:
    sha = hub.commit(FILES)
    done = load("owner/name", **hub.environ)
    assert done.code == 0, done.stderr
    assert done.files == FILES
    metadata = done.metadata
    assert metadata["model_id"] == "owner/name"
    assert (metadata["source"], metadata["ref"], metadata["revision"]) == (
        "hf://owner/name",
        "main",
        sha,
    )
    assert metadata["bytes"] == sum(map(len, FILES.values()))
    assert {f["path"]: f["size"] for f in metadata["files"]} == {
        path: len(data) for path, data in FILES.items()
    }
    digests = {f["path"]: f["digest"] for f in metadata["files"]}
    assert (
        digests["model.safetensors"]
        == f"sha256:{hashlib.sha256(FILES['model.safetensors']).hexdigest()}"
    )
    assert set(metadata["seconds"]) == {"resolve", "download", "verify", "publish"}


def test_everybody_may_read_what_is_published_whatever_the_umask(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    hub.commit(FILES)
    assert load("owner/name", **hub.environ).code == 0
    current = (tmp_path / "models" / "current").resolve()
    above = [path for path in current.parents if tmp_path in path.parents]
    for path in [current, *current.rglob("*"), *above, tmp_path / "models"]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path
    for name in (".ready", "metadata.json"):
        assert stat.S_IMODE((tmp_path / "models" / name).stat().st_mode) == 0o644


def test_a_tag_and_a_commit_can_be_named(hub: Any, load: Any) -> None:
    first = hub.commit(FILES, ref="v1")
    hub.commit({"config.json": b"other"})
    assert load("hf://owner/name@v1", **hub.environ).metadata["revision"] == first
    assert load("owner/name", "--revision", first, **hub.environ).files == FILES


def test_patterns_choose_files(hub: Any, load: Any) -> None:
    hub.commit({**FILES, "pytorch_model.bin": b"x"})
    done = load(
        "owner/name",
        "--include",
        "*.json",
        "--include",
        "*.bin",
        "--exclude",
        "sub/",
        **hub.environ,
    )
    assert set(done.files) == {"config.json", "pytorch_model.bin"}


def test_the_link_is_relative_where_the_cache_is_below_it(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    hub.commit(FILES)
    assert (
        load("owner/name", "--cache", str(tmp_path / "models" / "cache"), **hub.environ).files
        == FILES
    )
    assert not (tmp_path / "models" / "current").readlink().is_absolute()


def test_the_token_goes_to_the_hub_and_not_to_the_storage_behind_it(hub: Any, load: Any) -> None:
    hub.commit(FILES)
    location = hub.web.answers
    for _, headers in location.values():  # another host than the hub, as far as a client can tell
        headers["Location"] = headers["Location"].replace("127.0.0.1", "localhost")
    assert load("owner/name", HF_TOKEN="hf_secret", **hub.environ).files == FILES
    sent = dict(zip([path for path, _ in hub.web.requests], hub.web.tokens, strict=True))
    assert {token for path, token in sent.items() if path.startswith("cdn/")} == {""}
    assert {token for path, token in sent.items() if not path.startswith("cdn/")} == {
        "Bearer hf_secret"
    }


def test_files_of_a_directory_are_published(load: Any, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "model.gguf").write_bytes(b"weights")
    done = load(str(tmp_path / "given"))
    assert done.files == {"model.gguf": b"weights"}
    assert done.metadata["files"][0]["digest"] == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"


def test_objects_of_a_store_are_published(s3: Any, load: Any) -> None:
    for path, data in FILES.items():
        s3.put(f"models/tiny/{path}", data)
    done = load("s3://bucket/models/tiny", **s3.environ)
    assert done.code == 0, done.stderr
    assert done.files == FILES
    assert (
        load("s3://bucket/models/tiny/", "--revision", done.metadata["revision"]).files == FILES
    )  # no store needed
    s3.put("models/tiny/config.json", b"other")
    assert load("s3://bucket/models/tiny", **s3.environ).files["config.json"] == b"other"


def test_a_single_object_is_a_model(s3: Any, load: Any) -> None:
    uri = s3.put("single/tiny.gguf", b"weights")
    assert load(uri, **s3.environ).files == {"tiny.gguf": b"weights"}


def test_an_input_of_the_task_is_published_as_soon_as_it_is_there(
    load: Any, tmp_path: Path
) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "config.json").write_bytes(b"{}")
    inputs = tmp_path / "inputs.json"
    process = load.start("input:model", "--once", INFERENCE_INPUTS=str(inputs))
    time.sleep(0.5)
    assert process.poll() is None
    inputs.with_suffix(".new").write_text(json.dumps({"model": str(tmp_path / "given")}))
    inputs.with_suffix(".new").rename(inputs)
    assert load.wait(process).files == {"config.json": b"{}"}


def test_an_input_that_is_not_there_is_named(load: Any, tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text('{"prompt": "x"}')
    done = load("input:model", INFERENCE_INPUTS=str(tmp_path / "inputs.json"))
    assert (done.code, done.message["hint"]) == (66, "They have 'prompt'.")


# Adapters


ADAPTER = {
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": safetensors(64),
    "adapter_model.bin": b"the same for older readers",
    "README.md": b"long",
}


def test_adapters_of_one_base_name_do_not_collide(hub: Any, load: Any, tmp_path: Path) -> None:
    hub.commit(FILES)
    hub.commit(ADAPTER, repository="alice/sql")
    sha = hub.commit(
        {"adapter_config.json": b"{}", "adapter_model.bin": b"w"}, repository="bob/sql", ref="v2"
    )
    done = load(
        *("owner/name", "--adapters-directory", str(tmp_path / "loras")),
        *("--adapter", "alice/sql", "--adapter", "bob/sql@v2", "--adapter", "named=bob/sql@v2"),
        **hub.environ,
    )
    assert done.code == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "loras").iterdir()) == [
        "alice--sql",
        "bob--sql",
        "named",
    ]
    found = tmp_path / "loras" / "alice--sql"
    assert sorted(path.name for path in found.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (tmp_path / "loras" / "named" / "adapter_model.bin").read_bytes() == b"w"
    assert done.metadata["adapters"]["named"]["revision"] == sha
    assert done.files == FILES


def test_adapters_can_come_without_a_model(hub: Any, load: Any, tmp_path: Path) -> None:
    hub.commit(ADAPTER)
    done = load(
        "--adapters-directory", str(tmp_path / "loras"), "--adapter", "a=owner/name", **hub.environ
    )
    assert done.code == 0, done.stderr
    assert not (tmp_path / "models" / "current").exists()
    assert list(done.metadata["adapters"]) == ["a"]


def test_a_repository_without_an_adapter_is_an_error(hub: Any, load: Any, tmp_path: Path) -> None:
    hub.commit({"adapter_config.json": b"{}", "README.md": b""})
    done = load(
        "--adapters-directory", str(tmp_path / "loras"), "--adapter", "owner/name", **hub.environ
    )
    assert (done.code, done.message["error"]) == (66, "InvalidSourceError")
    assert "adapter_model.safetensors or adapter_model.bin" in done.message["message"]


def test_two_adapters_of_one_name_are_an_error(load: Any, tmp_path: Path) -> None:
    done = load("--adapters-directory", str(tmp_path), "--adapter", "a=x/y", "--adapter", "a=x/z")
    assert done.code == 64


# The cache


def test_a_pinned_revision_starts_from_the_cache_without_network(hub: Any, load: Any) -> None:
    sha = hub.commit(FILES)
    assert load(f"owner/name@{sha}", **hub.environ).code == 0
    asked = len(hub.web.requests)
    begun = time.monotonic()
    done = load(f"owner/name@{sha}", **hub.environ)
    assert (done.files, done.metadata["is_from_cache"]) == (FILES, True)
    assert len(hub.web.requests) == asked
    # the measure itself is dev/bench/model_download.py
    assert time.monotonic() - begun < patient(5)


def test_a_branch_starts_from_the_cache_when_the_hub_is_away(hub: Any, load: Any) -> None:
    hub.commit(FILES)
    assert load("owner/name", **hub.environ).code == 0
    done = load("owner/name", **{**hub.environ, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.code == 0, done.stderr
    assert done.files == FILES
    assert "offline" in done.stderr


def test_a_file_that_was_cut_in_the_cache_is_fetched_again(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    hub.commit(FILES)
    load("owner/name", **hub.environ)
    (tmp_path / "models" / "current" / "model.safetensors").write_bytes(b"")
    assert load("owner/name", **hub.environ).files == FILES


def test_a_version_that_may_have_lost_bytes_in_a_crash_is_read_again(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    hub.commit(FILES)
    load("owner/name", **hub.environ)
    version = (tmp_path / "models" / "current").resolve().parent
    manifest = json.loads((version / "manifest.json").read_text())
    (version / "manifest.json").write_text(json.dumps({**manifest, "boot": "another"}))
    (version / "synced").unlink()
    weights = version / "files" / "model.safetensors"
    weights.write_bytes(bytes(len(FILES["model.safetensors"])))
    done = load("owner/name", **hub.environ)
    assert done.files == FILES
    assert "damaged" in done.stderr


# Waiting and ending


def test_it_waits_in_little_memory_and_ends_at_once(hub: Any, load: Any, tmp_path: Path) -> None:
    hub.commit(FILES)
    with (tmp_path / "log").open("w") as log:
        process = load.start("owner/name", stderr=log, **hub.environ)
    wait_for(lambda: is_waiting(process.pid))
    wait_for(lambda: rss(process.pid) > 4 * 2**20)
    time.sleep(0.3)
    assert rss(process.pid) <= 20 * 2**20
    version = (tmp_path / "models" / "current").resolve().parent
    assert len(list((version / "leases").iterdir())) == 1
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(patient(10)) == 143
    assert time.monotonic() - begun < patient(1)
    assert list((version / "leases").iterdir()) == []


def test_it_ends_at_once_in_the_middle_of_a_download(hub: Any, load: Any, tmp_path: Path) -> None:
    files = {"model.bin": os.urandom(200_000)}
    hub.commit(files)
    hub.web.faults[hub.stored(files["model.bin"])] = ["stall"]
    process = load.start("owner/name", **hub.environ)
    wait_for(lambda: hub.web.count(hub.stored(files["model.bin"])))
    time.sleep(0.2)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(patient(10)) == 143
    assert time.monotonic() - begun < patient(1)
    assert not (tmp_path / "models" / ".ready").exists()
    assert not (tmp_path / "models" / "current").exists()
    assert load("owner/name", **hub.environ).files == files  # nobody's lease is in the way


def test_help_explains_the_sources() -> None:
    command = [sys.executable, "-m", "flytekitplugins.inference.programs.load_model", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "models:/name@alias" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["not a source"],
        ["a/b", "--cache-limit", "20GB"],
        ["a/b", "--notify", "x=http://y"],
        ["--adapter", "a/b"],
    ],
)
def test_wrong_arguments_are_an_error(load: Any, arguments: list[str]) -> None:
    assert load(*arguments).code == 64


def test_its_error_is_left_for_whoever_waits_for_the_model(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    hub.refuse("api/models/owner/name/revision/main", 403, "GatedRepo")
    done = load("owner/name", **hub.environ)
    assert json.loads((tmp_path / "models" / "error.json").read_text()) == done.message
    hub.web.answers.clear()
    hub.commit(FILES)
    assert load("owner/name", **hub.environ).files == FILES
    assert not (tmp_path / "models" / "error.json").exists()


def test_the_first_process_of_a_container_hears_sigterm_while_it_waits(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    """The kernel drops signals for process 1 that it neither handles nor blocks."""
    hub.commit(FILES)
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespaces can be made here")
    places = ["--publish", str(tmp_path / "models"), "--cache", str(tmp_path / "cache")]
    command = [
        sys.executable,
        "-m",
        "flytekitplugins.inference.programs.load_model",
        "owner/name",
        *places,
    ]
    process = subprocess.Popen(
        [*unshare, *command], env={**os.environ, **hub.environ}, stderr=subprocess.DEVNULL
    )
    wait_for((tmp_path / "models" / ".ready").exists)
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    wait_for(lambda: is_waiting(child))
    begun = time.monotonic()
    os.kill(child, signal.SIGTERM)
    assert process.wait(patient(10)) == 143
    assert time.monotonic() - begun < patient(1)
