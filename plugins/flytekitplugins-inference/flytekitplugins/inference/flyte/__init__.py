"""EDGE 1: manifests → flytekit. With `kubernetes`, imported nowhere else in this package, and only on use."""
