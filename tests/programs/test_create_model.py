"""`create_model` as a process against a stand-in for Ollama, `users/ollama_stand_in.py`.

The stand-in answers by the facts of v0.33.3, refuses what that would, and fails when it is told to;
the real one is `tests/live/test_ollama.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.programs.kernel import boot_id
from patience import patient, wait_for
from termination import failure
from users.ollama_stand_in import StandIn, listen

GGUF = b"GGUF" + bytes(range(200))
SHA = f"sha256:{hashlib.sha256(GGUF).hexdigest()}"


@dataclass
class Ended:
    code: int
    stderr: str
    root: Path

    @property
    def message(self) -> dict[str, Any]:
        return failure(self.root, self.stderr)

    @property
    def failure(self) -> tuple[int, str]:
        return self.code, self.message["error"]


@dataclass
class Creator:
    """Runs the program in a directory of its own."""

    root: Path
    url: str

    def start(self, *arguments: str, url: str = "", **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "flytekitplugins.inference.programs.create_model",
                    url or self.url,
                ),
                *("--attempts", "3", "--backoff", "0.01", *arguments),
            ],
            env={
                "PATH": os.environ["PATH"],
                "INFERENCE_TERMINATION_LOG": str(self.root / "termination-log"),
                **environ,
            },
            cwd=self.root,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self, process: subprocess.Popen[str]) -> Ended:
        _, stderr = process.communicate(timeout=patient(50))
        return Ended(process.returncode, stderr, self.root)

    def __call__(self, *arguments: str, **environ: str) -> Ended:
        return self.wait(self.start(*arguments, **environ))

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


@pytest.fixture
def ollama() -> Iterator[StandIn]:
    state = StandIn()
    server = listen(state, ("127.0.0.1", 0))
    yield state
    state.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def create(ollama: StandIn, tmp_path: Path) -> Creator:
    return Creator(tmp_path, ollama.url)


# Pulling


def test_a_model_is_pulled_and_loaded(ollama: StandIn, create: Creator) -> None:
    done = create("--name", "llama3.2")
    assert done.code == 0, done.stderr
    assert ollama.asked("/api/pull") == [{"model": "llama3.2:latest"}]
    assert ollama.asked("/api/generate") == [
        {"model": "llama3.2:latest", "keep_alive": -1, "stream": False}
    ]
    assert "pulled model=llama3.2:latest mb=8" in done.stderr
    assert "ready model=llama3.2:latest" in done.stderr
    assert "on_gpu=25%" in done.stderr
    assert not ollama.asked("/api/create")


def test_a_model_that_is_there_is_not_pulled_again(ollama: StandIn, create: Creator) -> None:
    ollama.models["Llama3.2:latest"] = {}  # Ollama's names do not tell upper from lower case
    ollama.models["llama3.2:latest"] = {}
    ollama.registry.clear()
    done = create("--name", "llama3.2")
    assert done.code == 0, done.stderr
    assert not ollama.asked("/api/pull")


def test_a_model_for_embeddings_is_loaded_by_an_empty_embedding(
    ollama: StandIn, create: Creator
) -> None:
    assert create("--name", "nomic-embed-text").code == 0
    assert ollama.asked("/api/embed") == [
        {"model": "nomic-embed-text:latest", "keep_alive": -1, "input": []}
    ]


@pytest.mark.parametrize("fault", ["cut", "half line", "end", "error max retries exceeded: EOF"])
def test_a_pull_that_breaks_off_is_tried_again(
    ollama: StandIn, create: Creator, fault: str
) -> None:
    ollama.faults["/api/pull"] = [fault]
    done = create("--name", "llama3.2")
    assert done.code == 0, done.stderr
    assert len(ollama.asked("/api/pull")) == 2
    assert "pulling failed, trying again" in done.stderr


@pytest.mark.parametrize("fault", ["stall", "silence"])
def test_a_pull_that_stands_still_is_tried_again(
    ollama: StandIn, create: Creator, fault: str
) -> None:
    """Ollama repeats the last line of a stalled download; a dead connection says nothing."""
    ollama.faults["/api/pull"] = [fault]
    done = create("--name", "llama3.2", "--stall-timeout", "0.5")
    assert done.code == 0, done.stderr
    assert len(ollama.asked("/api/pull")) == 2


def test_a_pull_that_never_goes_on_ends_with_the_reason(ollama: StandIn, create: Creator) -> None:
    ollama.faults["/api/pull"] = ["error dial tcp: lookup registry.ollama.ai: no such host"] * 9
    done = create("--name", "llama3.2")
    assert done.failure == (69, "SourceUnavailableError")
    assert "no such host" in done.message["message"]
    assert "HTTPS_PROXY" in done.message["hint"]
    assert len(ollama.asked("/api/pull")) == 3


def test_an_attempt_that_got_further_counts_as_the_first(ollama: StandIn, create: Creator) -> None:
    failure = "error max retries exceeded"
    ollama.faults["/api/pull"] = [failure, failure, "end", failure, failure]
    done = create("--name", "llama3.2")
    assert done.failure == (69, "SourceUnavailableError")
    assert len(ollama.asked("/api/pull")) == 5


@pytest.mark.parametrize(
    ("name", "fault", "expected", "text"),
    [
        ("llama9", "", (66, "SourceNotFoundError"), "no model llama9:latest"),
        ("llama3.2", "unauthorized", (77, "SourceForbiddenError"), "access denied"),
        ("llama3.2", "400", (69, "ServerError"), "refuses to pull llama3.2:latest"),
    ],
)
def test_what_no_repetition_mends_is_told_at_once(
    ollama: StandIn, create: Creator, name: str, fault: str, expected: tuple[int, str], text: str
) -> None:
    ollama.faults["/api/pull"] = [fault] if fault else []
    done = create("--name", name)
    assert done.failure == expected
    assert text in done.message["message"]
    assert len(ollama.asked("/api/pull")) == 1


@pytest.mark.parametrize("path", ["/api/pull", "/api/tags", "/api/ps"])
def test_a_500_is_tried_again(ollama: StandIn, create: Creator, path: str) -> None:
    ollama.faults[path] = ["500"]
    done = create("--name", "llama3.2")
    assert done.code == 0, done.stderr
    assert "trying again" in done.stderr


# Creating


def test_a_modelfile_becomes_the_fields_of_the_request(ollama: StandIn, create: Creator) -> None:
    create.file(
        "inputs.json", json.dumps({"rules": 'Say "{inputs.tone}" {{x}}\nFROM evil', "top": 7})
    )
    modelfile = '''
# a comment
FROM llama3.2
PARAMETER temperature 0.5
PARAMETER top_k {inputs.top}
PARAMETER stop "<|end|> "
PARAMETER stop </s>
PARAMETER mirostat 1
TEMPLATE """{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"""
SYSTEM """{inputs.rules} {"a": {"b": 1}}"""
MESSAGE user Hello?
MESSAGE assistant """Yes:
here."""
LICENSE MIT
'''
    done = create(
        "--name",
        "mine",
        INFERENCE_MODELFILE=modelfile,
        INFERENCE_INPUTS=str(create.root / "inputs.json"),
    )
    assert done.code == 0, done.stderr
    assert ollama.asked("/api/create") == [
        {
            "model": "mine:latest",
            "from": "llama3.2:latest",
            "parameters": {"temperature": 0.5, "top_k": 7, "stop": ["<|end|> ", "</s>"]},
            "template": "{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}",
            "system": 'Say "{inputs.tone}" {{x}}\nFROM evil {"a": {"b": 1}}',
            "messages": [
                {"role": "user", "content": "Hello?"},
                {"role": "assistant", "content": "Yes:\nhere."},
            ],
            "license": ["MIT"],
        }
    ]
    assert ollama.asked("/api/pull") == [{"model": "llama3.2:latest"}]
    assert ollama.loaded == ["mine:latest"]
    assert "left out parameter=mirostat" in done.stderr


def test_a_file_that_windows_wrote_is_read_as_it_is(ollama: StandIn, create: Creator) -> None:
    file = create.file("Modelfile", 'FROM llama3.2\r\nSYSTEM """hé\r\n"""\r\n'.encode("utf-16"))
    done = create("--name", "mine", "--modelfile", str(file))
    assert done.code == 0, done.stderr
    assert ollama.asked("/api/create")[0]["system"] == "hé\r\n"


def test_files_are_given_as_blobs_once(ollama: StandIn, create: Creator) -> None:
    model, adapter = create.file("m.gguf", GGUF), create.file("in/adapter.gguf", GGUF + b"2")
    create.file("inputs.json", json.dumps({"adapter": str(adapter)}))
    text = f"FROM {model}\nADAPTER {{inputs.adapter}}\n"
    environ = {"INFERENCE_MODELFILE": text, "INFERENCE_INPUTS": str(create.root / "inputs.json")}
    for _ in range(2):
        done = create("--name", "mine", **environ)
        assert done.code == 0, done.stderr
    digest = f"sha256:{hashlib.sha256(GGUF + b'2').hexdigest()}"
    assert ollama.models["mine:latest"] == {
        "model": "mine:latest",
        "files": {"m.gguf": SHA},
        "adapters": {"adapter.gguf": digest},
    }
    assert ollama.blobs == {SHA: GGUF, digest: GGUF + b"2"}
    assert sum(method == "POST" and "blobs" in path for method, path, _ in ollama.requests) == 2


def test_a_directory_that_the_loader_brought_is_the_source(
    ollama: StandIn, create: Creator
) -> None:
    create.file("v1/model-Q4_K_M.gguf", GGUF)
    create.file("v1/mmproj-f16.gguf", GGUF)
    create.file("v1/README.md", b"hello")
    (create.root / "current").symlink_to("v1")
    done = create("--name", "org/mine", "--source", str(create.root / "current"))
    assert done.code == 0, done.stderr
    files = {"model-Q4_K_M.gguf": SHA, "mmproj-f16.gguf": SHA}
    assert ollama.asked("/api/create") == [{"model": "org/mine:latest", "files": files}]


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("m", "FROM .", {"files": {"m.gguf"}}),
        ("m", "FROM ./", {"files": {"m.gguf"}}),
        (
            "m",
            "FROM ./m.gguf\nADAPTER ./lora/a.gguf",
            {"files": {"m.gguf"}, "adapters": {"a.gguf"}},
        ),
        (
            "m/m.gguf",
            "FROM ./m.gguf\nADAPTER ./lora/a.gguf",
            {"files": {"m.gguf"}, "adapters": {"a.gguf"}},
        ),
        ("m", "ADAPTER ./lora/a.gguf", {"files": {"m.gguf"}, "adapters": {"a.gguf"}}),
        (
            "m",
            "FROM ./m.gguf\nDRAFT ./lora/a.gguf",
            {"files": {"m.gguf"}, "draft_files": {"a.gguf"}},
        ),
        ("m", "FROM llama3.2\nADAPTER ./lora/a.gguf", {"adapters": {"a.gguf"}}),
        (
            "m",
            "FROM llama3.2\nADAPTER ./peft",
            {"adapters": {"adapter_config.json", "adapter_model.safetensors"}},
        ),
        (
            "m",
            "FROM llama3.2\nADAPTER ./peft/adapter_model.safetensors",
            {"adapters": {"adapter_config.json", "adapter_model.safetensors"}},
        ),
    ],
)
def test_relative_paths_begin_at_the_source(
    ollama: StandIn, create: Creator, source: str, text: str, expected: dict[str, set[str]]
) -> None:
    for name in ("m/m.gguf", "m/lora/a.gguf"):
        create.file(name, GGUF + name.encode())
    for name in (
        "m/peft/adapter_model.safetensors",
        "m/peft/adapter_config.json",
        "m/peft/README.md",
    ):
        create.file(name, name)
    done = create("--name", "mine", "--source", str(create.root / source), INFERENCE_MODELFILE=text)
    assert done.code == 0, done.stderr
    (body,) = ollama.asked("/api/create")
    given = {name: set(body[name]) for name in ("files", "adapters", "draft_files") if name in body}
    assert given == expected
    assert ("from" in body) is ("files" not in body)


def test_safetensors_go_with_what_describes_them(ollama: StandIn, create: Creator) -> None:
    for name in (
        "model-1.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "1_Pooling/config.json",
    ):
        create.file(f"m/{name}", name)
    for name in ("README.md", "pytorch_model.bin", "optimizer.safetensors"):
        create.file(f"m/{name}", name)
    done = create("--name", "mine", INFERENCE_MODELFILE=f"FROM {create.root}/m")
    assert done.code == 0, done.stderr
    (body,) = ollama.asked("/api/create")
    expected = {
        "model-1.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "1_Pooling/config.json",
    }
    assert set(body["files"]) == expected


def test_parts_of_one_model_are_one_model(ollama: StandIn, create: Creator) -> None:
    for part in (1, 2):
        create.file(f"m/big-0000{part}-of-00002.gguf", GGUF)
    assert create("--name", "mine", "--source", str(create.root / "m")).code == 0
    assert len(ollama.asked("/api/create")[0]["files"]) == 2


def test_a_gguf_file_may_be_called_bin(ollama: StandIn, create: Creator) -> None:
    create.file("m/model.bin", GGUF)
    create.file("m/other.bin", b"PK")
    assert create("--name", "mine", "--source", str(create.root / "m")).code == 0
    assert ollama.asked("/api/create")[0]["files"] == {"model.bin": SHA}


@pytest.mark.parametrize(
    ("files", "modelfile", "message", "hint"),
    [
        (
            {"m/weights.safetensors": b"x"},
            "",
            "it holds weights.safetensors",
            "model*.safetensors and consolidated*",
        ),
        ({"m/model.pth": b"x"}, "", "it holds model.pth", "such as PyTorch's .bin and .pth"),
        (
            {"m/model.safetensors": b"x"},
            "FROM ./model.safetensors",
            "is a model only together",
            "Name the directory",
        ),
        (
            {"m/a.safetensors": b"x"},
            "FROM x\nADAPTER ./a.safetensors",
            "adapter_config.json, without which",
            "There is",
        ),
        (
            {"m/a.bin": b"x"},
            "FROM x\nADAPTER .",
            "holds no adapter that",
            "*.gguf, adapter*.safetensors;",
        ),
    ],
)
def test_what_is_missing_of_a_model_is_told(
    create: Creator, files: dict[str, bytes], modelfile: str, message: str, hint: str
) -> None:
    for name, content in files.items():
        create.file(name, content)
    environ = {"INFERENCE_MODELFILE": modelfile} if modelfile else {}
    done = create("--name", "mine", "--source", str(create.root / "m"), **environ)
    assert done.code == 66, done.stderr
    assert message in done.message["message"]
    assert hint in done.message["hint"]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, "is not there"),
        ({"m/a-Q4.gguf": GGUF, "m/a-Q8.gguf": GGUF}, "holds 2 models: a-Q4.gguf, a-Q8.gguf"),
        (
            {"m/pytorch_model.bin": b"PK"},
            "holds no model that Ollama can read; it holds pytorch_model.bin",
        ),
        (
            {"m/a.gguf": b"version https://git-lfs.github.com/spec/v1\noid"},
            "is a pointer of Git LFS",
        ),
        ({"m/a.gguf": b"<html>"}, "is neither a GGUF file nor of safetensors"),
    ],
)
def test_files_that_are_no_model_are_told(
    ollama: StandIn, create: Creator, files: dict[str, bytes], text: str
) -> None:
    for name, content in files.items():
        create.file(name, content)
    done = create("--name", "mine", "--source", str(create.root / "m"))
    assert done.code == 66
    assert text in done.message["message"]
    assert not ollama.asked("/api/create")


def test_bytes_that_arrive_wrong_are_sent_again(ollama: StandIn, create: Creator) -> None:
    create.file("m.gguf", GGUF)
    ollama.faults["/api/blobs/"] = ["", "corrupt"]  # the first is the question whether it is there
    done = create("--name", "mine", "--source", str(create.root / "m.gguf"))
    assert done.code == 0, done.stderr
    ollama.blobs.clear()
    ollama.faults["/api/blobs/"] = ["", "corrupt"] * 9
    done = create("--name", "mine", "--source", str(create.root / "m.gguf"))
    assert done.failure == (74, "IntegrityError")
    assert "digest mismatch" in done.message["message"]


def test_a_server_without_space_is_told(ollama: StandIn, create: Creator) -> None:
    create.file("m.gguf", GGUF)
    ollama.faults["/api/blobs/"] = ["", "500"]
    done = create("--name", "mine", "--source", str(create.root / "m.gguf"))
    assert done.failure == (69, "ServerError")
    assert "space" in done.message["hint"]


@pytest.mark.parametrize("fault", ["error unsupported architecture", "400"])
def test_what_cannot_be_created_is_told(ollama: StandIn, create: Creator, fault: str) -> None:
    ollama.faults["/api/create"] = [fault]
    done = create("--name", "mine", INFERENCE_MODELFILE="FROM llama3.2")
    assert done.failure == (69, "ServerError")
    assert "cannot create mine:latest" in done.message["message"]
    assert len(ollama.asked("/api/create")) == 1


def test_a_creation_that_ends_without_success_is_tried_again(
    ollama: StandIn, create: Creator
) -> None:
    ollama.faults["/api/create"] = ["end"]
    assert create("--name", "mine", INFERENCE_MODELFILE="FROM llama3.2").code == 0
    assert len(ollama.asked("/api/create")) == 2


def test_wrong_modelfiles_and_inputs_are_told_with_their_lines(
    ollama: StandIn, create: Creator
) -> None:
    inputs = str(create.file("inputs.json", json.dumps({"a": {"b": 1}, "c": None})))
    text = 'FROM llama3.2\nSYSTEM """x\n{inputs.nope} {inputs.a.z}\n{inputs.c}"""\n'
    done = create("--name", "mine", INFERENCE_MODELFILE=text, INFERENCE_INPUTS=inputs)
    assert done.failure == (78, "ConfigError")
    assert done.message["hint"] == "The task's inputs: a, c."
    for place in (
        "line 3 (SYSTEM): {inputs.nope} is not",
        "line 3 (SYSTEM): {inputs.a.z} has no 'z'",
        "line 4 (SYSTEM)",
    ):
        assert place in done.message["message"]
    done = create("--name", "mine", INFERENCE_MODELFILE="FROM x\nSYSTM hello\n")
    assert done.failure == (78, "ConfigError")
    assert "line 2 begins with 'SYSTM'" in done.message["message"]
    done = create(
        "--name", "mine", INFERENCE_MODELFILE="FROM llama3.2", INFERENCE_INPUTS="/nowhere.json"
    )
    assert done.failure == (78, "ConfigError")
    assert not ollama.requests


# Loading, and what is there in the end


def test_a_model_that_cannot_be_loaded_is_told(ollama: StandIn, create: Creator) -> None:
    ollama.faults["/api/generate"] = ["500"]
    done = create("--name", "llama3.2")
    assert done.failure == (69, "ServerError")
    assert "cannot load llama3.2:latest: a fault" in done.message["message"]
    assert "memory" in done.message["hint"]


def test_a_server_that_dies_while_it_loads_is_told(ollama: StandIn, create: Creator) -> None:
    ollama.faults["/api/generate"] = ["die"]
    done = create("--name", "llama3.2")
    assert done.failure == (69, "ServerExitedError")
    assert "137" in done.message["hint"]


def test_a_model_that_is_missing_afterwards_is_told(ollama: StandIn, create: Creator) -> None:
    ollama.faults["/api/tags"] = ["empty", "empty"]
    done = create("--name", "llama3.2")
    assert done.failure == (69, "ServerError")
    assert "has no llama3.2:latest" in done.message["message"]


def test_a_model_that_was_unloaded_is_told(ollama: StandIn, create: Creator) -> None:
    ollama.faults["/api/ps"] = ["empty"]
    done = create("--name", "llama3.2")
    assert done.failure == (69, "ServerError")
    assert "unloaded llama3.2:latest" in done.message["message"]


# Time and signals


def test_a_server_that_does_not_answer_is_waited_for_within_the_budget(create: Creator) -> None:
    done = create.wait(
        create.start("--name", "llama3.2", "--timeout", "0.5", url="http://127.0.0.1:9")
    )
    assert done.failure == (69, "ServerNotReadyError")
    assert "nothing listens" in done.message["message"]


def test_a_loader_that_failed_for_good_is_told_instead(create: Creator) -> None:
    error = {"error": "SourceNotFoundError", "message": "no such repository", "hint": "spell it"}
    models = create.file(
        "models/error.json", json.dumps({"version": 1, "program": "load_model", **error})
    ).parent
    done = create.wait(
        create.start("--name", "m", "--models", str(models), url="http://127.0.0.1:9")
    )
    assert done.failure == (66, "SourceNotFoundError")
    assert "The model loader failed: no such repository" in done.message["message"]


def test_a_loader_that_has_not_finished_is_named(create: Creator) -> None:
    (create.root / "models").mkdir()
    arguments = ("--name", "m", "--timeout", "0.5", "--models", str(create.root / "models"))
    done = create.wait(create.start(*arguments, url="http://127.0.0.1:9"))
    assert done.failure == (69, "ServerNotReadyError")
    assert "The model loader had not finished." in done.message["message"]


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/api/pull", "stall"),
        ("/api/pull", "silence"),
        ("/api/create", "silence"),
        ("/api/generate", "slow"),
    ],
)
def test_the_budget_holds_for_the_whole(
    ollama: StandIn, create: Creator, path: str, fault: str
) -> None:
    ollama.faults[path] = [fault]
    done = create("--name", "mine", "--timeout", "1", INFERENCE_MODELFILE="FROM llama3.2")
    assert done.failure == (69, "ServerNotReadyError")
    assert "startup_timeout" in done.message["hint"]


@pytest.mark.parametrize(
    ("path", "fault", "doing"),
    [
        ("/api/pull", "silence", "Pulling had not finished"),
        ("/api/generate", "slow", "Loading the model had not finished"),
    ],
)
def test_the_budget_of_the_whole_start_holds(
    ollama: StandIn, create: Creator, path: str, fault: str, doing: str
) -> None:
    """The test sends the alarm, so that it arrives when that is under way."""
    ollama.faults[path] = [fault]
    begun = time.clock_gettime(time.CLOCK_MONOTONIC) - 800
    clock = create.file("start-clock", json.dumps({"boot": boot_id(), "begun": begun}))
    start = json.dumps({"seconds": 900, "clock": str(clock)})
    process = create.start(
        "--name", "mine", INFERENCE_MODELFILE="FROM llama3.2", INFERENCE_START=start
    )
    wait_for(lambda: ollama.asked(path), 30)
    process.send_signal(signal.SIGALRM)
    done = create.wait(process)
    assert done.failure == (69, "ServerNotReadyError")
    assert doing in done.message["message"]
    assert "startup_timeout" in done.message["hint"]


@pytest.mark.parametrize(("path", "fault"), [("/api/pull", "silence"), ("/api/generate", "slow")])
def test_sigterm_ends_it_at_once(ollama: StandIn, create: Creator, path: str, fault: str) -> None:
    ollama.faults[path] = [fault]
    process = create.start("--name", "llama3.2")
    wait_for(lambda: ollama.asked(path), 30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=patient(5)) == 143


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--name", "a b"), "is not a model's name"),
        (("--name", "m", "--timeout", "0"), "above 0"),
        (("--name", "m", "--modelfile", "/nowhere"), "cannot be read"),
        ((), "--name"),
    ],
)
def test_wrong_arguments_are_told(create: Creator, arguments: tuple[str, ...], text: str) -> None:
    done = create(*arguments)
    assert done.failure == (64, "UsageError")
    assert text in done.message["message"]


def test_it_runs_from_the_bundle(ollama: StandIn, tmp_path: Path) -> None:
    """As in an image that lacks the package."""
    from flytekitplugins.inference.pod.bundle import BOOTSTRAP, programs_bundle

    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            BOOTSTRAP,
            "create_model",
            ollama.url,
            "--name",
            "llama3.2",
        ],
        env={"INFERENCE_PROGRAMS": programs_bundle("create_model")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ollama.loaded == ["llama3.2:latest"]
