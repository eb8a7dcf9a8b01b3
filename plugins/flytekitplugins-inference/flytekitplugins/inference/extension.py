"""The interface for model servers of other distributions: everything that their authors import.

A server is a frozen, keyword-only dataclass that extends `ModelInferenceTemplate`:

| override | to define |
|---|---|
| fields, with their defaults | what users choose: the port, the memory, more fields of its own |
| `default_image` | the image if the user gives none; empty if the user must give one |
| `image_vendors` | the vendors of GPUs (`"nvidia.com"`, …) that `default_image` supports |
| `template_variables` | variables that `env` must not set → what to do instead |
| `server()` | the server's needs, as a `Server`: command, arguments, variables, volumes, metrics |
| `problems()` | the problems of the fields, after `yield from super().problems()` |
| `cautions()` | warnings about valid but surprising fields, after those of `super()` |

`server()` and `cautions()` are only called on a description without problems. Both may read
`model_path`, `model_source`, `startup_seconds` and `api_key`.

Three classes add what many servers have in common. They go before `ModelInferenceTemplate` in the
list of bases:

- `WithArguments`, for a server that reads options from its command line: the field `arg_dict`,
  checked against an `OptionTable`; the methods `argument`, `other_arguments`, `address_arguments`
  and `served_name`; class variables for options that only the template may write, that exclude a
  field, or with which the server does not answer plain HTTP.
- `WithHubToken`, for one that downloads from the Hugging Face hub: the field `hf_secret`; the
  methods `token_reference` and `token_variables`.
- `WithAdapters`, for one that serves LoRA adapters in PEFT's format, and is a `WithHubToken` as
  well: the field `lora_adapters`; the methods `adapters` and `adapter_paths`.

Register the class as an entry point of the group `flytekitplugins.inference.servers`, and hold it
to `unanswered` in a test.

Stable, in the sense of semantic versioning: the names in `__all__`, with those of their fields,
methods and class variables that do not begin with an underscore, and the name of the group. They
change incompatibly only in a new major version, after a warning in a minor version where one is
possible. A minor version may add names, and questions to `unanswered`. `docs/stability.md` says
what else of this package is stable.
"""

from __future__ import annotations

from .errors import ConfigError
from .pod.adapters import ADAPTERS, WithAdapters, WithHubToken
from .pod.arguments import EVERY_ADDRESS, WithArguments
from .pod.flags import OptionTable
from .pod.parts import EnvVar, Helper, Probe, Probes, Volume
from .pod.secrets import HFSecret, SecretReference
from .pod.server import Adapters, Server, Setup
from .sidecar_template import ModelInferenceTemplate
from .testing import unanswered

__all__ = [
    "ADAPTERS",
    "EVERY_ADDRESS",
    "Adapters",
    "ConfigError",
    "EnvVar",
    "HFSecret",
    "Helper",
    "ModelInferenceTemplate",
    "OptionTable",
    "Probe",
    "Probes",
    "SecretReference",
    "Server",
    "Setup",
    "Volume",
    "WithAdapters",
    "WithArguments",
    "WithHubToken",
    "unanswered",
]
