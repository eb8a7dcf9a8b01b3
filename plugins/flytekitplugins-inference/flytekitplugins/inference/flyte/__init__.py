"""Manifests → flytekit: the only room that imports flytekit and `kubernetes`, and only on use."""

import flytekit  # noqa: F401 - first of all: it imports `register`, which needs the modules of this room complete
