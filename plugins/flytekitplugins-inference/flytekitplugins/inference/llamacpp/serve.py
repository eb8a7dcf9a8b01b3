"""`LlamaCpp`: llama.cpp's `llama-server`.

Facts: llama.cpp b11549, `llama-server --help`, `tools/server/README.md`, `.devops/*.Dockerfile`,
`docs/docker.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from ..errors import ConfigError
from ..facts.metric_names import FAMILIES
from ..pod import check
from ..pod.adapters import WithHubToken
from ..pod.arguments import WithArguments
from ..pod.flags import OptionTable
from ..pod.images import ServerImage
from ..pod.model import Model
from ..pod.names import path_problem
from ..pod.parts import CACHE_DIRECTORY, EnvVar, Volume
from ..pod.quantity import format_quantity, parse_quantity
from ..pod.secrets import HFSecret
from ..pod.server import Server
from ..sidecar_template import ModelInferenceTemplate
from . import options
from .model_file import file_problems, gguf_file

__all__ = ["HFSecret", "LlamaCpp"]

BUILD = "b11382"
"""The newest build with images for all hardware (October 2026); images are built once a day, not
for every build."""
IMAGES = {
    "": "server",
    "nvidia.com": "server-cuda",
    "amd.com": "server-rocm",
    "gpu.intel.com": "server-vulkan",
}
"""Tags by the vendor in `gpu_resource`; `server-cuda` is for CUDA 12, `server-cuda13` for 13."""
REPOSITORY = "ghcr.io/ggml-org/llama.cpp"
PUBLISHED = tuple(
    ServerImage(
        reference=f"{REPOSITORY}:{tag}-{BUILD}",
        hardware=hardware,
        source="github.com/ggml-org/llama.cpp, docs/docker.md",
        date="2026-10",
    )
    for tag, hardware in (
        (IMAGES["nvidia.com"], "NVIDIA GPUs"),
        (IMAGES["amd.com"], "AMD GPUs"),
        (IMAGES["gpu.intel.com"], "Intel GPUs"),
        (IMAGES[""], "CPUs"),
    )
)
MEBIBYTE = 2**20
LARGEST_CACHE_RAM = 8192
"""MiB of prompts that the server keeps by default, even if the container's limit is lower."""

OPTIONS = OptionTable.read(
    options,
    server="llama.cpp",
    secret={
        "api_key": "give api_key_secret=",
        "hf_token": "give hf_secret=",
    },
    has_keys=False,
)


