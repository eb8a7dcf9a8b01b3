"""Converts secret references to `flytekit.Secret`s."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from flytekit import Secret
from flytekit.configuration.plugin import get_plugin

from ..pod.secrets import SecretReference
from ..sidecar_template import InferenceWarning

__all__ = ["to_secret_requests"]


def to_secret_requests(secrets: Iterable[SecretReference]) -> list[Secret]:
    """Return the secrets for `@task(secret_requests=…)`.

    If the platform requires groups, a secret without one is omitted with a warning, because
    flytekit would refuse it.
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
