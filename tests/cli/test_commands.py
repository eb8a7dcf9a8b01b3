"""The command line, as a process or as the function behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flytekitplugins.inference import installed_servers
from flytekitplugins.inference.cli.commands import main

HERE = Path(__file__).parent
FLOWS = str(HERE / "flows.py")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return exit code, output and error output of the command line."""
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    _, out, _ = run(capsys, *words, "--json")
    return json.loads(out)


@pytest.mark.parametrize("command", [["-m", "flytekitplugins.inference"], None])
def test_it_runs_as_a_module_and_as_a_script(command: list[str] | None) -> None:
    script = [str(Path(sys.executable).parent / "flyte-inference")]
    words = [sys.executable, *command] if command else script
    done = subprocess.run(
        [*words, "show", "flows:explicit", "--json"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "Pod"


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for word in ("show", "check", "images", "Exit codes", "64", "69", "70", "78"):
        assert word in out
    for command in ("show", "check", "images"):
        code, out, _ = run(capsys, command, "--help")
        assert code == 0
        assert "--json" in out


# Targets


@pytest.mark.parametrize(
    ("name", "containers"),
    [
        ("llm", ["input-downloader", "model-server", "primary"]),
        ("explicit", ["input-downloader", "model-server", "primary"]),
        ("servers", ["model-server-a", "model-server-b", "primary"]),
        ("servers.b", ["model-server", "primary"]),
        ("hub", ["preflight", "model-loader", "model-server", "server-gate", "primary"]),
        ("configured", ["preflight", "model-loader", "model-server", "server-gate", "primary"]),
    ],
)
def test_targets(capsys: pytest.CaptureFixture[str], name: str, containers: list[str]) -> None:
    spec = as_json(capsys, "show", f"{FLOWS}:{name}")["spec"]
    names = [one["name"] for one in (*spec["initContainers"], *spec["containers"])]
    if name == "servers.b":  # it has its name from the pod
        names = [one.removesuffix("-b") for one in names]
    assert names == containers


@pytest.mark.parametrize(
    ("target", "code", "parts"),
    [
        (f"{FLOWS}:nothing", 64, ["no 'nothing'", "It has configured, explicit, hub, llm"]),
        (f"{FLOWS}:number", 64, ["is a int, neither a template nor a task"]),
        (f"{FLOWS}:plain", 64, ["neither a template nor a task"]),
        (f"{FLOWS}:servers.c", 64, ["no 'servers.c'"]),
        (FLOWS, 64, ["has 6 templates and tasks", "configured"]),
        ("no_such_module:x", 64, ["no module 'no_such_module'"]),
        ("a.b.c:x", 64, ["no module 'a.b.c'"]),
        ("no_such_file.py:x", 64, ["no file 'no_such_file.py'"]),
        ("", 64, ["no module ''"]),
        ("json:x", 64, ["json has no 'x'", "no template"]),
        ("json", 64, ["json has no template"]),
    ],
)
def test_a_wrong_target_says_what_there_is(
    capsys: pytest.CaptureFixture[str], target: str, code: int, parts: list[str]
) -> None:
    got, out, err = run(capsys, "show", target)
    assert got == code
    assert out == ""
    assert all(part in err for part in parts), err


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("raise RuntimeError('boom')", ["cannot be imported: RuntimeError: boom"]),
        (
            "from flytekitplugins.inference import VLLM\nVLLM(mem='1')",
            ["VLLM(…) has a problem", "mem='1'"],
        ),
    ],
)
def test_a_module_that_cannot_be_imported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, parts: list[str]
) -> None:
    path = tmp_path / f"broken_{len(text)}.py"
    path.write_text(text)
    code, _, err = run(capsys, "show", f"{path}:x")
    assert code == 78
    assert all(part in err for part in parts), err


