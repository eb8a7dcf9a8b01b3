"""The files and command lines of the cluster's parts.

Everything is inside of the namespaces: the API server listens on port 443 of every address there,
the service address is one more of the loopback device, and pods are on a bridge whose address is
the node's. So no rule of a firewall is needed, and no part of it can be reached from outside but by
the port that `node` forwards.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

NODE = "node"
BRIDGE, NODE_ADDRESS, POD_RANGE = "cbr0", "10.22.0.1", "10.22.0.0/16"
SERVICE_RANGE, SERVICE_ADDRESS = "10.96.0.0/24", "10.96.0.1"
PAUSE_IMAGE = "localhost/pause:1"
ADMIN, USER = "admin", "user"
"""The one may do everything; the other has the rights that a test gives him."""
CONTAINERD = "/run/containerd/containerd.sock"
"""In the cluster's own /run."""


def write(run: Path, programs: Path, port: int, cgroup: str) -> None:
    """Write the files of all parts.

    Args:
        run: The cluster's folder.
        programs: The folder with the programs.
        port: The port of the host that leads to the API server.
        cgroup: The kubelet's root, by its name.
    """
    for name in ("pki", "logs", "kubelet", "containerd", "network", "etcd"):
        (run / name).mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["openssl", "genrsa", "-out", str(run / "pki/accounts.key"), "2048"],
        check=True,
        capture_output=True,
    )
    tokens = {ADMIN: secrets.token_hex(16), USER: secrets.token_hex(16)}
    write_private(
        run / "pki/tokens.csv",
        f"{tokens[ADMIN]},{ADMIN},{ADMIN},system:masters\n{tokens[USER]},{USER},{USER},\n",
    )
    authority = str(run / "pki/apiserver.crt")
    for name, user, address in (
        ("kubeconfig", ADMIN, f"https://localhost:{port}"),
        ("kubeconfig.user", USER, f"https://localhost:{port}"),
        ("kubeconfig.inside", ADMIN, "https://localhost:443"),
    ):
        write_private(run / name, _kubeconfig(address, authority, user, tokens[user]))
    (run / "network/10-bridge.conflist").write_text(json.dumps(_network(run)))
    (run / "containerd.toml").write_text(_containerd(run, programs, _runtime(run)))
    (run / "kubelet.json").write_text(json.dumps(_kubelet(run, cgroup)))
    # nothing listens there: a name that is not known is refused at once
    (run / "resolv.conf").write_text(f"nameserver {NODE_ADDRESS}\noptions attempts:1 timeout:1\n")


def commands(run: Path, programs: Path) -> dict[str, list[str]]:
    """Return the command line of each part, in the order of their starts."""
    inside = str(run / "kubeconfig.inside")
    return {
        "etcd": [
            str(programs / "etcd"),
            f"--data-dir={run}/etcd",
            "--unsafe-no-fsync",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
        "containerd": [str(programs / "containerd"), f"--config={run}/containerd.toml"],
        "kube-apiserver": [
            str(programs / "kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--bind-address=0.0.0.0",
            "--secure-port=443",
            f"--advertise-address={NODE_ADDRESS}",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={run}/pki/tokens.csv",
            f"--service-account-key-file={run}/pki/accounts.key",
            f"--service-account-signing-key-file={run}/pki/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--cert-dir={run}/pki",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            "--watch-cache=true",
        ],
        "kube-controller-manager": [
            str(programs / "kube-controller-manager"),
            f"--kubeconfig={inside}",
            f"--root-ca-file={run}/pki/apiserver.crt",
            f"--service-account-private-key-file={run}/pki/accounts.key",
            f"--cluster-cidr={POD_RANGE}",
            # on a busy machine a lease is lost, and the part ends
            "--leader-elect=false",
        ],
        "kube-scheduler": [
            str(programs / "kube-scheduler"),
            f"--kubeconfig={inside}",
            "--leader-elect=false",
        ],
        "kubelet": [
            str(programs / "kubelet"),
            f"--config={run}/kubelet.json",
            f"--kubeconfig={inside}",
            f"--root-dir={run}/kubelet",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS}",
        ],
    }


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read."""
    path.touch(mode=0o600)
    path.write_text(text)


def _kubeconfig(address: str, authority: str, user: str, token: str) -> str:
    cluster = {"server": address, "certificate-authority": authority}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "dev", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": user}}],
            "current-context": "dev",
        },
        indent=2,
    )


def _network(run: Path) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_RANGE, "gateway": NODE_ADDRESS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{run}/network/addresses",
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _containerd(run: Path, programs: Path, runtime: Path) -> str:
    return f"""\
version = 3
root = "{run}/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD}"
[ttrpc]
  address = "{CONTAINERD}.ttrpc"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{programs}/cni"]
    conf_dir = "{run}/network"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{runtime}"
        SystemdCgroup = false
"""


def _kubelet(run: Path, cgroup: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "clusterDNS": [NODE_ADDRESS],
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": f"{run}/logs/pods",
        "resolvConf": f"{run}/resolv.conf",
        # the node says at once what has become of it and of its pods
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": 110,
    }


def _runtime(run: Path) -> Path:
    """Return runc, or a wrapper of it where a process may not raise its limits.

    Containers ask for limits of their own; without CAP_SYS_RESOURCE the kernel refuses those above
    this process's, and no container starts.
    """
    runc = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "runc"
    if _may_raise_limits():
        return Path(runc)
    wrapper = run / "runc"
    wrapper.write_text(_WRAPPER.format(runc=runc))
    wrapper.chmod(0o755)
    return wrapper


def _may_raise_limits() -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == resource.RLIM_INFINITY:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        kind = resource.RLIMIT_NOFILE
    else:
        kind = resource.RLIMIT_CORE
    try:
        resource.setrlimit(kind, (soft, hard + 1))
        resource.setrlimit(kind, (soft, hard))
    except (OSError, ValueError):
        return False
    return True


_WRAPPER = """\
#!/bin/sh
# runc without the limits of resources (rlimits) of a container and of a process in it.
before= file=
for word in "$@"; do
  case "$before" in
    --bundle) file=$word/config.json ;;
    --process | -p) file=$word ;;
  esac
  before=$word
done
[ -f "$file" ] && python3 -I -S -c '
import json, sys
with open(sys.argv[1]) as file:
    settings = json.load(file)
settings.get("process", settings).pop("rlimits", None)
with open(sys.argv[1], "w") as file:
    json.dump(settings, file)
' "$file"
exec {runc} "$@"
"""
