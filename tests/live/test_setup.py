"""What the live tests rely on.

`dev/servers`, the rule for servers that are not installed, and the programs that make the models.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from live.models import made

ROOT = Path(__file__).parents[2]
NEITHER = {"INFERENCE_REQUIRE_LIVE": "", "INFERENCE_TEST_VLLM": "", "INFERENCE_TEST_OLLAMA": ""}
REQUIRED = {**NEITHER, "INFERENCE_REQUIRE_LIVE": "1"}
WITH_VLLM = {**REQUIRED, "INFERENCE_TEST_VLLM": "1"}
WITH_OLLAMA = {**REQUIRED, "INFERENCE_TEST_OLLAMA": "1"}


def install(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "dev" / "servers"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_servers_says_how_it_is_used() -> None:
    done = install("--help")
    assert done.returncode == 0
    assert "usage: dev/servers [--help] [name …]" in done.stdout
    assert done.stderr == ""


def test_servers_refuses_a_name_that_it_does_not_know() -> None:
    done = install("llamacpp", "nonsense")
    assert done.returncode == 64
    assert done.stdout == ""
    assert "usage: dev/servers" in done.stderr


@pytest.mark.parametrize(
    ("name", "environ", "outcome"),
    [
        ("triton", NEITHER, pytest.skip.Exception),
        ("triton", REQUIRED, pytest.fail.Exception),
        ("vllm", REQUIRED, pytest.skip.Exception),
        ("vllm", WITH_VLLM, pytest.fail.Exception),
        ("vllm", WITH_OLLAMA, pytest.skip.Exception),
        ("ollama", REQUIRED, pytest.skip.Exception),
        ("ollama", WITH_OLLAMA, pytest.fail.Exception),
    ],
)
def test_a_missing_server_skips_or_fails_and_says_how_to_get_it(
    no_servers: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    environ: dict[str, str],
    outcome: Any,
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(outcome, match=f"{name} is not installed .*; to get it: dev/servers {name}"):
        no_servers.environment(name)


def test_a_server_that_this_platform_lacks_skips_where_it_is_required(
    no_servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_REQUIRE_LIVE", "1")
    (no_servers.directory / "triton.obstacle").write_text("there is no wheel\n")
    with pytest.raises(
        pytest.skip.Exception, match="triton is not to be had here: there is no wheel"
    ):
        no_servers.environment("triton")


def test_a_model_is_made_once(tmp_path: Path) -> None:
    first = made(Path(sys.executable), "triton-repository", cache=tmp_path)
    config = first / "affine" / "config.pbtxt"
    when = config.stat().st_mtime_ns
    assert made(Path(sys.executable), "triton-repository", cache=tmp_path) == first
    assert config.stat().st_mtime_ns == when
    assert [entry.name for entry in tmp_path.iterdir()] == [first.name]


def test_a_maker_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="--step"):
        made(Path(sys.executable), "adapter", cache=tmp_path)
    assert list(tmp_path.glob("inference-pod-*")) == []


@pytest.mark.live
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", ()),
        ("llama-gguf", ()),
        ("adapter", ("--step=-1",)),
        ("adapter-gguf", ("--step=2",)),
    ],
)
def test_models_are_the_same_whenever_they_are_made(
    servers: Any, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    kept = servers.model("llamacpp", kind, *options)
    again = made(servers.environment("llamacpp") / "bin" / "python", kind, *options, cache=tmp_path)
    assert again.name == kept.name
    assert contents(again) == contents(kept)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }
