"""The memory limit, from the files that a kernel shows in containers of both generations."""

from __future__ import annotations

from pathlib import Path

import pytest

from flytekitplugins.inference.programs.kernel import memory_limit_bytes

MEMINFO = "MemTotal:       8388608 kB\nMemFree: 1 kB\n"
V1 = "sys/fs/cgroup/memory/"
NO_LIMIT_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"proc/meminfo": MEMINFO}, 2**33, id="machine"),
        pytest.param({"proc/meminfo": "MemTotal:\n"}, None, id="garbage"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n"}, 2**20, id="v2"
        ),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "max\n",
            },
            2**33,
            id="v2-no-limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pod/container\n",
                "sys/fs/cgroup/pod/memory.max": "5\n",
                "sys/fs/cgroup/pod/container/memory.max": "9\n",
            },
            5,
            id="v2-a-group-above",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/of/the/node\n", "sys/fs/cgroup/memory.max": "7\n"},
            7,
            id="v2-path-of-the-node",
        ),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "12:cpu,cpuacct:/x\n9:memory:/x\n0::/\n",
                f"{V1}memory.limit_in_bytes": NO_LIMIT_V1,
                f"{V1}x/memory.limit_in_bytes": "4096\n",
            },
            4096,
            id="v1",
        ),
        pytest.param(
            {"proc/self/cgroup": "9:memory:/x\n", f"{V1}x/memory.limit_in_bytes": NO_LIMIT_V1},
            None,
            id="v1-no-limit",
        ),
    ],
)
def test_the_smallest_limit_counts(
    files: dict[str, str], limit: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert memory_limit_bytes(tmp_path) == limit