@pytest.mark.parametrize("words", [["nonsense"], ["show"], ["check", "x:y", "--pod-security", "z"]])
def test_wrong_use_ends_with_64(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, _, err = run(capsys, *words)
    assert code == 64
    assert "Usage" in err


# show


@pytest.mark.parametrize("name", ["llm", "hub", "servers"])
def test_the_page_is_the_pod_with_a_comment_for_each_container(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _, page, _ = run(capsys, "show", f"{FLOWS}:{name}", "--full")
    manifest = as_json(capsys, "show", f"{FLOWS}:{name}")
    assert yaml.safe_load(page) == {key: value for key, value in manifest.items() if value}
    lines = page.splitlines()
    spec = manifest["spec"]
    for container in (*spec["initContainers"], *spec["containers"]):
        assert "From base=" not in lines[lines.index(f"    - name: {container['name']}") - 1]
        assert lines[lines.index(f"    - name: {container['name']}") - 1].startswith("    # ")


def test_programs_that_travel_in_the_pod_are_named_by_their_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, page, _ = run(capsys, "show", f"{FLOWS}:llm")
    assert "bytes of programs" in page
    assert max(map(len, page.splitlines())) < 200
    _, full, _ = run(capsys, "show", f"{FLOWS}:llm", "--full")
    assert "bytes of programs" not in full


def test_a_container_of_base_is_called_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "with_base.py"
    path.write_text(
        "from flytekitplugins.inference import ModelInferenceTemplate\n"
        "base = {'spec': {'containers': [{'name': 'primary'}, {'name': 'mine', 'image': 'a'}]}}\n"
        "t = ModelInferenceTemplate(image='a/b:1', base=base)\n"
    )
    _, page, _ = run(capsys, "show", str(path))
    assert "    # From base=.\n    - name: mine" in page


# check


def test_a_good_pod(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", f"{FLOWS}:llm")
    assert code == 0
    assert "ok lint:" in out
    assert "level baseline" in out
    assert "without the task's own container: 4 cpu, 16Gi memory, 1 nvidia.com/gpu" in out
    assert "kubectl create secret generic huggingface --from-literal=token=…" in out
    assert "image of model-server: vllm/vllm-openai:" in out


def test_the_pod_of_a_task_counts_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    fields = as_json(capsys, "check", f"{FLOWS}:explicit")
    assert fields["requests"] == {"cpu": "7", "memory": "18Gi", "nvidia.com/gpu": "1"}
    texts = [one["text"] for one in fields["findings"] if one["check"] == "qos"]
    assert texts[0].startswith("Quality of service Guaranteed")


@pytest.mark.parametrize(
    ("level", "name", "code"),
    [
        ("privileged", "rooted", 0),
        ("baseline", "rooted", 1),
        ("baseline", "llm", 0),
        ("restricted", "llm", 1),
    ],
)
def test_a_pod_below_the_required_level_is_a_problem(
    capsys: pytest.CaptureFixture[str], level: str, name: str, code: int
) -> None:
    got, out, _ = run(capsys, "check", f"{FLOWS}:{name}", "--pod-security", level)
    assert got == code
    assert ("✗ pod security" in out) is bool(code)


def test_json_has_everything_that_the_text_has(capsys: pytest.CaptureFixture[str]) -> None:
    fields = as_json(capsys, "check", f"{FLOWS}:rooted")
    assert fields["problems"] == 2
    assert {one["status"] for one in fields["findings"]} <= {"ok", "note", "warning", "problem"}
    assert fields["images"] == {"model-server": "org/server:1"}
    assert fields["secrets"] == []


def test_a_model_of_this_machine_is_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "with_local_model.py"
    path.write_text(
        "from flytekitplugins.inference import LlamaCpp\n"
        "t = LlamaCpp(model='file:///data/model.gguf', gpu=0)\n"
    )
    code, out, _ = run(capsys, "check", str(path))
    assert code == 0
    assert "! model: The model" in out
    assert "/data/model.gguf" in out


# images


def test_images_are_those_of_all_servers_and_helpers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFERENCE_IMAGE_REGISTRY", raising=False)
    entries = as_json(capsys, "images")
    kinds = {kind.__name__ for kind in installed_servers().values()}
    assert kinds | {"helpers", "adapters"} == {entry["server"] for entry in entries}
    for entry in entries:
        assert entry["mirror"] == entry["image"]
        assert entry["image"].endswith(f":{entry['tag']}")
        assert entry["source"]
    _, out, _ = run(capsys, "images")
    assert all(entry["image"] in out for entry in entries)


def test_images_name_what_a_mirror_must_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_IMAGE_REGISTRY", "m.example.com/p")
    assert all(
        entry["mirror"].startswith("m.example.com/p/") for entry in as_json(capsys, "images")
    )
    monkeypatch.setenv("INFERENCE_IMAGE_REGISTRY", "https://m")
    code, _, err = run(capsys, "images")
    assert code == 78
    assert "INFERENCE_IMAGE_REGISTRY" in err


def test_a_bug_is_not_the_exit_code_of_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "with_bug.py"
    path.write_text(
        "from flytekitplugins.inference import ModelInferenceTemplate\n"
        "class Odd(ModelInferenceTemplate):\n"
        "    def compile(self, *a, **k):\n"
        "        if a and a[0].image != 'helper': raise ZeroDivisionError\n"
        "        return super().compile(*a, **k)\n"
        "t = Odd(image='a/b:1')\n"
    )
    code, _, err = run(capsys, "check", str(path))
    assert code == 70
    assert "ZeroDivisionError" in err


def test_the_root_package_does_not_bring_the_command_line() -> None:
    code = "import sys, flytekitplugins.inference as i; i.VLLM; print('click' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "False"
