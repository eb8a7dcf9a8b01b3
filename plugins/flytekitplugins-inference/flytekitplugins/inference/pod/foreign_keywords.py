"""Keywords that are right in another place than a template: of the pod, and of `@task`.

Imported when a keyword is refused. Sources: `v1.PodSpec` and `v1.ObjectMeta` of Kubernetes 1.37;
the parameters of `flytekit.task`, 1.16.
"""

from __future__ import annotations

from collections.abc import Collection

from ..keywords import spelling

__all__ = ["POD_FIELDS", "TASK_KEYWORDS", "place_of"]

POD_FIELDS = frozenset(
    [
        "activeDeadlineSeconds",
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "ephemeralContainers",
        "evictionResponders",
        "hostAliases",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostUsers",
        "hostname",
        "hostnameOverride",
        "imagePullSecrets",
        "initContainers",
        "nodeName",
        "nodeSelector",
        "os",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "readinessGates",
        "resourceClaims",
        "restartPolicy",
        "runtimeClassName",
        "schedulerName",
        "schedulingGates",
        "schedulingGroup",
        "securityContext",
        "serviceAccount",
        "serviceAccountName",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
        "workloadRef",
    ]
)
"""Keys of a pod's `spec` that `base=` takes."""
METADATA_FIELDS = frozenset({"annotations", "labels"})
TASK_KEYWORDS = {
    "accelerator": "",
    "cache": "",
    "cache_ignore_input_vars": "",
    "cache_serialize": "",
    "cache_version": "",
    "container_image": "image",
    "deck_fields": "",
    "deprecated": "",
    "disable_deck": "",
    "docs": "",
    "enable_deck": "",
    "environment": "env",
    "execution_mode": "",
    "interruptible": "",
    "limits": "cpu, mem, gpu",
    "node_dependency_hints": "",
    "pickle_untyped": "",
    "pod_template": "",
    "pod_template_name": "",
    "requests": "cpu, mem, gpu",
    "resources": "cpu, mem, gpu",
    "retries": "",
    "secret_requests": "",
    "shared_memory": "shm_size",
    "task_config": "",
    "task_resolver": "",
    "timeout": "startup_timeout",
}
"""Parameters of `@task`, and the fields of a template that say the same of the model server."""
_PODS = {spelling(name): name for name in POD_FIELDS}
_METADATA = {spelling(name): name for name in METADATA_FIELDS}
_TASKS = {spelling(name): name for name in TASK_KEYWORDS}


def place_of(keyword: str, known: Collection[str]) -> str:
    """Return where a keyword belongs, or an empty text when it belongs nowhere.

    Args:
        keyword: One that the template does not have.
        known: The template's own fields; one of them in another spelling belongs to the template.
    """
    word = spelling(keyword)
    if word in {spelling(name) for name in known}:
        return ""
    if word in _TASKS:
        name = _TASKS[word]
        fields = [field for field in TASK_KEYWORDS[name].split(", ") if field in known]
        ours = " and ".join(f"{field}=" for field in fields)
        server = f"; for the model server give {ours}" if ours else ""
        return f"it belongs to the task, @task({name}=…){server}"
    if word in _PODS:
        return f'it belongs to the pod, base={{"spec": {{"{_PODS[word]}": …}}}}'
    if word in _METADATA:
        return f'it belongs to the pod, base={{"metadata": {{"{_METADATA[word]}": …}}}}'
    return ""
