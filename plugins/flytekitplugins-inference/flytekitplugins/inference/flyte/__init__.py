"""EDGE 1: manifests → flytekit. With `kubernetes`, imported nowhere else in this package, and only on use."""

import flytekit  # noqa: F401 - first of all: it imports `register`, which needs the modules of this room complete
