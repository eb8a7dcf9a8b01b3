"""Secret references → `flytekit.Secret`s."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from flytekit import Secret
from flytekit.configuration.plugin import get_plugin

from ..pod.secrets import SecretReference
from ..sidecar_template import InferenceWarning

__all__ = ["to_secret_requests"]


def to_secret_requests(secrets: Iterable[SecretReference]) -> list[Secret]:
    """Return what `@task(secret_requests=…)` takes.

    Where the platform requires groups, a secret without one is left out with a warning: flytekit
    would refuse it.
    """
    requests = []
    for secret in dict.fromkeys(secrets):
        if secret.group is None and get_plugin().secret_requires_group():
            warnings.warn(
                f"The secret {secret.key!r} has no group and cannot be requested on this "
                "platform; give its group.",
                InferenceWarning,
                stacklevel=3,
            )
            continue
        requests.append(
            Secret(group=secret.group, key=secret.key, mount_requirement=Secret.MountType.ENV_VAR)
        )
    return requests
