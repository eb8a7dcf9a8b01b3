"""Pods that the API server refuses although their schema allows them.

Each case is a change to `POD`, which it accepts, and a part of the sentence that `lint` says.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "refused",
        "labels": {"team": "x", "app.kubernetes.io/name": "y-1.0_z"},
        "annotations": {"Example.com/Note": "any text: at all\n"},
    },
    "spec": {
        "activeDeadlineSeconds": 3600,
        "terminationGracePeriodSeconds": 0,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.0.0.10", "fd00::10"]},
        "nodeSelector": {"example.com/pool": "gpu"},
        "tolerations": [
            {"operator": "Exists"},
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "spot", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "serviceAccountName": "default",
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["models.example.com"]}],
        "securityContext": {
            "runAsUser": 2**31 - 1,
            "supplementalGroups": [0, 1000],
            "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/audit.json"},
        },
        "initContainers": [
            {
                "name": "server",
                "image": "s:1",
                "restartPolicy": "Always",
                "ports": [{"name": "http-1", "containerPort": 8000, "protocol": "TCP"}],
                "env": [
                    {
                        "name": "TOKEN",
                        "valueFrom": {"secretKeyRef": {"name": "hf", "key": "my.token_1"}},
                    }
                ],
                "resources": {
                    "requests": {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "1"},
                    "limits": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"},
                },
                "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "a/b"}],
                "startupProbe": {
                    "httpGet": {"path": "/", "port": "http-1"},
                    "periodSeconds": 2**31 - 1,
                },
                "livenessProbe": {"exec": {"command": ["true"]}},
                "readinessProbe": {"tcpSocket": {"port": 8000}, "successThreshold": 3},
                "securityContext": {"runAsGroup": 0, "appArmorProfile": {"type": "Unconfined"}},
            }
        ],
        "containers": [{"name": "primary", "image": "t:1", "resources": {}}],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "host", "hostPath": {"path": "/models", "type": "Directory"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {
                "name": "secret",
                "secret": {"secretName": "s", "items": [{"key": "a", "path": "x/a", "mode": 256}]},
            },
            {"name": "map", "configMap": {"name": "m", "defaultMode": 0o644}},
            {"name": "nfs", "nfs": {"server": "nfs.example.com", "path": "/models"}},
            {"name": "csi", "csi": {"driver": "csi.example.com"}},
            {
                "name": "token",
                "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]},
            },
        ],
    },
}


def _spec(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"].update(fields)


def _metadata(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["metadata"].update(fields)


def _toleration(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"]["tolerations"].append(fields)


def _server(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"]["initContainers"][0].update(fields)


def _primary(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"]["containers"][0].update(fields)


def _probe(kind: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"]["initContainers"][0][kind].update(fields)


def _volume(source: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"]["volumes"].append({"name": "new", **source})


def _context(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"]["initContainers"][0]["securityContext"].update(fields)


REFUSALS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "deadline 0": (_spec(activeDeadlineSeconds=0), "between 1 and 2147483647, not 0"),
    "deadline above 2**31": (_spec(activeDeadlineSeconds=2**31), "not 2147483648"),
    "DNS without a server": (_spec(dnsConfig={}), "needs a nameserver in dnsConfig"),
    "DNS policy": (_spec(dnsPolicy="Cluster"), "dnsPolicy must be one of"),
    "four DNS servers": (
        _spec(dnsConfig={"nameservers": [f"10.0.0.{n}" for n in range(4)]}),
        "at most 3",
    ),
    "DNS server's name": (_spec(dnsConfig={"nameservers": ["dns"]}), "'dns' is not an IP address"),
    "host alias": (_spec(hostAliases=[{"ip": "models"}]), "'models' is not an IP address"),
    "host alias's name": (
        _spec(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a_b"]}]),
        "'a_b' is not",
    ),
    "node selector's key": (_spec(nodeSelector={"a b": "x"}), "nodeSelector 'a b'"),
    "node selector's value": (_spec(nodeSelector={"a": "x y"}), "'x y' is not a label's value"),
    "service account": (_spec(serviceAccountName="A_b"), "serviceAccountName: 'A_b'"),
    "priority class": (_spec(priorityClassName="High"), "priorityClassName: 'High'"),
    "runtime class": (_spec(runtimeClassName="n_v"), "runtimeClassName: 'n_v'"),
    "host name": (_spec(hostname="a.b"), "hostname: 'a.b'"),
    "label's key": (_metadata(labels={"a/b/c": "x"}), "label 'a/b/c'"),
    "label's empty key": (_metadata(labels={"example.com/": "x"}), "label 'example.com/'"),
    "label's long key": (_metadata(labels={"a" * 64: "x"}), "is not a key"),
    "label's value": (_metadata(labels={"a": "-x"}), "'-x' is not a label's value"),
    "label's long value": (_metadata(labels={"a": "x" * 64}), "is not a label's value"),
    "annotation's key": (_metadata(annotations={"a!": "x"}), "annotation 'a!'"),
    "annotations' size": (_metadata(annotations={"a": "x" * 2**18}), "at most 262144"),
    "toleration's key": (_toleration(key="a b", operator="Exists"), "'a b' is not a key"),
    "toleration without key": (_toleration(value="x"), "without a key the operator"),
    "toleration's operator": (_toleration(key="a", operator="In"), "operator must be one of"),
    "toleration's value": (_toleration(key="a", operator="Exists", value="x"), "remove 'x'"),
    "toleration's odd value": (_toleration(key="a", value="x y"), "'x y' is not a label's"),
    "toleration's effect": (_toleration(key="a", effect="Never"), "effect must be one of"),
    "toleration's seconds": (
        _toleration(key="a", effect="NoSchedule", tolerationSeconds=1),
        "needs the effect 'NoExecute'",
    ),
    "pod's user": (_spec(securityContext={"runAsUser": -1}), "runAsUser must be between 0"),
    "pod's group": (_spec(securityContext={"fsGroup": 2**31}), "fsGroup must be between 0"),
    "pod's groups": (_spec(securityContext={"supplementalGroups": [-1]}), "supplementalGroups"),
    "pod's profile": (
        _spec(securityContext={"seccompProfile": {"type": "Localhost"}}),
        "needs a localhostProfile",
    ),
    "user -1": (_context(runAsUser=-1), "container 'server': securityContext: runAsUser"),
    "group -1": (_context(runAsGroup=-1), "runAsGroup must be between 0 and 2147483647"),
    "profile's type": (_context(seccompProfile={"type": "Local"}), "type must be one of"),
    "Localhost without profile": (
        _context(seccompProfile={"type": "Localhost"}),
        "needs a localhostProfile",
    ),
    "profile's absolute path": (
        _context(seccompProfile={"type": "Localhost", "localhostProfile": "/a.json"}),
        "must be a relative path",
    ),
    "profile without Localhost": (
        _context(seccompProfile={"type": "RuntimeDefault", "localhostProfile": "a.json"}),
        "for the type Localhost only",
    ),
    "AppArmor without profile": (
        _context(appArmorProfile={"type": "Localhost"}),
        "appArmorProfile: the type Localhost needs",
    ),
    "CAP_SYS_ADMIN": (
        _context(allowPrivilegeEscalation=False, capabilities={"add": ["CAP_SYS_ADMIN"]}),
        "CAP_SYS_ADMIN needs",
    ),
    "pull policy": (_server(imagePullPolicy="Sometimes"), "imagePullPolicy must be one of"),
    "message policy": (_server(terminationMessagePolicy="Log"), "terminationMessagePolicy must"),
    "image with spaces": (_primary(image="t:1 "), "has spaces around it"),
    "port's long name": (
        _primary(ports=[{"name": "a" * 16, "containerPort": 1}]),
        "is not a port's name",
    ),
    "port's name of digits": (
        _primary(ports=[{"name": "80-1", "containerPort": 1}]),
        "'80-1' is not a port's name",
    ),
    "port's name in upper case": (
        _primary(ports=[{"name": "HTTP", "containerPort": 1}]),
        "'HTTP' is not a port's name",
    ),
    "port's name twice": (
        _primary(ports=[{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]),
        "the name 'a' is there 2 times",
    ),
    "protocol": (
        _primary(ports=[{"containerPort": 1, "protocol": "http"}]),
        "protocol must be one of",
    ),
    "host's port": (_primary(ports=[{"containerPort": 1, "hostPort": 70000}]), "70000 is not a"),
    "GPU without limit": (
        _primary(resources={"requests": {"nvidia.com/gpu": "1"}}),
        "nvidia.com/gpu needs a limit",
    ),
    "GPU with another limit": (
        _primary(
            resources={"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}
        ),
        "must equal the limit of 2",
    ),
    "half a GPU": (
        _primary(resources={"limits": {"nvidia.com/gpu": "500m"}}),
        "'500m' is not a whole number",
    ),
    "resource of a quota": (
        _primary(resources={"limits": {"requests.nvidia.com/gpu": "1"}}),
        "'requests.nvidia.com/gpu' is not a resource's name",
    ),
    "unknown resource": (_primary(resources={"limits": {"mem": "1Gi"}}), "'mem' is not a resource"),
    "hugepages alone": (
        _primary(resources={"limits": {"hugepages-2Mi": "4Mi"}}),
        "hugepages need cpu or memory",
    ),
    "sub-path": (
        _primary(volumeMounts=[{"name": "data", "mountPath": "/d", "subPath": "../x"}]),
        "subPath: '../x' must be a relative path",
    ),
    "two sub-paths": (
        _primary(
            volumeMounts=[
                {"name": "data", "mountPath": "/d", "subPath": "a", "subPathExpr": "$(B)"}
            ]
        ),
        "has subPath and subPathExpr",
    ),
    "secret's key": (
        _primary(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a b"}}}]),
        "needs a key of letters",
    ),
    "probe's period": (_probe("startupProbe", periodSeconds=2**31), "must be at most 2147483647"),
    "probe's delay": (_probe("startupProbe", initialDelaySeconds=2**40), "initialDelaySeconds"),
    "probe's threshold": (_probe("readinessProbe", failureThreshold=2**31), "failureThreshold"),
    "probe's successes": (_probe("livenessProbe", successThreshold=2), "must be 1, not 2"),
    "probe's grace": (
        _probe("livenessProbe", terminationGracePeriodSeconds=0),
        "terminationGracePeriodSeconds must be between 1",
    ),
    "readiness probe's grace": (
        _probe("readinessProbe", terminationGracePeriodSeconds=9),
        "for the other probes only",
    ),
    "probe's command": (_server(livenessProbe={"exec": {"command": []}}), "exec needs a command"),
    "probe's port": (
        _server(livenessProbe={"grpc": {"port": 0}}),
        "grpc: 0 is not a port",
    ),
    "probe's scheme": (
        _probe("startupProbe", httpGet={"path": "/", "port": "http-1", "scheme": "http"}),
        "scheme must be one of",
    ),
    "probe's header": (
        _probe(
            "startupProbe",
            httpGet={"path": "/", "port": "http-1", "httpHeaders": [{"name": "a b", "value": ""}]},
        ),
        "'a b' is not a header's name",
    ),
    "host path without path": (_volume({"hostPath": {}}), "hostPath: path is missing"),
    "host path upwards": (_volume({"hostPath": {"path": "/a/../b"}}), "must not contain '..'"),
    "host path's type": (_volume({"hostPath": {"path": "/a", "type": "Dir"}}), "type must be"),
    "negative size": (_volume({"emptyDir": {"sizeLimit": "-1Gi"}}), "is negative"),
    "claim without name": (_volume({"persistentVolumeClaim": {}}), "claimName is missing"),
    "secret without name": (_volume({"secret": {}}), "secretName is missing"),
    "map without name": (_volume({"configMap": {}}), "configMap: name is missing"),
    "item's path": (
        _volume({"secret": {"secretName": "s", "items": [{"key": "a", "path": "/a"}]}}),
        "items: '/a' must be a relative path",
    ),
    "item's key": (
        _volume({"configMap": {"name": "m", "items": [{"key": "", "path": "a"}]}}),
        "items: '' is not a key",
    ),
    "mode": (_volume({"secret": {"secretName": "s", "defaultMode": 1777}}), "defaultMode 1777"),
    "NFS without server": (_volume({"nfs": {"path": "/a"}}), "nfs: server is missing"),
    "NFS's path": (_volume({"nfs": {"server": "n", "path": "a"}}), "'a' is not an absolute path"),
    "CSI without driver": (_volume({"csi": {}}), "driver is missing"),
    "CSI's driver": (_volume({"csi": {"driver": "a_b"}}), "'a_b' is not a driver's name"),
    "image volume": (_volume({"image": {}}), "reference is missing"),
    "ephemeral volume": (_volume({"ephemeral": {}}), "volumeClaimTemplate is missing"),
    "token's path": (
        _volume({"projected": {"sources": [{"serviceAccountToken": {"path": "../a"}}]}}),
        "must be a relative path",
    ),
}

HANGS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "medium": (_volume({"emptyDir": {"medium": "RAM"}}), "medium 'RAM' must be"),
    "claim's name": (
        _volume({"persistentVolumeClaim": {"claimName": "My_Models"}}),
        "claimName: 'My_Models' is not",
    ),
    "secret's name": (_volume({"secret": {"secretName": "a b"}}), "secretName: 'a b' is not"),
}
"""What the API server accepts, and no object can ever satisfy."""


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return a copy of `POD` with one change."""
    pod = copy.deepcopy(POD)
    change(pod)
    return pod
