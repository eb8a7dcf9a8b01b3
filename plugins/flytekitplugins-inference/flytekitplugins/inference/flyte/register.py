"""The `flytekit.plugins` entry point: makes `@task(task_config=template)` find its task class.

flytekit looks up a `task_config` by its exact type, and silently creates a plain task for an
unknown one. So every template type is registered, now and whenever one is defined later. flytekit
loads entry points without a guard: an error here would break `import flytekit` for everyone, so no
exception may leave this module.
"""

from __future__ import annotations

import logging

from ..distribution import NAME, foreign_files

try:
    from flytekit.core.task import TaskPlugins

    from .. import sidecar_template
    from .task import InferenceTask

    def _register(kind: type[sidecar_template.PodDescription]) -> None:
        TaskPlugins.register_pythontask_plugin(kind, InferenceTask)

    def _register_all(kind: type[sidecar_template.PodDescription]) -> None:
        _register(kind)
        for subclass in kind.__subclasses__():
            _register_all(subclass)

    _register_all(sidecar_template.PodDescription)
    sidecar_template._POD_TYPE_HOOKS.append(_register)
except Exception:  # see above: `import flytekit` must succeed
    why = foreign_files()
    logging.getLogger(__name__).error(
        "%s could not register with flytekit: @task(task_config=…) will ignore its templates. %s",
        NAME,
        why,
        exc_info=not why,
    )
