"""`Ollama` against the real server.

Its pod runs as processes on this machine; `ollama create` reads the Modelfiles.

The server runs models with llama.cpp's own server, as in its image; what is no part of it is the
`llama-quantize` that validates a file (`dev/servers.d/ollama.quantize.py`). Its registry cannot be
reached: what is pulled are errors.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference import Ollama, OllamaModel
from flytekitplugins.inference.ollama.serve import IMAGE
from patience import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flytekitplugins.inference.flyte.local_run import LocalServer

pytestmark = pytest.mark.live

MODELFILE = '''
FROM ./tiny.gguf
PARAMETER num_ctx 512
PARAMETER temperature 0
SYSTEM """{inputs.rules} {"label": …} 👩\u200d💻"""
'''
COUNTED = " three four five six seven eight"


@pytest.fixture(scope="module")
def models(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory like those of repositories.

    It holds a model as GGUF and as safetensors, and adapters that count backwards.
    """
    servers.environment("ollama")
    directory = Path(tmp_path_factory.mktemp("repository"))
    shutil.copy(servers.model("llamacpp", "llama-gguf") / "model.gguf", directory / "tiny.gguf")
    shutil.copytree(servers.model("llamacpp", "llama"), directory / "llama")
    shutil.copytree(servers.model("llamacpp", "adapter", "--step=-1"), directory / "adapter")
    shutil.copy(
        servers.model("llamacpp", "adapter-gguf", "--step=-1") / "adapter.gguf",
        directory / "adapter.gguf",
    )
    return directory


@pytest.fixture(scope="module")
def server(servers: Any, models: Path) -> Iterator[LocalServer]:
    template = Ollama(
        model=OllamaModel("tiny", modelfile=MODELFILE, source=f"file://{models}"),
        startup_timeout=round(patient(30)),
        termination_grace_period=20,
        gpu=0,
        cpu=1,
        mem="1Gi",
    )
    with servers.running("ollama", template, {"rules": "Be kind."}) as running:
        yield running


@dataclass
class Maker:
    """Makes models with `create_model` and with `ollama create`, side by side."""

    url: str
    directory: Path

    def ours(self, modelfile: str) -> subprocess.CompletedProcess[str]:
        program = (sys.executable, "-m", "flytekitplugins.inference.programs.create_model")
        return self._run(
            *(
                *program,
                self.url,
                "--name",
                "ours",
                "--source",
                str(self.directory),
                "--attempts",
                "1",
            ),
            INFERENCE_MODELFILE=modelfile,
        )

    def theirs(self, modelfile: str) -> subprocess.CompletedProcess[str]:
        file = self.directory / "Modelfile"
        file.write_bytes(modelfile.encode())
        return self._run("ollama", "create", "theirs", "-f", str(file))

    def _run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        environ |= {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "OLLAMA_HOST": self.url,
        }
        return subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def shown(self, name: str) -> dict[str, Any]:
        """Return the server's description of a model, without its date and its Modelfile."""
        answer = requests.post(
            f"{self.url}/api/show", json={"model": name}, timeout=patient(10)
        ).json()
        parameters = sorted(
            str(answer.get("parameters", "")).splitlines()
        )  # Go's maps have no order
        fields = (
            "details",
            "license",
            "messages",
            "model_info",
            "parser",
            "renderer",
            "requires",
            "system",
            "template",
        )
        return {"parameters": parameters, **{field: answer.get(field) for field in fields}}

    def unload(self) -> None:
        """Make the server unload every model.

        Of two models with the same weights it lists only the one that was loaded first.
        """
        for model in self.loaded():
            body = {"model": model, "keep_alive": 0}
            requests.post(f"{self.url}/api/generate", json=body, timeout=patient(30))
        end = time.monotonic() + patient(15)
        while self.loaded():
            assert time.monotonic() < end, self.loaded()
            time.sleep(0.02)

    def loaded(self) -> list[str]:
        models = requests.get(f"{self.url}/api/ps", timeout=patient(10)).json()["models"]
        return [model["name"] for model in models]

    def completed(self, name: str) -> str:
        body = {"model": name, "prompt": "one two", "raw": True, "stream": False}
        answer = requests.post(f"{self.url}/api/generate", json=body, timeout=patient(60))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["response"])


@pytest.fixture
def make(server: LocalServer, models: Path, servers: Any) -> Iterator[Maker]:
    maker = Maker(server.base_url, models)
    maker.unload()
    with servers.on_path("ollama"):
        yield maker
    maker.unload()  # a model that is deleted stays loaded
    for name in ("ours", "theirs"):
        requests.delete(f"{server.base_url}/api/delete", json={"model": name}, timeout=patient(10))


def test_it_is_the_version_of_the_image(server: LocalServer) -> None:
    answer = requests.get(f"{server.base_url}/api/version", timeout=patient(10)).json()
    assert answer == {"version": IMAGE.partition(":")[2]}


def test_the_model_is_there_and_loaded_when_the_pod_is_ready(server: LocalServer) -> None:
    loaded = requests.get(f"{server.base_url}/api/ps", timeout=patient(10)).json()["models"]
    assert [(model["name"], model["context_length"]) for model in loaded] == [("tiny:latest", 512)]