@dataclass(frozen=True, kw_only=True)
class LlamaCpp(WithArguments, WithHubToken, ModelInferenceTemplate[Literal["openai"]]):
    """A llama.cpp server beside a task.

    Raises:
        ConfigError: If the description is wrong, or `arg_dict` has an option that llama.cpp does
            not.

    Example:
        ```python
        LlamaCpp(
            model="s3://models/qwen2.5-0.5b-instruct-q4_k_m.gguf",
            arg_dict={"ctx_size": 8192},
            gpu=0,
            cpu=4,
            mem="4Gi",
        )
        ```
    """

    arg_dict: Mapping[str, Any] | None = None
    """Options of `llama-server`, long or short, with `_` or `-`. Without `model=`, one of them
    names the model that the server downloads: `hf_repo`, with a quantisation. Options newer than
    `OPTIONS` go into `args`."""
    model_file: str | None = None
    """The GGUF file, relative to `model=`; for a split model, its first part. It may be omitted if
    `model=` determines it: by a store's URI or a volume's path that ends in `.gguf`, or by an
    `include=` with that one name."""
    lora_files: Sequence[str] = ()
    """GGUF adapters, absolute or relative to `model=`. The server loads them with scale 0; a
    request uses the first one with `"lora": [{"id": 0, "scale": 1.0}]`."""

    health_endpoint: str | None = "/health"
    """HTTP path that answers 200 once the model is loaded; becomes the startup probe."""
    port: int = 8080
    """The port the server listens on; the image's own health check uses the default."""
    cpu: int | float | str = 4
    """Cores; requests and limits."""
    mem: str = "8Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""

    published_images = PUBLISHED
    release_parts = 1
    option_table = OPTIONS
    exclusive_options = MappingProxyType({"lora": "lora_files", "lora_scaled": "lora_files"})
    image_vendors = frozenset({"gpu", *IMAGES} - {""})

    @property
    def default_image(self) -> str:
        """The image for the vendor's GPUs, or for CPUs if `gpu` is 0."""
        vendor = str(self.gpu_resource).partition("/")[0] if self.gpu else ""
        return f"{REPOSITORY}:{IMAGES.get(vendor, IMAGES['nvidia.com'])}-{BUILD}"

    def server(self) -> Server:
        """Return what llama.cpp needs."""
        name, token = self._served_model_name(), self.token_reference()
        has_metrics = not self._is_router and (
            self._option("metrics") is None or self._option("metrics") not in _OFF
        )
        home = (
            EnvVar(name="LLAMA_CACHE", value=f"{CACHE_DIRECTORY}/llama.cpp"),
            EnvVar(name="HF_HOME", value=f"{CACHE_DIRECTORY}/huggingface"),
        )
        cache = Volume(name="inference-cache", mount_path=CACHE_DIRECTORY)
        return Server(
            # not on the image's PATH
            command=("/app/llama-server",),
            args=(
                *(("--model", self._model_file_path()) if self.model is not None else ()),
                *self.address_arguments(),
                *(("--alias", name) if name and self._option("alias") is None else ()),
                *(("--metrics",) if has_metrics else ()),
                *self._sizes(),
                *self.other_arguments("host", "port", "metrics"),
                *self._lora_arguments(),
            ),
            env=(*self.token_variables("HF_TOKEN"), *(() if self.model is not None else home)),
            secrets=(token,) if token else (),
            api_key_variable="LLAMA_API_KEY",
            model_api="openai",
            served_model_name=name,
            metrics_path="/metrics" if has_metrics else "",
            metric_names=FAMILIES["llamacpp"] if has_metrics else {},
            hub_token=token,
            # without model= the server downloads weights, which would fill the container's disk and
            # get the pod evicted
            volumes=() if self.model is not None else (cache,),
        )

    def _sizes(self) -> tuple[str, ...]:
        """Return the sizes that the server would otherwise derive from the whole node."""
        # a container with a thread for each core of the node is throttled
        threads = max(1, int(parse_quantity(format_quantity(self.cpu))))
        ours = {
            "threads": str(threads),
            "cache_ram": str(min(LARGEST_CACHE_RAM, self._mem_mebibytes() // 4)),
            # by default, layers that do not fit stay on the CPUs: a tenth of the speed, no message
            "n_gpu_layers": "all" if self.gpu else None,
        }
        missing = {
            name: value
            for name, value in ours.items()
            if value is not None and self._option(name) is None
        }
        return tuple(
            word
            for name, value in missing.items()
            for word in (f"--{name.replace('_', '-')}", value)
        )

    def _mem_mebibytes(self) -> int:
        return int(parse_quantity(format_quantity(self.mem)) / MEBIBYTE)

    def _model_file_path(self) -> str:
        source, place = self.model_source, self.model_path or ""
        file = gguf_file(source, self.model_file) if source is not None else None
        return f"{place}/{file}" if file else place

    def _lora_arguments(self) -> tuple[str, ...]:
        """Return the adapters, each with scale 0.

        `--lora-init-without-apply` leaves them applied (ggml-org/llama.cpp#28674).
        """
        paths = [
            file if file.startswith("/") else f"{self.model_path}/{file}"
            for file in self.lora_files
        ]
        return ("--lora-scaled", ",".join(f"{path}:0" for path in paths)) if paths else ()

    def _option(self, name: str) -> Any:
        """Return an option's value: that of its argument, or else that of its variable."""
        variables = {
            options.ENVIRONMENT.get(key): value for key, value in _mapping(self.env).items()
        }
        return self.argument(name, variables.get(name))

    @property
    def _is_router(self) -> bool:
        """Whether the server starts one process for each model, on the first request for it."""
        return self._option("models_dir") is not None or self._option("models_preset") is not None

    def _served_model_name(self) -> str:
        alias = self._option("alias")
        if self._is_router:
            return ""
        if alias is not None:
            return str(alias if isinstance(alias, str) else alias[0]).partition(",")[0]
        if self.model_source is not None:
            return self.model_source.name.removesuffix(".gguf")
        return str(self._option("hf_repo") or self._option("model") or "")

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from super().problems()
        yield from self._source_problems()
        yield from self._lora_problems()
        yield from self._variable_problems()
        for name, why in _REFUSED.items():
            if self._option(name) not in _OFF:
                yield f"{name}: {why}; leave it out"
        for word in self.args if isinstance(self.args, (list, tuple)) else ():
            name = OPTIONS.canonical(str(word).partition("=")[0])
            if str(word).startswith("-") and name in _REFUSED:
                yield f"args: {word!r}: {_REFUSED[name]}; leave it out"
        yield from self._hardware_problems()

    def _source_problems(self) -> Iterator[str]:
        sources = [name for name in _MODEL_OPTIONS if self._option(name) not in _OFF]
        if self.model is None and not sources:
            yield "the model is missing: give model=, or arg_dict={'hf_repo': 'owner/name:Q4_K_M'}"
        if self.model is None and self.model_file is not None:
            yield (f"model_file={self.model_file!r} is relative to model=, and there is no model")
        if self.model is not None and sources:
            yield f"{sources[0]} and model= both name the model; give one of them"
        if isinstance(source := self._sound_source(), get_args(Model)):
            yield from file_problems(source, self.model_file)

    def _sound_source(self) -> Model | None:
        try:
            return self.model_source
        except ConfigError:  # `super().problems()` has reported it
            return None

    def _lora_problems(self) -> Iterator[str]:
        if isinstance(self.lora_files, str) or not isinstance(self.lora_files, (list, tuple)):
            yield f"lora_files must be a list of GGUF files, not {self.lora_files!r}"
            return
        for file in self.lora_files:
            if not isinstance(file, str) or not file.endswith(".gguf") or set(file) & set(",:"):
                yield (
                    f"lora_files: {file!r} is not a GGUF file without ',' and ':', such as "
                    "'sql-lora.gguf'"
                )
            elif problem := path_problem(file if file.startswith("/") else f"/{file}"):
                yield f"lora_files: {problem}"
            elif self.model is None and not file.startswith("/"):
                yield (f"lora_files: {file!r} is relative to model=, and there is no model")

    def _variable_problems(self) -> Iterator[str]:
        """Yield variables that an argument would silently overrule: each option has one."""
        for key in _mapping(self.env):
            name = options.ENVIRONMENT.get(key, "")
            if name in OPTIONS.secret:
                yield (
                    f"env[{key!r}] would put a secret into the pod's specification; "
                    f"{OPTIONS.secret[name]}"
                )
            elif name in ("host", "port"):
                yield f"env[{key!r}] is overruled by the template's --{name}; give port= instead"
            elif self.argument(name) is not None:
                yield f"env[{key!r}] is overruled by {name} in arg_dict; give one of them"

    def _hardware_problems(self) -> Iterator[str]:
        layers, cache, split = (
            self._option(name) for name in ("n_gpu_layers", "cache_ram", "tensor_split")
        )
        if self.gpu == 0 and layers not in (None, 0, "0"):
            yield f"n_gpu_layers is {layers!r}, but the template has gpu=0"
        parts = len(split) if isinstance(split, (list, tuple)) else str(split or "").count(",") + 1
        if isinstance(self.gpu, int) and 0 < self.gpu < parts:
            yield f"tensor_split has {parts} parts, the template has gpu={self.gpu}"
        has_mem = not list(check.check_quantity("mem", self.mem, memory=True))
        if isinstance(cache, int) and has_mem and cache >= self._mem_mebibytes():
            yield (
                f"cache_ram is {cache} MiB, which does not fit into mem={self.mem!r} beside the "
                "model"
            )

    def cautions(self) -> Iterator[str]:
        """Yield warnings: what is valid but may not do what its author expects."""
        yield from super().cautions()
        repository = str(self._option("hf_repo") or "")
        if repository and ":" not in repository and self._option("hf_file") is None:
            yield (
                f"hf_repo={repository!r} names no quantisation: the server takes Q4_K_M, or else "
                "the first file"
            )
        if self._option("cache_ram") in (-1, "-1"):
            yield (
                "cache_ram=-1 lets the prompt cache grow until the container exceeds its memory "
                "limit and is killed"
            )
        if self.update_interval is not None:
            yield (
                "update_interval: llama.cpp cannot load another version while it runs; the pod "
                "keeps the first"
            )


_OFF = (None, False, "", "0", "off", "false", "disabled")
"""Values of options, or of their variables, that switch something off."""
_PRESETS = tuple(
    sorted(
        name
        for name in OPTIONS.switches
        if name.endswith(("_default", "_spec")) and name[:4] != "spec"
    )
)
_MODEL_OPTIONS = (
    "model",
    "hf_repo",
    "hf_file",
    "model_url",
    "docker_repo",
    "models_dir",
    "models_preset",
    *_PRESETS,
)
_COMMANDS = "anyone who can reach the server's port could read files and run commands in the pod"
_NO_PROBES = "the server would not answer plain HTTP under the paths of its probes"
_REFUSED = {
    **dict.fromkeys(
        ("tools", "tools_runtime", "agent", "mcp_servers_config", "mcp_servers_json"), _COMMANDS
    ),
    "ui_mcp_proxy": "anyone who can reach the server's port could make requests from the pod",
    **dict.fromkeys(("ssl_cert_file", "ssl_key_file", "api_prefix"), _NO_PROBES),
}


def _mapping(env: Any) -> Mapping[str, Any]:
    return env if isinstance(env, Mapping) else {}  # called before the type of `env` is checked
