"""A description: what it accepts, what it refuses and in which words; it shares nothing."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from flytekitplugins.inference import (
    NIM,
    TEI,
    VLLM,
    APIKeySecret,
    ConfigError,
    HFSecret,
    HuggingFaceModel,
    InferenceWarning,
    LlamaCpp,
    ModelInferenceTemplate,
    NIMSecrets,
    Probe,
    Probes,
    RegisteredModel,
    Server,
    SpecConflictError,
    Volume,
    VolumeModel,
)
from flytekitplugins.inference.pod.parts import Helper
from golden.cases import CASES, make

HELPER = Helper(image="helper:1", bundled=False)
NGC = NIMSecrets(ngc_secret_group="ngc", ngc_secret_key="key")
LORA_ENV = {"NIM_PEFT_SOURCE": "/adapters"}


def _generic(**options: Any) -> ModelInferenceTemplate:
    return ModelInferenceTemplate(**{"image": "server:1", **options})


def _server(template: ModelInferenceTemplate) -> dict[str, Any]:
    containers = template.compile(HELPER)["spec"]["initContainers"]
    return next(container for container in containers if container["name"] == "model-server")


def _base(**spec: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": spec}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _WithPortVariable(ModelInferenceTemplate):
    def server(self) -> Server:
        return Server(port_variables=("ECHO_PORT",))


class _NotADataclass(VLLM):
    port = 9000


BAD: list[tuple[Callable[[], Any], str]] = [
    (ModelInferenceTemplate, "image is missing: name the container image"),
    (lambda: _generic(image=""), "image is missing"),
    (lambda: _generic(image="server 1"), "image='server 1' is not an image reference"),
    (lambda: _generic(image=3), "image must be a text or an ImageSpec, not a int"),
    (lambda: _generic(helper_image=3), "helper_image must be a text or an ImageSpec"),
    (
        lambda: _generic(health_endpoint="http://localhost:8000/health"),
        "is a whole URL; give only its path",
    ),
    (
        lambda: _generic(health_endpoint=""),
        "health_endpoint must be an HTTP path such as '/health', or None, not ''",
    ),
    (lambda: _generic(port=0), "port: 0 is not a port: a whole number from 1 to 65535"),
    (lambda: _generic(port="http"), "port: 'http' is not a port"),
    (lambda: _generic(cpu=-1), "cpu=-1 must be more than zero"),
    (lambda: _generic(cpu=0), "cpu=0 must be more than zero"),
    (lambda: _generic(cpu="two"), "cpu='two': 'two' is not a Kubernetes quantity"),
    (
        lambda: _generic(mem="20GB"),
        "Did you mean '20G' (powers of 1000) or '20Gi' (powers of 1024)?",
    ),
    (
        lambda: _generic(mem="500m"),
        "mem='500m' is 0.5 bytes ('m' means thousandths); did you mean '500Mi'?",
    ),
    (lambda: _generic(mem="-1Gi"), "mem='-1Gi' must be more than zero"),
    (lambda: _generic(mem=None), "mem=None: None is a NoneType, not a quantity"),
    (lambda: _generic(ephemeral_storage="1 TB"), "Did you mean '1T'"),
    (lambda: _generic(shm_size="2Gi"), "memory limit of 1Gi cannot hold /dev/shm of 2Gi"),
    (lambda: _generic(mem="2Gi", shm_size="2Gi"), "raise mem above that or lower shm_size"),
    (lambda: _generic(gpu=-1), "gpu=-1 must be a whole number, 0 for none"),
    (lambda: _generic(gpu=0.5), "gpu=0.5 must be a whole number"),
    (lambda: _generic(gpu=True), "gpu=True must be a whole number"),
    (lambda: _generic(gpu_resource="nvidia"), "gpu_resource='nvidia' is not a resource's name"),
    (lambda: _generic(env=["A=1"]), "env must be a dict of texts, not a list"),
    (lambda: _generic(env={"1A": "x"}), "'1A' is not an environment variable's name"),
    (lambda: _generic(env={"A": 1}), "env['A'] is the int 1; variables are texts: write '1'"),
    (
        lambda: _generic(env={"INFERENCE_PORT": "1"}),
        "env['INFERENCE_PORT'] is set by the template; give port= instead",
    ),
    (
        lambda: _generic(env={"TOKEN": "hf_" + "a1" * 20}),
        "'TOKEN' holds what looks like a token; name a secret",
    ),
    (
        lambda: _generic(env={"A": "$(B)", "B": "x"}),
        "'A' refers to $(B), which must come before it",
    ),
    (lambda: _generic(download_inputs_mem="1GB"), "download_inputs_mem='1GB'"),
    (lambda: _generic(download_inputs_cpu="0"), "download_inputs_cpu='0' must be more than zero"),
    (
        lambda: _generic(command="python -m 'my server'"),
        "give command=['python', '-m', 'my server']",
    ),
    (lambda: _generic(args=["--port", 8000]), "args[1] is the int 8000; write '8000'"),
    (
        lambda: _generic(probes=Probe()),
        "probes must be Probes(startup=…, readiness=…, liveness=…), not a Probe",
    ),
    (lambda: _generic(probes=Probes(startup=3)), "probes.startup must be a Probe, not a int"),
    (
        lambda: _generic(probes=Probes(startup=Probe(path="http://x/y"))),
        "probes.startup.path='http://x/y' is a whole",
    ),
    (
        lambda: _generic(probes=Probes(startup=Probe(period_seconds=0))),
        "periodSeconds must be a whole number",
    ),
    (
        lambda: _generic(probes=Probes(startup=Probe(port=9))),
        "startupProbe asks port 9, which no container declares",
    ),
    (
        lambda: _generic(volumes=Volume(name="a", mount_path="/a")),
        "volumes must be a list of Volume, not a Volume",
    ),
    (lambda: _generic(volumes=["a"]), "volumes must hold Volume objects, not a str"),
    (lambda: _generic(volumes=[Volume(name="A", mount_path="/a")]), "'A' is not a DNS-1123 label"),
    (
        lambda: _generic(volumes=[Volume(name="shared-data", mount_path="/a")]),
        "this name is the template's own",
    ),
    (
        lambda: _generic(volumes=[Volume(name="inference-x", mount_path="/a")]),
        "this name is the template's own",
    ),
    (lambda: _generic(volumes=[Volume(name="a", mount_path="a")]), "'a' is not an absolute path"),
    (
        lambda: _generic(volumes=[Volume(name="a", mount_path="/a", containers=("x",))]),
        "no container 'x'; there are",
    ),
    (
        lambda: _generic(
            volumes=[Volume(name="a", mount_path="/a"), Volume(name="b", mount_path="/a")]
        ),
        "mounted 2 times",
    ),
    (
        lambda: _generic(base="pod.yaml"),
        "base must be a PodTemplate or a v1/Pod dictionary, not a str",
    ),
    (
        lambda: _generic(base={"containers": []}),
        "base has no 'spec': give a v1/Pod dictionary, not one with the keys ['containers']",
    ),
    (lambda: _generic(security_context="root"), "security_context must be a dict, not a str"),
    (
        lambda: _generic(termination_grace_period=-1),
        "termination_grace_period must be whole seconds or a timedelta",
    ),
    (
        lambda: VLLM(hf_secret="hf_secret_value"),
        "hf_secret must be an HFSecret(hf_token_key=…), not a str",
    ),
    (
        lambda: VLLM(hf_secret=NGC),
        "hf_secret must be an HFSecret(hf_token_key=…), not a NIMSecrets",
    ),
    (
        lambda: VLLM(hf_secret=HFSecret(hf_token_key=None)),
        "hf_secret: the secret's key must be a text, not None",
    ),
    (lambda: VLLM(arg_dict=["--model"]), "arg_dict must be a dict of vLLM's options, not a list"),
    (
        lambda: VLLM(arg_dict={"max_modl_len": 1}),
        "has no option 'max_modl_len' (did you mean 'max_model_len'?)",
    ),
    (
        lambda: VLLM(arg_dict={"api-key": "abc"}),
        "'api-key' would put a secret into the pod's specification",
    ),
    (
        lambda: VLLM(arg_dict={"port": 9}),
        "arg_dict has port 9, the template has port=8000; give port= only",
    ),
    (
        lambda: VLLM(arg_dict={"host": "127.0.0.1"}),
        "where the kubelet's probes cannot reach the server",
    ),
    (lambda: VLLM(mem="2Gi"), "memory limit of 2Gi cannot hold /dev/shm of 2Gi"),
    (lambda: NIM(secrets="nvapi-value"), "secrets must be NIMSecrets(ngc_secret_key=…), not a str"),
    (
        lambda: NIM(secrets=NIMSecrets(ngc_secret_key=None)),
        "secrets: the secret's key must be a text, not None",
    ),
    (
        lambda: NIM(secrets=dataclasses.replace(NGC, hf_token_group="hf")),
        "hf_token_group='hf' needs an hf_token_key",
    ),
    (
        lambda: NIM(secrets=dataclasses.replace(NGC, ngc_image_secret="My_Pull")),
        "ngc_image_secret='My_Pull' is not a",
    ),
    (
        lambda: NIM(secrets=NGC, env={"NIM_SERVER_PORT": "1"}),
        "env['NIM_SERVER_PORT'] is set by the template; give port=",
    ),
    (lambda: NIM(secrets=NGC, hf_repo_ids=["a/b"], env=LORA_ENV), "lora_adapter_mem is missing"),
    (
        lambda: NIM(secrets=NGC, hf_repo_ids=["a/b"], lora_adapter_mem="2Gi"),
        "env['NIM_PEFT_SOURCE'] is missing",
    ),
    (
        lambda: NIM(secrets=NGC, hf_repo_ids="a/b", lora_adapter_mem="2Gi", env=LORA_ENV),
        "give a list: ['a/b']",
    ),
    (
        lambda: NIM(secrets=NGC, hf_repo_ids=["a/b:c"], lora_adapter_mem="2Gi", env=LORA_ENV),
        "hf_repo_ids: 'hf://a/b:c' is not a model reference: "
        "it is not the name of a hub repository",
    ),
    (
        lambda: NIM(secrets=NGC, hf_repo_ids=[3], lora_adapter_mem="2Gi", env=LORA_ENV),  # type: ignore[list-item]
        "hf_repo_ids: 3 is not a text such as 'owner/name'",
    ),
    (
        lambda: NIM(secrets=NGC, hf_repo_ids=["a/b"], lora_adapter_mem="2GB", env=LORA_ENV),
        "lora_adapter_mem='2GB'",
    ),
    (
        lambda: NIM(
            secrets=NGC,
            hf_repo_ids=["a/b"],
            lora_adapter_mem="2Gi",
            env={"NIM_PEFT_SOURCE": "loras"},
        ),
        "env['NIM_PEFT_SOURCE']: 'loras' is not an absolute path",
    ),
    (lambda: _generic(image="MyServer:1"), "image='MyServer:1' is not an image reference"),
    (lambda: _generic(image="https://registry/x:1"), "is not an image reference"),
    (lambda: _generic(image="a:b:c"), "is not an image reference"),
    (
        lambda: _generic(image="{{.image.default}}"),
        "Flyte does not fill that in for init containers",
    ),
    (lambda: _generic(download_inputs="no"), "download_inputs must be True or False, not 'no'"),
    (
        lambda: _generic(termination_grace_period=1.5),
        "termination_grace_period must be whole seconds",
    ),
    (
        lambda: _generic(termination_grace_period=timedelta(milliseconds=500)),
        "must be whole seconds",
    ),
    (lambda: _generic(mem="\u0661Gi"), "is not a Kubernetes quantity"),
    (lambda: _generic(mem="0.5"), "mem='0.5' is 0.5 bytes; did you mean '0.5Gi'?"),
    (lambda: _generic(gpu_resource="nvidia.com/my gpu"), "is not a resource's name"),
    (lambda: _generic(gpu_resource="kubernetes.io/gpu"), "is not a resource's name"),
    (
        lambda: _generic(probes=Probes(startup=Probe(port=0))),
        "probes.startup.port: 0 is not a port",
    ),
    (
        lambda: _generic(probes=Probes(startup=Probe(port="http"))),
        "probes.startup.port: 'http' is not a port",
    ),
    (
        lambda: _generic(
            base=_base(containers=[{"name": "m", "ports": [{"containerPort": 9}]}]),
            probes=Probes(startup=Probe(port=9)),
        ),
        "startupProbe asks port 9, which no container declares that runs by then",
    ),
    (
        lambda: _generic(volumes=[Volume(name="a", mount_path="/a", source={})]),
        "its source must be a dictionary with one",
    ),
    (
        lambda: _generic(volumes=[Volume(name="a", mount_path="/a", source="pvc")]),
        "its source must be a dictionary with one",
    ),
    (
        lambda: _generic(volumes=[Volume(name="a", mount_path="/a", source={"pvc": {}})]),
        "no volume of the kind 'pvc'",
    ),
    (
        lambda: _generic(
            volumes=[Volume(name="a", mount_path="/a", source={"emptyDir": {"sizeLimit": "5GB"}})]
        ),
        "sizeLimit='5GB'",
    ),
    (
        lambda: _generic(volumes=[Volume(name="a", mount_path="/a", containers="primary")]),
        "such as ('primary',)",
    ),
    (
        lambda: _generic(
            volumes=[
                Volume(name="a", mount_path="/a"),
                Volume(name="a", mount_path="/b", source={"hostPath": {"path": "/x"}}),
            ]
        ),
        "volume 'a' has two sources",
    ),
    (
        lambda: _generic(download_inputs=True, volumes=[Volume(name="a", mount_path="/shared/")]),
        "'/shared' is mounted 2 times",
    ),
    (
        lambda: _generic(security_context={"privileged": True}),
        "privileged needs allowPrivilegeEscalation=True as well",
    ),
    (
        lambda: NIM(secrets=NGC, security_context={"runAsUser": 0}),
        "runAsUser 0 is root, but runAsNonRoot is true",
    ),
    (
        lambda: _generic(args=["--key", "sk-" + "a1" * 15]),
        "its arguments hold what looks like a token",
    ),
    (lambda: _generic(env={"AUTH": "Bearer hf_" + "a1" * 20}), "holds what looks like a token"),
    (
        lambda: _generic(base=_base(containers=["x"])),
        "base: spec.containers must be a list of dictionaries with a name",
    ),
    (
        lambda: VLLM(arg_dict={"uds": "/tmp/x.sock"}),
        "with 'uds' the server does not answer plain HTTP",
    ),
    (
        lambda: VLLM(arg_dict={"ssl_certfile": "/c"}),
        "with 'ssl_certfile' the server does not answer plain HTTP",
    ),
    (lambda: VLLM(arg_dict={"tensor_parallel_size": 2}), "need 2 GPUs, the template has gpu=1"),
    (
        lambda: VLLM(arg_dict={"hf_token": "hf_x"}),
        "'hf_token' would put a secret into the pod's specification",
    ),
    (lambda: VLLM(args=["--port", "9"]), "args: '--port' is the template's; give port= instead"),
    (
        lambda: NIM(secrets=NIMSecrets(ngc_secret_key="nvapi-" + "a" * 40)),
        "looks like a token; give the names",
    ),
    (
        lambda: NIM(secrets=NGC, hf_repo_ids=3),
        "hf_repo_ids must be a list of repositories, not a int",
    ),
    (lambda: NIM(secrets=NGC, lora_adapter_mem="2GB"), "lora_adapter_mem='2GB'"),
    (
        lambda: _WithPortVariable(image="echo:1", env={"ECHO_PORT": "1"}),
        "env['ECHO_PORT'] is set by the template",
    ),
    (
        _NotADataclass,
        "class _NotADataclass sets port, which counts only with @dataclass(frozen=True, "
        "kw_only=True)",
    ),
    (
        lambda: _generic(model="no model"),
        "'no model' is not a model reference: it is not the name of a hub repository.",
    ),
    (lambda: _generic(model=3), "model must be a text or a model's source, not a int"),
    (
        lambda: _generic(model=HuggingFaceModel(repo="x/y/z")),
        "model: 'hf://x/y/z' is not a model reference: it is not the name of a hub repository",
    ),
    (lambda: _generic(model=HuggingFaceModel(repo="a/b", size="1GB")), "size='1GB'"),
    (
        lambda: _generic(model=HuggingFaceModel(repo="a/b", secret="hf_x")),
        "secret must be an HFSecret",
    ),
    (lambda: _generic(model="s3://"), "'s3://' is not a model reference: it names no bucket"),
    (lambda: _generic(model=RegisteredModel(name="x")), "'x' needs exactly one of version, alias"),
    (
        lambda: _generic(model="input:weights"),
        "'weights' is an input of the task, which needs download_inputs=True",
    ),
    (lambda: _generic(model=VolumeModel()), "the volume must be a dictionary with one source"),
    (
        lambda: _generic(model=VolumeModel(volume={"emptyDir": {}}, path="../x")),
        "must be relative to the volume",
    ),
    (
        lambda: _generic(model_cache={"pvc": {}}),
        "model_cache: Kubernetes has no volume of the kind 'pvc'",
    ),
    (lambda: _generic(model_loader_mem="2GB"), "model_loader_mem='2GB'"),
    (
        lambda: _generic(startup_timeout=0),
        "startup_timeout must be whole seconds or a timedelta of such, at least 1",
    ),
    (
        lambda: _generic(model="s3://a/b", update_interval="daily"),
        "update_interval must be whole seconds",
    ),
    (lambda: _generic(update_interval=60), "update_interval needs model="),
    (lambda: _generic(model_cache_limit="2GB"), "model_cache_limit='2GB'"),
    (
        lambda: _generic(model_loader_env={"HF_HUB_X": 1}),
        "model_loader_env['HF_HUB_X'] is the int 1",
    ),
    (
        lambda: _generic(api_key_secret="sk-1"),
        "api_key_secret must be an APIKeySecret(key=…, group=…), not a str",
    ),
    (
        lambda: _generic(api_key_secret=APIKeySecret(group="g", key="k")),
        "api_key_secret: ModelInferenceTemplate reads no key from a variable",
    ),
    (
        lambda: NIM(
            secrets=NGC,
            hf_repo_ids=["a/b@v1", "a/b@v2"],
            lora_adapter_mem="1Gi",
            env={"NIM_PEFT_SOURCE": "/x"},
        ),
        "hf_repo_ids has 2 revisions of one repository, for which NIM has only one name, 'a--b'",
    ),
    (
        lambda: VLLM(lora_adapters=["a/b"]),
        "lora_adapters must be a dict of names and sources, not a list",
    ),
    (lambda: VLLM(lora_adapters={"a/b": "a/b"}), "lora_adapters: 'a/b' is not a name"),
    (
        lambda: VLLM(lora_adapters={"a": "a/b"}, arg_dict=["x"]),
        "arg_dict must be a dict of vLLM's options, not a list",
    ),
    (
        lambda: VLLM(lora_adapters={"a": "./sql"}),
        "lora_adapters['a']: './sql' is not a model reference: a relative path leads to another",
    ),
    (
        lambda: VLLM(lora_adapters={"a": 3}),  # type: ignore[dict-item]
        "lora_adapters['a']: expected a text such as 'owner/name', not a int",
    ),
    (
        lambda: VLLM(lora_adapters={"a": "input:sql"}),
        "lora_adapters['a']: 'input:sql' is an input of the task",
    ),
    (
        lambda: VLLM(lora_adapters={"a": "a/b"}, arg_dict={"enable_lora": False}),
        "arg_dict has enable_lora=False",
    ),
    (
        lambda: VLLM(lora_adapters={"a": "a/b"}, arg_dict={"lora_modules": ["x=y"]}),
        "arg_dict has lora_modules",
    ),
    (
        lambda: VLLM(model="a/b", arg_dict={"model": "c/d"}),
        "arg_dict has model 'c/d' and the template has model= as well",
    ),
]


@pytest.mark.parametrize(("make_bad", "words"), BAD, ids=[words for _, words in BAD])
def test_a_wrong_description_is_refused_in_words_that_help(
    make_bad: Callable[[], Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_bad()
    assert words in str(caught.value)
    assert len(caught.value.problems) == 1


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        VLLM(port=0, mem="1GB", gpu=-1, env={"A": 1}, arg_dict={"nonsense": 1})
    assert str(caught.value).startswith("VLLM(…) has 5 problems:")
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize("value", ["hf_secret_value", "nvapi-value"])
def test_a_secret_given_in_place_of_its_name_is_not_repeated(value: str) -> None:
    for make_bad in (partial(VLLM, hf_secret=value), partial(NIM, secrets=value)):
        with pytest.raises(ConfigError) as caught:
            make_bad()
        assert value not in str(caught.value)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="healthendpoint"):
        _generic(healthendpoint="/x")


def test_a_description_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _generic().port = 1  # type: ignore[misc]


def test_a_variant_is_replaced() -> None:
    variant = dataclasses.replace(_generic(health_endpoint="/h"), port=9000)
    assert variant == _generic(health_endpoint="/h", port=9000)
    assert variant.base_url == "http://localhost:9000"


def test_what_the_caller_gave_can_change_later() -> None:
    env, args, volumes = {"A": "1"}, ["x"], [Volume(name="a", mount_path="/a")]
    base = {"metadata": {}, "spec": {"nodeSelector": {"pool": "gpu"}}}
    template = _generic(env=env, args=args, volumes=volumes, base=base)
    before = template.compile(HELPER)
    env["B"], base["spec"]["nodeSelector"]["pool"] = "2", "cpu"
    args.append("y")
    volumes.clear()
    assert template.compile(HELPER) == before


def test_what_lies_deeper_can_change_later_too() -> None:
    options, context = {"limit_mm_per_prompt": {"image": 2}}, {"capabilities": {"drop": ["ALL"]}}
    source: dict[str, Any] = {"emptyDir": {}}
    template = VLLM(
        arg_dict=options,
        security_context=context,
        volumes=[Volume(name="a", mount_path="/a", source=source)],
    )
    before = template.compile(HELPER)
    options["limit_mm_per_prompt"]["image"] = 99
    context["capabilities"]["add"] = ["SYS_ADMIN"]  # type: ignore[index]
    source["hostPath"] = {"path": "/"}
    assert template.compile(HELPER) == before


def test_what_a_reader_got_can_change_later() -> None:
    template = make("generic-full")
    before = copy.deepcopy(template.compile(HELPER))
    manifest = template.compile(HELPER)
    manifest["spec"]["volumes"].clear()
    manifest["spec"]["nodeSelector"]["pool"] = "cpu"
    for container in manifest["spec"]["initContainers"]:
        container.clear()
    assert template.compile(HELPER) == before


@pytest.mark.parametrize("name", CASES)
def test_a_description_survives_pickling_and_copying(name: str) -> None:
    template = make(name)
    assert pickle.loads(pickle.dumps(template)).compile(HELPER) == template.compile(HELPER)
    assert copy.deepcopy(template).compile(HELPER) == template.compile(HELPER)


@pytest.mark.parametrize(
    "given",
    [
        {"args": ["--key", "sk-" + "a1" * 15, 8]},
        {"command": "serve --key sk-" + "a1" * 15},
        {"env": {"AUTH": "Bearer sk-" + "a1" * 15}},
        {
            "base": {
                "spec": {"initContainers": [{"name": "model-server", "image": "sk-" + "a1" * 15}]}
            }
        },
    ],
)
def test_a_token_is_in_no_message(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        _generic(**given)
    assert "a1a1" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("env", [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
        (
            "env",
            [{"name": "_FSEC_HF_T", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}],
        ),
        ("startupProbe", {"tcpSocket": {"port": 8000}}),
    ],
)
def test_alternatives_of_base_and_template_are_a_conflict(field: str, value: Any) -> None:
    base = _base(initContainers=[{"name": "model-server", field: value}])
    with pytest.raises(SpecConflictError):
        VLLM(hf_secret=HFSecret(hf_token_key="t", hf_token_group="hf"), base=base)


def test_a_base_may_be_as_people_write_yaml() -> None:
    primary = {"name": "primary", "resources": {"limits": {"cpu": 2, "memory": "1Gi"}}, "env": None}
    noisy = {
        "name": "proxy",
        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "command": ["x"],
    }
    udp = {
        "name": "dns",
        "ports": [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}],
    }
    base = {"metadata": None, "spec": {"initContainers": None, "containers": [primary, noisy, udp]}}
    containers = _generic(base=base).compile(HELPER)["spec"]["containers"]
    assert [container["name"] for container in containers] == ["primary", "proxy", "dns"]
    assert containers[0]["resources"] == {"limits": {"cpu": "2", "memory": "1Gi"}}


def test_a_key_of_the_security_context_can_be_removed() -> None:
    assert (
        "seccompProfile"
        not in _server(_generic(security_context={"seccompProfile": None}))["securityContext"]
    )


def test_the_users_security_context_goes_before_the_servers() -> None:
    context = _server(NIM(secrets=NGC, security_context={"runAsUser": 1234}))["securityContext"]
    assert (context["runAsUser"], context["runAsNonRoot"]) == (1234, True)


@pytest.mark.parametrize("option", ["mem", "shm_size", "ephemeral_storage", "download_inputs_mem"])
def test_bytes_may_be_a_number(option: str) -> None:
    given = {"mem": 2**33, "download_inputs": True, option: 2**30 if option != "mem" else 2**33}
    assert str(given[option]) in str(_generic(**given).compile(HELPER))


def test_the_users_variable_goes_before_the_templates() -> None:
    server = _server(
        VLLM(
            env={"HF_HOME": "/models/hf", "HF_TOKEN": "$(MY_TOKEN)"},
            hf_secret=HFSecret(hf_token_key="t", hf_token_group="hf"),
        )
    )
    values = [(variable["name"], variable.get("value")) for variable in server["env"]]
    assert values == [
        ("INFERENCE_PORT", "8000"),
        ("_FSEC_HF_T", None),
        ("HUGGING_FACE_HUB_TOKEN", "$(_FSEC_HF_T)"),
        ("HOME", "/var/cache/inference"),
        ("VLLM_CACHE_ROOT", "/var/cache/inference/vllm"),
        ("HF_HOME", "/models/hf"),
        ("HF_TOKEN", "$(MY_TOKEN)"),
    ]


@pytest.mark.parametrize("port", [8000, 9001])
def test_the_port_reaches_every_server(port: int) -> None:
    nim = {
        variable["name"]: variable.get("value")
        for variable in _server(NIM(secrets=NGC, port=port))["env"]
    }
    assert nim["NIM_SERVER_PORT"] == nim["NIM_HTTP_API_PORT"] == str(port)
    vllm = _server(VLLM(port=port))
    assert vllm["args"][:4] == ["--host", "0.0.0.0", "--port", str(port)]
    assert vllm["startupProbe"]["httpGet"]["port"] == vllm["ports"][0]["containerPort"] == port


def test_a_model_and_an_address_in_arg_dict_are_the_templates_own() -> None:
    options = {"seed": 1, "model": "a/b", "host": "::", "port": 8000}
    assert _server(VLLM(arg_dict=options))["args"] == [
        "a/b",
        "--host",
        "::",
        "--port",
        "8000",
        "--seed",
        "1",
    ]


def test_a_vllm_without_a_secret_has_no_token() -> None:
    assert not [variable for variable in _server(VLLM())["env"] if "TOKEN" in variable["name"]]


def test_the_users_command_and_arguments() -> None:
    server = _server(VLLM(command=["my-vllm"], args=["--new-option"], arg_dict={"seed": 1}))
    assert server["command"] == ["my-vllm"]
    assert server["args"][-3:] == ["--seed", "1", "--new-option"]


def test_a_grace_period_may_be_a_timedelta() -> None:
    pod = _generic(termination_grace_period=timedelta(minutes=2)).compile(HELPER)
    assert pod["spec"]["terminationGracePeriodSeconds"] == 120


def test_a_base_that_differs_is_refused_when_the_description_is_made() -> None:
    base = {
        "metadata": {},
        "spec": {
            "volumes": [{"name": "tmp", "hostPath": {"path": "/tmp"}}],
            "initContainers": [{"name": "model-server", "image": "other:1"}],
        },
    }
    with pytest.raises(SpecConflictError) as caught:
        _generic(base=base)
    assert caught.value.problems == (
        'spec.initContainers[model-server].image: base has "other:1", the template has "server:1"',
        'spec.volumes[tmp]: base has {"hostPath": {"path": "/tmp"}, "name": "tmp"}, '
        'the template has {"emptyDir": {}, "name": "tmp"}',
    )


def test_a_base_whose_container_takes_the_port_is_refused() -> None:
    base = {
        "metadata": {},
        "spec": {"containers": [{"name": "proxy", "ports": [{"containerPort": 8000}]}]},
    }
    with pytest.raises(ConfigError, match="port 8000 is wanted by 'model-server' and 'proxy'"):
        _generic(base=base)


def test_bound_inputs_reach_the_downloader() -> None:
    pod = _generic(download_inputs=True).compile(HELPER, bound_inputs=["model"])
    assert pod["spec"]["initContainers"][0]["args"][-2:] == ["--bound", "model"]


class TestWarnings:
    """What works, but not everywhere, is said where the description is made."""

    def test_a_secret_without_a_group(self) -> None:
        with pytest.warns(InferenceWarning, match="'t' has no group") as caught:
            VLLM(hf_secret=HFSecret(hf_token_key="t"))
        assert caught[0].filename == __file__

    def test_nothing_else_warns(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _generic(download_inputs=True)
            VLLM(hf_secret=HFSecret(hf_token_key="t", hf_token_group="hf"), model="a/b")
            NIM(secrets=NGC)


def test_a_users_subclass_adds_what_differs() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Echo(ModelInferenceTemplate):
        word: str = "hello"

        def server(self) -> Server:
            return Server(
                command=("echo-server",), args=(self.word,), port_variables=("ECHO_PORT",)
            )

    server = _server(Echo(image="echo:1", word="hi", args=["--loud"], port=7000))
    assert (server["command"], server["args"]) == (["echo-server"], ["hi", "--loud"])
    assert {"name": "ECHO_PORT", "value": "7000"} in server["env"]


class TestStart:
    """Which containers there are, in which order, and who waits for whom."""

    @staticmethod
    def _order(template: ModelInferenceTemplate) -> list[str]:
        return [
            container["name"] for container in template.compile(HELPER)["spec"]["initContainers"]
        ]

    @staticmethod
    def _startup(template: ModelInferenceTemplate) -> set[str]:
        containers = template.compile(HELPER)["spec"]["initContainers"]
        return {container["name"] for container in containers if "startupProbe" in container}

    def test_by_probes_what_the_server_needs_stands_before_it_and_is_waited_for(self) -> None:
        template = VLLM(model="a/b", download_inputs=True)
        assert self._order(template) == ["input-downloader", "model-loader", "model-server"]
        assert self._startup(template) == {"model-loader", "model-server"}

    def test_by_a_gate_everything_starts_at_once_and_the_servers_command_waits(self) -> None:
        template = VLLM(model="a/b", download_inputs=True, startup_timeout=60)
        order = ["preflight", "model-loader", "model-server", "input-downloader", "server-gate"]
        assert self._order(template) == order
        assert self._startup(template) == set()
        command = _server(template)["command"]
        assert command[3:] == [
            "wait",
            "/models/.ready",
            "/shared/inputs.json",
            "--",
            "vllm",
            "serve",
        ]

    def test_an_images_own_entry_point_cannot_wait_so_the_model_is_waited_for_in_front_of_it(
        self,
    ) -> None:
        template = _generic(
            model="s3://bucket/model", health_endpoint="/health", startup_timeout=60
        )
        assert self._order(template) == [
            "preflight",
            "model-loader",
            "model-gate",
            "model-server",
            "server-gate",
        ]
        assert self._startup(template) == set(), (
            "a probe would hold back the gates, which bound the start"
        )
        gate = next(
            c
            for c in template.compile(HELPER)["spec"]["initContainers"]
            if c["name"] == "model-gate"
        )
        assert gate["args"] == ["--models", "/models", "--timeout", "60"]

    def test_a_token_is_looked_for_first(self) -> None:
        secret = HFSecret(hf_token_key="t", hf_token_group="hf")
        template = VLLM(model="a/b", hf_secret=secret, startup_timeout=60)
        first = template.compile(HELPER)["spec"]["initContainers"][0]
        assert first["name"] == "preflight"
        assert first["args"][-4:] == [
            "--require-env",
            "HF_TOKEN",
            "--require-env",
            "HUGGING_FACE_HUB_TOKEN",
        ]
        assert first["env"][0]["name"] == "_FSEC_HF_T"

    def test_the_budget_follows_the_models_size(self) -> None:
        def budget(model: Any) -> str:
            args = VLLM(model=model, startup_timeout="auto").compile(HELPER)["spec"][
                "initContainers"
            ][-1]["args"]
            return str(args[args.index("--timeout") + 1])

        assert budget("a/b") == "1800"
        assert budget(HuggingFaceModel(repo="a/b", size="100Gi")) == str(600 + 2 * 1024)

    def test_what_the_loader_will_bring_is_looked_at_first_with_its_own_memory(self) -> None:
        template = VLLM(
            model="a/b@v1",
            lora_adapters={"sql": "c/d"},
            model_loader_mem="3Gi",
            startup_timeout=60,
            helper_image="t:1",
        )
        containers = {c["name"]: c for c in template.compile(HELPER)["spec"]["initContainers"]}
        first = containers["preflight"]
        assert first["command"][-1].endswith("programs.load_model")
        assert first["args"] == [
            *(
                "hf://a/b",
                "--revision",
                "v1",
                "--adapter",
                "sql=c/d",
                "--adapters-directory",
                "/adapters",
            ),
            *("--cache", "/model-cache", "--check"),
        ]
        assert first["resources"] == containers["model-loader"]["resources"]
        assert {
            "name": "inference-model-cache",
            "mountPath": "/model-cache",
            "readOnly": True,
        } in first["volumeMounts"]

    def test_every_container_that_ends_knows_when_the_start_must_be_over(self) -> None:
        template = VLLM(
            model="a/b",
            lora_adapters={"x": "c/d"},
            download_inputs=True,
            startup_timeout=60,
            helper_image="t:1",
        )
        told = {
            container["name"]: {v["name"]: v.get("value") for v in container.get("env", ())}.get(
                "INFERENCE_START"
            )
            for container in template.compile(HELPER)["spec"]["initContainers"]
        }
        bound = '{"seconds": 60, "clock": "/shared/start-clock"}'
        ending = ("preflight", "download-loras", "input-downloader", "server-gate")
        assert told == {**dict.fromkeys(ending, bound), "model-loader": None, "model-server": None}

    @pytest.mark.parametrize(
        ("kind", "variable", "options"),
        [
            (VLLM, "VLLM_API_KEY", {}),
            (LlamaCpp, "LLAMA_API_KEY", {"model_file": "b.gguf"}),
            (TEI, "API_KEY", {"arg_dict": {"auto_truncate": False}}),
        ],
    )
    def test_a_servers_key_reaches_the_server_the_gate_and_the_task(
        self, monkeypatch: pytest.MonkeyPatch, kind: Any, variable: str, options: dict[str, Any]
    ) -> None:
        key = APIKeySecret(group="llm", key="key")
        template = kind(model="a/b", api_key_secret=key, startup_timeout=60, **options)
        containers = {c["name"]: c for c in template.compile(HELPER)["spec"]["initContainers"]}
        for name in ("preflight", "model-server", "server-gate"):
            assert {"name": variable, "value": "$(_FSEC_LLM_KEY)"} in containers[name]["env"]
        assert containers["server-gate"]["args"][-2:] == ["--token-env", variable]
        assert containers["preflight"]["args"][-2:] == ["--require-env", variable]
        assert [(secret.group, secret.key) for secret in template.secret_requests] == [
            ("llm", "key")
        ]
        monkeypatch.setenv("_FSEC_LLM_KEY", "geheim")
        assert template.endpoint.api_key == "geheim"
        assert "geheim" not in repr(template.endpoint)

    def test_what_the_user_gives_the_loader_reaches_all_that_bring_and_check(self) -> None:
        template = VLLM(
            model="a/b",
            lora_adapters={"x": "c/d"},
            model_loader_env={"HF_ENDPOINT": "https://hub.example.com"},
            model_cache={"persistentVolumeClaim": {"claimName": "models"}},
            model_cache_limit="500Gi",
            startup_timeout=60,
            helper_image="t:1",
        )
        pod = template.compile(HELPER)["spec"]
        containers = {c["name"]: c for c in pod["initContainers"]}
        for name in ("preflight", "model-loader", "download-loras"):
            assert {"name": "HF_ENDPOINT", "value": "https://hub.example.com"} in containers[name][
                "env"
            ]
            args = containers[name]["args"]
            assert args[args.index("--cache-limit") + 1] == "500Gi"
        assert "HF_ENDPOINT" not in {
            variable["name"] for variable in containers["model-server"]["env"]
        }
        assert pod["securityContext"] == {"fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"}

    def test_a_claim_that_only_the_server_reads_keeps_its_owner(self) -> None:
        assert "securityContext" not in VLLM(model="s3://a/b").compile(HELPER)["spec"]

    def test_what_is_there_only_later_is_not_looked_at(self) -> None:
        for model in ("input:weights", VolumeModel(volume={"hostPath": {"path": "/m"}})):
            assert "preflight" not in self._order(
                _generic(model=model, download_inputs=True, startup_timeout=60)
            )

    def test_a_gated_model_of_any_server_brings_its_token_to_the_loader_only(self) -> None:
        model = HuggingFaceModel(repo="a/b", secret=HFSecret(hf_token_key="t", hf_token_group="hf"))
        template = _generic(model=model, startup_timeout=60)
        containers = {c["name"]: c for c in template.compile(HELPER)["spec"]["initContainers"]}
        for name in ("preflight", "model-loader"):
            assert [variable["name"] for variable in containers[name]["env"]][:2] == [
                "_FSEC_HF_T",
                "HF_TOKEN",
            ]
        assert "HF_TOKEN" not in {
            variable["name"] for variable in containers["model-server"]["env"]
        }
        assert [(secret.group, secret.key) for secret in template.secret_requests] == [("hf", "t")]

    def test_a_model_is_read_only_for_all_but_the_loader(self) -> None:
        pod = VLLM(model="a/b", startup_timeout=60).compile(HELPER)
        for container in pod["spec"]["initContainers"]:
            for mount in container["volumeMounts"]:
                if mount["mountPath"] in ("/models", "/model-cache"):
                    assert mount.get("readOnly", False) == (container["name"] != "model-loader")

    def test_the_name_under_which_the_gate_asks_is_the_servers(self) -> None:
        for options, name in (({"model": "a/b"}, "a/b"), ({"arg_dict": {"model": "c/d"}}, "c/d")):
            pod = VLLM(**options, startup_timeout=60).compile(HELPER)  # type: ignore[arg-type]
            args = pod["spec"]["initContainers"][-1]["args"]
            assert args[args.index("--model") + 1] == name
        named = VLLM(
            model="a/b", arg_dict={"served_model_name": ["x", "y"]}, startup_timeout=60
        ).compile(HELPER)
        assert "x" in named["spec"]["initContainers"][-1]["args"]

    def test_flytekits_image_has_no_client_of_hubs(self) -> None:
        bare = Helper(image="flytekit", bundled=True)
        with pytest.raises(ConfigError, match=r"its extra huggingface.*image_spec"):
            VLLM(model="a/b").compile(bare)
        VLLM(model="s3://a/b").compile(bare)


class TestAdapters:
    """LoRA adapters are brought before the server starts."""

    @staticmethod
    def _downloader(template: ModelInferenceTemplate, helper: Helper = HELPER) -> dict[str, Any]:
        containers = template.compile(helper)["spec"]["initContainers"]
        return next(container for container in containers if container["name"] == "download-loras")

    def test_of_nim_do_not_collide_and_can_be_pinned(self) -> None:
        secrets = dataclasses.replace(NGC, hf_token_key="t", hf_token_group="hf")
        template = NIM(
            secrets=secrets,
            hf_repo_ids=["a/lora", "b/lora@v2"],
            lora_adapter_mem="3Gi",
            env=LORA_ENV,
        )
        container = self._downloader(template)
        expected = ["--adapter", "a--lora=hf://a/lora", "--adapter", "b--lora=hf://b/lora@v2"]
        assert container["args"][:4] == expected
        assert container["args"][container["args"].index("--adapters-directory") + 1] == "/adapters"
        assert "--once" in container["args"]
        assert container["resources"]["limits"]["memory"] == "3Gi"
        assert [variable["name"] for variable in container["env"]] == ["_FSEC_HF_T", "HF_TOKEN"]
        assert "/adapters" in {mount["mountPath"] for mount in _server(template)["volumeMounts"]}

    def test_of_vllm_are_static_modules(self) -> None:
        server = _server(VLLM(lora_adapters={"sql": "a/sql-lora", "chat": "s3://b/chat"}))
        assert server["args"][-6:] == [
            *(
                "--enable-lora",
                "--max-loras",
                "3",
                "--lora-modules",
                "sql=/adapters/sql",
                "chat=/adapters/chat",
            )
        ]
        enabled = _server(VLLM(lora_adapters={"sql": "a/b"}, arg_dict={"enable_lora": True}))
        assert enabled["args"].count("--enable-lora") == 1
        chosen = _server(VLLM(lora_adapters={"sql": "a/b"}, arg_dict={"max_loras": 8}))
        assert chosen["args"].count("--max-loras") == 1

    def test_without_a_helper_image_their_client_is_installed_at_the_start_and_never_with_one(
        self,
    ) -> None:
        template = VLLM(lora_adapters={"sql": "a/b"})
        bare = self._downloader(template, Helper(image="flytekit", bundled=True))
        assert bare["image"].startswith("python:3.12")
        assert "pip install" in bare["command"][2]
        own = self._downloader(template)
        assert own["image"] == "helper:1"
        assert own["command"] == ["python", "-m", "flytekitplugins.inference.programs.load_model"]


@pytest.mark.parametrize(
    ("options", "image", "shm"),
    [
        ({}, "vllm/vllm-openai", "2Gi"),
        ({"gpu": 2, "mem": "32Gi"}, "vllm/vllm-openai", "4Gi"),
        ({"gpu": 8, "mem": "64Gi"}, "vllm/vllm-openai", "8Gi"),
        ({"gpu_resource": "gpu"}, "vllm/vllm-openai", "2Gi"),
        ({"gpu_resource": "nvidia.com/mig-1g.10gb"}, "vllm/vllm-openai", "2Gi"),
        ({"gpu_resource": "amd.com/gpu"}, "vllm/vllm-openai-rocm", "2Gi"),
        ({"gpu": 0}, "vllm/vllm-openai-cpu", "4Gi"),
        ({"gpu": 4, "shm_size": "1Gi", "image": "acme/vllm:1"}, "acme/vllm", "1Gi"),
    ],
)
def test_vllm_follows_the_hardware(options: dict[str, Any], image: str, shm: str) -> None:
    template = VLLM(**options)
    assert _server(template)["image"].partition(":")[0] == image
    (volume,) = (
        v for v in template.compile(HELPER)["spec"]["volumes"] if v["name"] == "inference-shm"
    )
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": shm}


def test_gpus_that_nothing_uses_are_told() -> None:
    with pytest.warns(
        InferenceWarning, match="gpu=4, but arg_dict uses 2: give tensor_parallel_size"
    ):
        VLLM(model="a/b", gpu=4, mem="32Gi", arg_dict={"tensor_parallel_size": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VLLM(
            model="a/b",
            gpu=4,
            mem="32Gi",
            arg_dict={"tensor_parallel_size": 2, "data-parallel-size": 2},
        )


def test_a_model_that_is_not_named_is_told() -> None:
    with pytest.warns(InferenceWarning, match="no model is named"):
        VLLM()


@pytest.mark.parametrize("vendor", ["habana.ai/gaudi", "google.com/tpu", "gpu.intel.com/i915"])
def test_gpus_for_which_there_is_no_image_are_refused(vendor: str) -> None:
    with pytest.raises(ConfigError, match="VLLM has no image of its own for it; give image="):
        VLLM(model="a/b", gpu_resource=vendor)
    assert VLLM(model="a/b", gpu_resource=vendor, image="acme/vllm:1").image


@pytest.mark.parametrize("mem", [4, "4", "1000"])
def test_memory_of_a_few_bytes_is_refused(mem: Any) -> None:
    with pytest.raises(ConfigError, match=r"bytes; did you mean '\d+Gi'"):
        _generic(mem=mem)


@pytest.mark.parametrize(
    ("arg_dict", "words"),
    [
        (
            {"max_lora_rank": 64},
            "max_lora_rank, which vLLM ignores without enable_lora=True",
        ),
        ({"disable-log-stats": True}, "disable_log_stats, which empties /metrics"),
    ],
)
def test_options_without_effect_are_warned_about(arg_dict: dict[str, Any], words: str) -> None:
    with pytest.warns(InferenceWarning, match=words):
        VLLM(arg_dict=arg_dict)
    if "max_lora_rank" in arg_dict:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            VLLM(model="a/b", arg_dict={**arg_dict, "enable_lora": True})
            VLLM(model="a/b", arg_dict=arg_dict, lora_adapters={"sql": "acme/sql"})