def test_a_chat_is_answered(server: LocalServer) -> None:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Go on: two"}],
        "max_tokens": 20,
    }
    answer = requests.post(
        f"{server.base_url}/v1/chat/completions", json=body, timeout=patient(60)
    ).json()
    assert answer["choices"][0]["message"]["content"] == " one two three four five six seven eight"


def test_what_the_modelfile_says_has_arrived(server: LocalServer) -> None:
    shown = requests.post(
        f"{server.base_url}/api/show", json={"model": "tiny"}, timeout=patient(10)
    ).json()
    assert shown["system"] == 'Be kind. {"label": …} 👩\u200d💻'
    assert sorted(line.split() for line in shown["parameters"].splitlines()) == [
        ["num_ctx", "512"],
        ["temperature", "0"],
    ]


@pytest.mark.parametrize(
    "modelfile",
    [
        "FROM tiny",
        "from\ttiny\r\nparameter temperature 0.3\r\nPARAMETER\ttop_p\t.9\r\n",
        'FROM "tiny"\n# a comment """\nSYSTEM a\n  # and one more\nMESSAGE user : x: y\nMESSAGE '
        'assistant ""\n',
        'FROM tiny\r\nSYSTEM """a\r\n\tb "c" \r\n"""\r\nLICENSE """MIT\n\nCopyright"""\nLICENSE '
        "Apache\n",
        'FROM tiny\nPARAMETER stop "\n\nHuman:"\nPARAMETER stop </s>\nPARAMETER stop '
        '""\nPARAMETER num_ctx +256\n',
        'FROM tiny\nSYSTEM "a" b\nc"\nTEMPLATE """{{ .System }}{{ .Prompt }}"""',
        "FROM tiny\nPARAMETER temperature 1_0.5\nPARAMETER top_k 1\nPARAMETER top_k 2\nPARAMETER "
        "use_mmap F\n",
        "FROM tiny\nPARAMETER mirostat 1\nREQUIRES v0.14\nRENDERER qwen3-coder\nPARSER "
        "qwen3-coder\n",
        'FROM tiny\rSYSTEM """""""\r',
        "FROM ./tiny.gguf",
        "FROM ./tiny.gguf\nADAPTER ./adapter.gguf\n",
        "FROM ./llama\nSYSTEM converted\n",
        "FROM tiny\nADAPTER ./adapter.gguf\n",
    ],
)
def test_the_same_model_comes_of_it_as_of_ollama_create(make: Maker, modelfile: str) -> None:
    for made in (make.ours(modelfile), make.theirs(modelfile)):
        assert made.returncode == 0, made.stderr
    assert make.shown("ours") == make.shown("theirs")
    assert make.completed("ours") == make.completed("theirs")


@pytest.mark.parametrize(
    "modelfile",
    [
        "SYSTEM x\nPARAMETER top_k 1x",
        "FROM tiny\nSYSTEM",
        "FROM tiny\nMESSAGE User hi",
        "FROM tiny\nPARAMETER num-ctx 5",
        "FROM tiny\nPARAMETER NUM_CTX 5",
        "FROM tiny\nPARAMETER num_ctx 9223372036854775808",
        "FROM tiny\nPARAMETER temperature 1e40",
        "FROM tiny\nPARAMETER temperature nan",
        "FROM tiny\nPARAMETER use_mmap yes",
        "FROM tiny\nREQUIRES 1.2-rc",
        "FROM a # b",
        'FROM tiny\nSYSTEM """a""\n',
        "FROM tiny\nSYSTEM a\nb\n",
        "FROM tiny\nTEMPLATE {{ .Prompt",
        "FROM ./tiny.gguf\nDRAFT ./tiny.gguf",
        "FROM ./missing.gguf",
        "FROM ./llama/model.safetensors",
        "FROM ./Modelfile",
        "FROM tiny\nADAPTER ./adapter/missing.safetensors",
    ],
)
def test_what_ollama_create_refuses_is_refused(make: Maker, modelfile: str) -> None:
    for made in (make.ours(modelfile), make.theirs(modelfile)):
        assert made.returncode != 0, made.stderr
    assert not {
        model["name"]
        for model in requests.get(f"{make.url}/api/tags", timeout=patient(10)).json()["models"]
    } - {"tiny:latest"}


@pytest.mark.parametrize("path", ["./adapter", "./adapter/adapter_model.safetensors"])
def test_an_adapter_of_safetensors_can_be_used(make: Maker, path: str) -> None:
    """`ollama create` finds none in a directory, and forgets the file beside it."""
    modelfile = f"FROM tiny\nADAPTER {path}\n"
    assert make.theirs(modelfile).returncode != 0
    made = make.ours(modelfile)
    assert made.returncode == 0, made.stderr
    assert make.completed("tiny") == COUNTED
    assert make.completed("ours") == " one"


def test_a_registry_that_cannot_be_reached_is_told(make: Maker) -> None:
    made = make.ours("FROM registry.invalid/no/model")
    assert made.returncode == 69
    message = json.loads(made.stderr.splitlines()[-1])
    assert message["error"] == "SourceUnavailableError"
    assert re.search(
        r"Ollama cannot pull registry\.invalid/no/model:latest: pull model manifest: .*dial",
        message["message"],
    )
    assert "HTTPS_PROXY" in message["hint"]
