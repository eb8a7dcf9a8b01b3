"""The interface for servers of other distributions: that it suffices, for others and for ours."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flytekitplugins.inference
from flytekitplugins.inference import extension

ROOT = Path(__file__).parent.parent
PACKAGE = Path(flytekitplugins.inference.__file__).parent
PACKAGE_NAME = "flytekitplugins.inference"
EXTENSION = f"{PACKAGE_NAME}.extension"

SERVER = '''
"""A server of another distribution that uses all that the interface has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from flytekitplugins.inference.extension import (
    ADAPTERS,
    EnvVar,
    ModelInferenceTemplate,
    OptionTable,
    Probe,
    Probes,
    Server,
    Setup,
    Volume,
    WithAdapters,
    WithArguments,
)


@dataclass(frozen=True, kw_only=True)
class Acme(WithArguments, WithAdapters, ModelInferenceTemplate):
    """An Acme server beside a task."""

    port: int = 9100
    health_endpoint: str | None = "/healthz"
    warm: int = 1

    option_table = OptionTable(
        server="Acme 3.1",
        values=frozenset({"listen", "listen_port", "weights", "served_model_name", "depth"}),
        lists=frozenset({"adapter"}),
        switches=frozenset({"grpc_only"}),
    )
    host_option = "listen"
    port_option = "listen_port"
    model_option = "weights"
    template_options = MappingProxyType({"adapter": "give lora_adapters= instead"})
    no_http_options = frozenset({"grpc_only"})
    template_variables = MappingProxyType({"ACME_PORT": "give port= instead"})

    @property
    def default_image(self) -> str:
        return "registry.example.com/acme:3.1"

    def server(self) -> Server:
        token = self.token_reference()
        paths = self.adapter_paths()
        return Server(
            command=("acme",),
            args=(
                *self.address_arguments(),
                *("--weights", str(self.model_path or self.argument("weights"))),
                *("--served-model-name", self.served_name()),
                *self.other_arguments("listen", "listen_port", "weights", "served_model_name"),
                *(("--adapter", *paths) if paths else ()),
            ),
            env=(*self.token_variables("ACME_TOKEN"), EnvVar(name="ACME_HOME", value="/acme")),
            secrets=(token,) if token else (),
            volumes=(Volume(name="inference-cache", mount_path="/acme"),),
            probes=Probes(liveness=Probe(path="/livez")),
            model_api="openai",
            served_model_name=self.served_name(),
            adapters=self.adapters(),
            setup=Setup(
                program="create_model",
                args=(f"http://localhost:{self.port}", "--name", "warm"),
                resources={"cpu": "1", "memory": "256Mi"},
            ),
        )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.warm < 0:
            yield f"warm={self.warm!r} must not be negative"
'''
TEST = """
import json
from flytekit import task
from flytekitplugins.inference import installed_servers
from flytekitplugins.inference.extension import ADAPTERS, ConfigError, HFSecret, Helper, unanswered

Acme = installed_servers()["acme"]
options = dict(
    model="s3://models/acme", gpu=0, arg_dict={"depth": 3}, lora_adapters={"sql": "owner/sql"},
    hf_secret=HFSecret(hf_token_group="hub", hf_token_key="token"), startup_timeout=60,
)
template = Acme(**options)

@task(task_config=template)
def infer() -> str:
    return ""

def refusal(**wrong):
    try:
        Acme(**{**options, **wrong})
    except ConfigError as error:
        return error.problems
    return []

containers = template.compile(Helper(image="helper:1", bundled=False))["spec"]["initContainers"]
server = next(one for one in containers if one["name"] == "model-server")
print(json.dumps({
    "unanswered": unanswered(Acme, **options),
    "containers": [container["name"] for container in containers],
    "args": server["args"],
    "mounts": {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]},
    "adapters": ADAPTERS,
    "env": [variable["name"] for variable in server["env"]],
    "problems": refusal(
        warm=-1, args=["--listen-port=1"], env={"ACME_PORT": "1"},
        arg_dict={
            "adapter": ["x"], "weights": "y", "grpc_only": True, "listen": "10.0.0.1", "dept": 1
        },
    ),
    "task": type(infer).__name__,
}))
"""


def _imports_of_ours(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flytekitplugins"):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (
                alias.name for alias in node.names if alias.name.startswith("flytekitplugins")
            )


def test_the_example_imports_the_interface_and_nothing_else_of_ours() -> None:
    files = sorted((ROOT / "examples" / "custom_server" / "inference_bentoml").rglob("*.py"))
    assert {name for path in files for name in _imports_of_ours(path)} == {EXTENSION}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return what a program tells of a server that a distribution beside it has registered."""
    site = tmp_path_factory.mktemp("site")
    (site / "acme_server.py").write_text(SERVER)
    (site / "ask.py").write_text(TEST)
    info = site / "acme_server-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-server\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[flytekitplugins.inference.servers]\nacme = acme_server:Acme\n"
    )
    done = subprocess.run(
        [sys.executable, "ask.py"],
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_server_of_another_distribution_needs_nothing_else(said: dict) -> None:
    assert said["unanswered"] == []
    assert said["task"] == "InferenceTask"
    assert set(said["containers"]) == {
        "preflight",
        "download-loras",
        "model-loader",
        "model-server",
        "server-setup",
        "server-gate",
    }
    assert said["args"] == [
        *("--listen", "127.0.0.1", "--listen-port", "9100"),
        *("--weights", "/models/current", "--served-model-name", "acme"),
        *("--depth", "3", "--adapter", "sql=/adapters/sql"),
    ]
    assert said["mounts"]["inference-lora"] == said["adapters"]
    assert {"ACME_TOKEN", "ACME_HOME", "_FSEC_HUB_TOKEN"} <= set(said["env"])


@pytest.mark.parametrize(
    "problem",
    [
        "warm=-1 must not be negative",
        "args: '--listen-port=1' is the template's; give port= instead",
        "env['ACME_PORT'] is set by the template; give port= instead",
        "arg_dict: 'adapter' is the template's; give lora_adapters= instead",
        "arg_dict has weights 'y' and the template has model= as well; give one of them",
        "arg_dict: with 'grpc_only' the server does not answer plain HTTP on the template's port",
        "arg_dict has listen '10.0.0.1', where the kubelet's probes cannot reach the server; "
        "leave it out",
        "arg_dict: Acme 3.1 has no option 'dept' (did you mean 'depth'?); give it through args= "
        "if your image has it",
    ],
)
def test_its_class_variables_are_checks(said: dict, problem: str) -> None:
    assert problem in said["problems"]


@pytest.mark.parametrize(
    "room", sorted(PACKAGE.glob("*/serve.py")), ids=lambda path: path.parent.name
)
def test_our_own_servers_use_no_private_hook_of_a_base(room: Path) -> None:
    """What ours need, others need as well: it has a public name."""
    tree = ast.parse(room.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    assert {name for name in used if name.startswith("_")} <= own


def test_every_name_is_told_and_documented() -> None:
    names = {
        name
        for name, value in vars(extension).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(PACKAGE_NAME)
    }
    assert names <= set(extension.__all__)
    for name in extension.__all__:
        value = getattr(extension, name)
        if not isinstance(value, (str, tuple)):
            assert value.__doc__, name
