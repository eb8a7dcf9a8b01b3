"""`@task(task_config=template)` on one machine, and in a container, where it starts nothing."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flyteidl.core.errors_pb2 import ContainerError, ErrorDocument
from flyteidl.core.literals_pb2 import LiteralMap
from flytekit import FlyteContextManager, ImageSpec, PodTemplate, Resources, Secret, task
from flytekit.configuration import ImageConfig, SerializationSettings
from flytekit.core.python_function_task import PythonFunctionTask
from flytekit.core.task import TaskPlugins
from flytekit.core.type_engine import TypeEngine
from flytekit.image_spec.image_spec import ImageBuildEngine
from flytekit.models.task import K8sPod
from flytekit.types.file import FlyteFile

from flytekitplugins.inference import (
    VLLM,
    ConfigError,
    HFSecret,
    ModelInferenceTemplate,
    ServerExitedError,
    ServerNotReadyError,
    UnsupportedError,
    Volume,
    local,
)
from flytekitplugins.inference.flyte.task import InferenceTask
from users import failing, served


@pytest.fixture(autouse=True)
def _no_server_is_left() -> Iterator[None]:
    yield
    local.stop_idle()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_template_type_is_found_also_a_users_own() -> None:
    for template in (served.ECHO, served.OWN):
        assert TaskPlugins.find_pythontask_plugin(type(template)) is InferenceTask
    assert isinstance(served.own, InferenceTask)
    assert TaskPlugins.find_pythontask_plugin(dict) is PythonFunctionTask


def test_the_server_runs_around_the_function() -> None:
    assert served.pid(element=1) != os.getpid()


def test_a_function_that_raises_lets_go_of_its_server() -> None:
    with pytest.raises(KeyError) as caught:
        served.fails(element=1)
    process = int("".join(filter(str.isdigit, str(caught.value).rpartition("\n")[2])))
    assert _is_alive(process)  # kept for the next task
    local.stop_idle()
    assert not _is_alive(process)


def test_equal_servers_are_used_again() -> None:
    assert served.pid(element=1) == served.pid(element=2) == served.pid_from_a_thread()


def test_an_async_function() -> None:
    assert asyncio.run(served.pid_async(element=1)) == served.pid(element=2)


def test_async_functions_at_the_same_time_share_one_server() -> None:
    async def three() -> list[int]:
        return await asyncio.gather(*(served.pid_async(element=element) for element in range(3)))

    assert len(set(asyncio.run(three()))) == 1


def test_a_workflow_with_mapped_and_dynamic_tasks(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("42")
    mapped, dynamic, own, first, second = served.all_of_them(
        file=FlyteFile(str(tmp_path / "data.txt"))
    )
    assert len({*mapped, *dynamic}) == 1, "one server for five elements and three calls"
    assert own not in mapped
    assert json.loads(first)["pid"] == json.loads(second)["pid"], "equal template and equal inputs"
    inputs = json.loads(first)["inputs"]
    assert inputs["numbers"] == [1, 2]
    assert Path(inputs["file"]).read_text() == "42"
    assert Path(inputs["file"]).name == "data.txt"


def test_other_inputs_get_another_server(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    answers = [
        json.loads(served.inputs_seen(file=FlyteFile(str(tmp_path / name)), numbers=[]))
        for name in ("a", "b")
    ]
    assert [Path(answer["inputs"]["file"]).name for answer in answers] == ["a", "b"]


def test_run_locally() -> None:
    with served.WITH_INPUTS.run_locally(
        {"numbers": [1, 2.5, None], "empty": [], "deep": {"a": [True]}}
    ) as server:
        assert served.WITH_INPUTS.base_url == server.base_url == f"http://localhost:{server.port}"
        answer = served.ask(served.WITH_INPUTS)
        assert answer["inputs"] == {"numbers": [1, 2.5, None], "empty": [], "deep": {"a": [True]}}
        assert server.log_tail() == [f"echo server of process {answer['pid']}"]
    assert not _is_alive(answer["pid"])
    assert served.WITH_INPUTS.base_url == "http://localhost:28124"


def test_two_servers_that_want_one_port() -> None:
    other = replace(served.ECHO, env={"OTHER": "1"})
    with served.ECHO.run_locally() as one, other.run_locally() as two:
        assert one.port != two.port
        assert served.ask(served.ECHO)["pid"] != served.ask(other)["pid"]


def test_a_claim_is_a_directory_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Volume(
        name="models", source={"persistentVolumeClaim": {"claimName": "m"}}, mount_path="/models"
    )
    template = replace(
        served.ECHO, volumes=[claim], command=[*served.ECHO.command, "/models/a.bin"]
    )
    with pytest.raises(UnsupportedError, match="models"), template.run_locally():
        pass
    with template.run_locally(volumes={"models": str(tmp_path)}) as server:
        assert served.ask(template)["arguments"] == [str(tmp_path / "a.bin")]
        assert server.pod.path("/models") == tmp_path
    monkeypatch.setenv("INFERENCE_LOCAL_VOLUMES", f"models={tmp_path}")
    with template.run_locally():
        pass
    monkeypatch.setenv("INFERENCE_LOCAL_VOLUMES", "models")
    with (
        pytest.raises(ConfigError, match="INFERENCE_LOCAL_VOLUMES='models' must be like"),
        template.run_locally(),
    ):
        pass


def test_a_servers_cache_is_this_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    vllm = VLLM(command=["python", served.SERVER, "$(INFERENCE_PORT)"], gpu=0)
    with vllm.run_locally() as server:
        assert server.pod.path("/var/cache/inference/huggingface") == tmp_path / "huggingface"
        environment = served.ask(vllm)["environment"]
    assert environment["HF_HOME"] == str(tmp_path / "huggingface")


def test_nothing_to_run_the_server_with() -> None:
    nowhere = replace(served.ECHO, command=["no-such-model-server"])
    # also where a shell starts it, as in a bounded start
    for server in (nowhere, replace(nowhere, startup_timeout=60)):
        with pytest.raises(UnsupportedError, match="no-such-model-server"), server.run_locally():
            pass
    module = replace(served.ECHO, command=["python", "-m", "no_such_server"], startup_timeout=60)
    with (
        pytest.raises(UnsupportedError, match="the package 'no_such_server'"),
        module.run_locally(),
    ):
        pass
    image_only = ModelInferenceTemplate(image="registry.example.com/server:1")
    with pytest.raises(UnsupportedError) as caught, image_only.run_locally():
        pass
    assert "registry.example.com/server:1" in str(caught.value)
    assert "command" in str(caught.value)


def test_a_server_that_ends_at_once_says_why() -> None:
    broken = replace(served.ECHO, command=["python", "-c", "raise SystemExit('no model here')"])
    with pytest.raises(ServerExitedError) as caught, broken.run_locally():
        pass
    assert "no model here" in str(caught.value)


@pytest.fixture
def empty_web_server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_failing_download_is_the_error(empty_web_server: str) -> None:
    missing = FlyteFile(f"{empty_web_server}/absent.bin")
    with (
        pytest.raises(ServerExitedError) as caught,
        served.WITH_INPUTS.run_locally({"weights": missing}),
    ):
        pass
    assert "input-downloader" in str(caught.value)
    assert "weights" in str(caught.value)
    assert f"{empty_web_server}/absent.bin" in str(caught.value)


def test_a_pod_template_beside_task_config_is_the_base() -> None:
    base = PodTemplate(labels={"team": "x"})

    @task(task_config=served.ECHO, pod_template=base)
    def with_base() -> str:
        return ""

    assert with_base.pod_template.labels == {"team": "x"}
    with pytest.raises(ConfigError, match="Give one of them"):

        @task(task_config=replace(served.ECHO, base=base), pod_template=base)
        def with_two() -> str:
            return ""


def test_a_function_with_a_pod_template_finds_the_server_that_runs_around_it() -> None:
    @task(task_config=served.ECHO, pod_template=PodTemplate(labels={"team": "x"}))
    def pid_with_base() -> int:
        return int(served.ask(served.ECHO)["pid"])

    with served.ECHO.run_locally() as another:
        assert pid_with_base() != served.ask(served.ECHO)["pid"]
        assert served.ECHO.base_url == another.base_url


def _serialised(**options: Any) -> K8sPod:
    template = replace(served.ECHO, gpu=1, **options.pop("template", {}))

    @task(task_config=template, container_image="registry.example.com/task:1", **options)
    def described() -> str:
        return ""

    return described.get_k8s_pod(
        SerializationSettings(ImageConfig.auto(img_name="registry.example.com/default:1"))
    )


def _base_with_primary(**fields: Any) -> dict[str, Any]:
    return {"template": {"base": {"spec": {"containers": [{"name": "primary", **fields}]}}}}


@pytest.mark.parametrize(
    ("options", "resources"),
    [
        ({}, {"limits": {"gpu": "0"}}),
        ({"requests": Resources(cpu="1")}, {"requests": {"cpu": "1"}, "limits": {"gpu": "0"}}),
        ({"requests": Resources(gpu="1")}, {"requests": {"gpu": "1"}, "limits": {}}),
        ({"limits": Resources(gpu="2")}, {"requests": {}, "limits": {"gpu": "2"}}),
        (
            _base_with_primary(resources={"limits": {"nvidia.com/gpu": "1"}}),
            {"limits": {"nvidia.com/gpu": "1"}},
        ),
        (
            _base_with_primary(resources={"limits": {"memory": "1Gi"}}),
            {"limits": {"memory": "1Gi", "gpu": "0"}},
        ),
    ],
)
def test_the_primary_has_the_gpus_that_its_author_gave_it(
    options: dict[str, Any], resources: dict[str, Any]
) -> None:
    assert _serialised(**options).pod_spec["containers"][0]["resources"] == resources


def test_helpers_run_on_the_image_that_the_primary_really_gets() -> None:
    options = _base_with_primary(image="registry.example.com/base:1")
    options["template"]["download_inputs"] = True
    pod = _serialised(**options).pod_spec
    images = {
        container["name"]: container["image"]
        for container in (*pod["initContainers"], *pod["containers"])
        if container["name"] != "model-server"
    }
    assert set(images) == {"input-downloader", "server-gate", "primary"}
    assert set(images.values()) == {"registry.example.com/base:1"}


def test_the_bases_metadata_reaches_the_pod() -> None:
    base = {"metadata": {"labels": {"team": "x"}, "annotations": {"a": "b"}}, "spec": {}}
    metadata = _serialised(template={"base": base}).metadata
    assert (metadata.labels, metadata.annotations) == ({"team": "x"}, {"a": "b"})


def test_serialising_does_not_change_the_task() -> None:
    before = served.pid.pod_template.version_hash()
    served.pid.get_k8s_pod(
        SerializationSettings(ImageConfig.auto(img_name="registry.example.com/default:1"))
    )
    assert served.pid.pod_template.version_hash() == before


def test_a_secret_that_the_function_needs_too_is_requested_once() -> None:
    template = VLLM(hf_secret=HFSecret(hf_token_group="hf", hf_token_key="t"))
    own = Secret(group="hf", key="t", mount_requirement=Secret.MountType.ENV_VAR)

    @task(task_config=template, secret_requests=[own, Secret(group="x", key="y")])
    def with_secrets() -> str:
        return ""

    secrets = with_secrets.security_context.secrets
    assert [(secret.group, secret.key) for secret in secrets] == [("hf", "t"), ("x", "y")]


def test_an_image_spec_of_the_server_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(ImageBuildEngine, "build", lambda spec: built.append(spec.image_name()))
    image = ImageSpec(name="echo", registry="registry.example.com", packages=["echo-server"])

    @task(
        task_config=replace(served.ECHO, image=image), container_image="registry.example.com/task:1"
    )
    def with_built_image() -> str:
        return ""

    settings = SerializationSettings(
        image_config=ImageConfig.auto(img_name="registry.example.com/default:1")
    )
    server, gate = with_built_image.get_k8s_pod(settings).pod_spec["initContainers"]
    assert gate["name"] == "server-gate"
    assert server["image"] == image.image_name()
    assert built == [image.image_name()]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, None),
        ({"timeout": 0}, None),
        ({"timeout": 600}, 600),
        ({"timeout": timedelta(minutes=2)}, 120),
        ({"timeout": timedelta(milliseconds=1500)}, 2),
        ({"timeout": 600, "template": {"base": {"spec": {"activeDeadlineSeconds": 60}}}}, 60),
    ],
)
def test_the_timeout_bounds_the_pod(options: dict[str, Any], seconds: int | None) -> None:
    assert _serialised(**options).pod_spec.get("activeDeadlineSeconds") == seconds


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({}, "FallbackToLogsOnError"),
        (_base_with_primary(terminationMessagePolicy="File"), "File"),
    ],
)
def test_a_primary_that_ends_without_a_message_shows_its_log(
    options: dict[str, Any], policy: str
) -> None:
    others, primary = {"name": "other"}, "primary"
    options.setdefault("template", {}).setdefault("base", {"spec": {"containers": []}})
    options["template"]["base"]["spec"]["containers"].append(others)
    containers = {
        container["name"]: container for container in _serialised(**options).pod_spec["containers"]
    }
    assert containers[primary]["terminationMessagePolicy"] == policy
    assert "terminationMessagePolicy" not in containers["other"]


def _execute(name: str, module: str, directory: Path, word: str) -> Path:
    """Run a task by the real entry point, on files instead of a bucket; return its outputs."""
    context = FlyteContextManager.current_context()
    literals = TypeEngine.dict_to_literal_map(context, {"word": word}, {"word": str})
    (directory / "inputs.pb").write_bytes(literals.to_flyte_idl().SerializeToString())
    out = directory / "out"
    out.mkdir()
    command: list[Any] = [
        Path(sys.executable).parent / "pyflyte-execute",
        "--inputs",
        directory / "inputs.pb",
    ]
    command += ["--output-prefix", out, "--raw-output-data-prefix", directory / "raw"]
    command += ["--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--"]
    command += ["task-module", module, "task-name", name]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        list(map(str, command)), env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


def test_in_a_container_nothing_is_started_and_kubernetes_not_imported(tmp_path: Path) -> None:
    out = _execute("in_cluster", "users.served", tmp_path, "hi")
    outputs = LiteralMap()
    outputs.ParseFromString((out / "outputs.pb").read_bytes())
    assert outputs.literals["o0"].scalar.primitive.string_value == "hi http://localhost:28123 False"


@pytest.mark.parametrize("name", ["raises", "raises_async"])
@pytest.mark.parametrize(
    ("error", "is_recoverable"), [("ServerNotReadyError", True), ("ServerExitedError", False)]
)
def test_in_a_container_a_retryable_error_is_one_that_flyte_tries_again(
    name: str, error: str, is_recoverable: bool, tmp_path: Path
) -> None:
    out = _execute(name, "users.failing", tmp_path, error)
    document = ErrorDocument()
    document.ParseFromString((out / "error.pb").read_bytes())
    kinds = {True: ContainerError.RECOVERABLE, False: ContainerError.NON_RECOVERABLE}
    assert document.error.kind == kinds[is_recoverable]
    # the cause's own traceback is told too
    assert f"{error}: it went away Hint: Look." in document.error.message
    assert "users/failing.py" in document.error.message


def test_on_one_machine_a_retryable_error_is_raised_as_it_is() -> None:
    with pytest.raises(ServerNotReadyError, match="it went away"):
        failing.raises(word="ServerNotReadyError")
