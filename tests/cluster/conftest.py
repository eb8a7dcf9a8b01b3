"""A cluster with images and stores, and namespaces in it: what the tests of real pods share.

They run on the cluster that `dev/cluster` says, and are skipped where there is none;
INFERENCE_REQUIRE_CLUSTER=1 fails them instead.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dev.kubernetes import instance
from dev.kubernetes.files import RUN, ClusterError, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

from cluster.api import Cluster, Namespace, connected
from cluster.flyte_platform import Platform
from cluster.surroundings import load_images, platform_of, start_stores

_NUMBERS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, with the images in it and the stores running."""
    try:
        kubeconfig = instance.require_kubeconfig()
    except ClusterError as error:
        if os.environ.get("INFERENCE_REQUIRE_CLUSTER") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    with connected(kubeconfig) as connection:
        with locked(RUN / "tests.lock", lambda: None):  # one worker prepares, the others wait
            load_images()
            start_stores(connection)
        yield connection


@pytest.fixture(scope="session")
def platform(cluster: Cluster) -> Platform:
    return platform_of(cluster)


@pytest.fixture(scope="session")
def make_namespace(cluster: Cluster) -> Iterator[Callable[..., Namespace]]:
    """Make a namespace of its own, which goes with the session."""
    made: list[Namespace] = []

    def make(**labels: str) -> Namespace:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        named = f"test-{worker}-{os.getpid()}-{next(_NUMBERS)}"
        made.append(cluster.namespace(named, labels))
        return made[-1]

    yield make
    for namespace in made:
        namespace.remove()


@pytest.fixture
def namespace(make_namespace: Callable[..., Namespace]) -> Namespace:
    return make_namespace()
