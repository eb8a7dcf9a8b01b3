"""The commands, their options and exit codes."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from ..distribution import __version__
from ..errors import InferenceError
from ..pod.pod_security import LEVELS

__all__ = ["main"]

PROGRAM = "flyte-inference"
EXIT_CODES = """\b
Exit codes:
  0   done, and a check found no problem
  1   a check found a problem, or a model does not fit
  64  wrong use: no such command, module or name
  69  the cluster does not answer
  70  a bug of this program
  78  a description is wrong, or its module cannot be imported"""
TARGET = """TARGET is module:name or path/to/file.py:name. The name is that of a template, of a task
that has one, or servers.llm for one of ModelServers. Without it, the module must have exactly
one."""
MARKS = {"ok": "ok", "note": "  ", "warning": " !", "problem": " ✗"}


@click.group(
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM)
def commands() -> None:
    """Look at a pod with a model server before it is submitted."""


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_target = click.argument("target")


@commands.command(help=f"Print the pod as YAML, with what each container is for.\n\n{TARGET}")
@_target
@_json
@click.option("--full", is_flag=True, help="Print the programs that travel in the pod, too.")
def show(target: str, as_json: bool, full: bool) -> None:
    """Print the pod."""
    from .target import load_target
    from .yaml_page import purposes, without_programs, yaml_page

    loaded = load_target(target)
    _tell(loaded.cautions)
    manifest = loaded.manifest if full or as_json else without_programs(loaded.manifest)
    if as_json:
        _print_json(manifest)
    else:
        click.echo(yaml_page(manifest, purposes(loaded.description)), nl=False)


@commands.command(
    short_help="Check the pod, and what a cluster lacks for it.",
    help="Check the pod: what Kubernetes would refuse, the level of Pod Security, what the "
    "scheduler reserves, the class of service, images and secrets. With --cluster, also what the "
    f"cluster lacks.\n\n{TARGET}",
)
@_target
@_json
@click.option(
    "--pod-security",
    "level",
    type=click.Choice(LEVELS),
    default="baseline",
    show_default=True,
    help="The level of the Pod Security Standards that the pod must meet.",
)
@click.option("--cluster", is_flag=True, help="Ask the cluster of the current kubeconfig context.")
@click.option("--context", metavar="NAME", help="Ask the cluster of this context instead.")
@click.option(
    "--namespace",
    metavar="NAME",
    default="flytesnacks-development",
    show_default=True,
    help="The namespace of the project and domain.",
)
def check(
    *, target: str, as_json: bool, level: str, cluster: bool, context: str | None, namespace: str
) -> None:
    """Check the pod."""
    from .findings import check_target
    from .target import load_target

    pod = check_target(load_target(target), level=level)
    findings = list(pod.findings)
    if cluster or context:
        from .cluster import check_cluster

        findings += check_cluster(pod, context=context, namespace=namespace)
    if as_json:
        _print_json(_check_fields(pod, findings))
    else:
        _print_check(pod, findings)
    if any(finding.status == "problem" for finding in findings):
        raise click.exceptions.Exit(1)


@commands.command(
    short_help="List the images of all servers, for a mirror to copy.",
    help="List every image that a template starts unless its user names another, with its source, "
    "for a mirror to copy. The variable INFERENCE_IMAGE_REGISTRY says which mirror stands for "
    "which registry, and the list names what is pulled then.",
)
@_json
def images(as_json: bool) -> None:
    """List the images."""
    import os

    from ..pod.images import REGISTRY_VARIABLE, parse_mirrors
    from .catalogue import catalogue

    entries = catalogue(parse_mirrors(os.environ.get(REGISTRY_VARIABLE, "")))
    if as_json:
        _print_json([entry.to_dict() for entry in entries])
        return
    for entry in entries:
        arrow = f" → {entry.mirror}" if entry.mirror != entry.image else ""
        click.echo(f"{entry.image}{arrow}")
        date = f", {entry.date}" if entry.date else ""
        click.echo(f"    {entry.server}, {entry.hardware}; {entry.source}{date}")


@commands.command(
    short_help="Say whether a language model fits into accelerators.",
    help="Say whether a language model fits: weights, cache of keys and values, and activations, "
    "against the memory of accelerators.\n\nMODEL is the model's directory or its config.json. The "
    "size of the weights comes from the files beside it, else it is counted. Exit code 1 says that "
    "it does not fit.",
)
@click.argument("model")
@click.option("--accelerator", required=True, help="Such as L4, A100-40GB or H100; or 24Gi.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="How many.")
@click.option(
    "--max-model-len", type=click.IntRange(1), default=4096, show_default=True, help="Tokens."
)
@click.option(
    "--sequences", type=click.IntRange(1), default=8, show_default=True, help="At the same time."
)
@click.option(
    "--gpu-memory-utilization",
    "utilization",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.92,
    show_default=True,
    help="The part of the memory that the server takes.",
)
@click.option("--fp8-cache", is_flag=True, help="Keys and values of one byte.")
@_json
def fit(
    *,
    model: str,
    accelerator: str,
    gpus: int,
    max_model_len: int,
    sequences: int,
    utilization: float,
    fp8_cache: bool,
    as_json: bool,
) -> None:
    """Say whether a model fits."""
    from ..fit.accelerators import accelerator_bytes
    from ..fit.estimate import Workload, estimate
    from .model_files import read_model

    architecture, weights = read_model(model)
    workload = Workload(
        max_model_len=max_model_len,
        sequences=sequences,
        accelerators=gpus,
        utilization=utilization,
        cache_value_bytes=1.0 if fp8_cache else None,
    )
    memory = _bytes_or_none(accelerator)
    memory = accelerator_bytes(accelerator) if memory is None else memory
    need = estimate(architecture, workload, memory=memory, weights=weights)
    if as_json:
        from dataclasses import asdict

        _print_json({**asdict(need), "needed": need.needed, "fits": need.fits, "memory": memory})
    else:
        click.echo(f"{_gib(need.weights)} weights ({'files' if weights else 'counted'})")
        click.echo(
            f"{_gib(need.kv_cache)} cache for {sequences} sequences of {max_model_len:,} tokens"
        )
        click.echo(f"{_gib(need.activations)} activations")
        click.echo(f"{_gib(need.context)} context of the accelerator")
        click.echo(
            f"{_gib(need.needed)} needed on each of {gpus} {accelerator}; the server takes "
            f"{_gib(need.available)} of {_gib(memory)}"
        )
        verdict = "It fits" if need.fits else "It does not fit"
        click.echo(f"{verdict}; there is room for {need.cache_tokens:,} tokens of cache.")
    if not need.fits:
        raise click.exceptions.Exit(1)


def _bytes_or_none(text: str) -> int | None:
    from ..errors import QuantityError
    from ..pod.quantity import parse_quantity

    try:
        return int(parse_quantity(text))
    except QuantityError:
        return None


def _gib(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"


def _check_fields(pod: Any, findings: Sequence[Any]) -> dict[str, Any]:
    from dataclasses import asdict

    from .findings import display_amount

    def shown(amounts: Any) -> dict[str, str]:
        return {name: display_amount(name, amount) for name, amount in amounts.items()}

    return {
        "target": pod.target.label,
        "problems": sum(finding.status == "problem" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "requests": shown(pod.requests),
        "limits": shown(pod.limits),
        "images": dict(pod.images),
        "secrets": [{**asdict(secret), "command": secret.command} for secret in pod.secrets],
    }


def _print_check(pod: Any, findings: Sequence[Any]) -> None:
    fields = _check_fields(pod, findings)
    for finding in findings:
        click.echo(f"{MARKS[finding.status]} {finding.check}: {finding.text}")
    whole = "" if pod.target.is_task else ", without the task's own container"
    for kind in ("requests", "limits"):
        amounts = ", ".join(f"{amount} {name}" for name, amount in fields[kind].items())
        click.echo(f"   {kind} of the whole pod{whole}: {amounts or 'none'}")
    for container, image in fields["images"].items():
        click.echo(f"   image of {container}: {image}")
    for secret in fields["secrets"]:
        click.echo(f"   secret {secret['name']}: {secret['command']}")


def _tell(cautions: Sequence[str]) -> None:
    for text in cautions:
        click.echo(f"warning: {text}", err=True)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        # not standalone: the exit codes are ours, and those of click say less
        code = commands.main(args=argv, prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 64
    except click.Abort:
        return 130
    except InferenceError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        # the reader, such as `head`, has seen enough; Python would complain again at its end
        sys.stderr.close()
        return 0
    except Exception:
        # Python's own code for this is 1, which says here that a check found a problem
        traceback.print_exc()
        return 70
    return code if isinstance(code, int) else 0
