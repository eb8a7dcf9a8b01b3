"""Why a container ended or never became ready, as the errors that callers see."""

from __future__ import annotations

import contextlib
import json
import signal

from ..errors import ServerExitedError, ServerNotReadyError

TAIL_LINES = 20
"""Log lines that an error carries."""

OUT_OF_MEMORY = "OOMKilled"
"""The reason of an end because memory ran out, as the kubelet calls it."""

_KILLED = 128 + signal.SIGKILL
_NOT_FOUND = 127


def describe_exit(code: int, reason: str = "") -> str:
    """Return an exit code for a person, with the signal n that a code of 128 + n stands for."""
    name = ""
    with contextlib.suppress(ValueError):
        name = signal.Signals(code - 128).name if code > 128 else ""
    words = ", ".join(word for word in (name, reason) if word)
    return f"exit code {code} ({words})" if words else f"exit code {code}"


def read_termination_message(text: str) -> tuple[str, str]:
    """Return message and hint of a termination message; empty unless a program of ours wrote it."""
    try:
        # the lines before are for people
        fields = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return "", ""
    if not isinstance(fields, dict) or not isinstance(fields.get("message"), str):
        return "", ""
    return fields["message"], str(fields.get("hint") or "")


def exited_error(
    container: str,
    code: int,
    *,
    reason: str = "",
    what: str,
    termination_message: str,
    log_tail: tuple[str, ...],
) -> ServerExitedError:
    """Return the error for a container that ended.

    Args:
        container: Its name.
        code: Its exit code, 128 + n for signal n.
        reason: What is known about its end beside the code.
        what: The rest of the sentence after the exit code, e.g. `and the pod cannot start without
            it`.
        termination_message: What it wrote to its termination log; where that is empty its last line
            counts, as with `terminationMessagePolicy: FallbackToLogsOnError`.
        log_tail: Its last lines, oldest first.
    """
    last_line = log_tail[-1] if log_tail else ""
    # a program writes the same lines to both; outside a pod, it may be unable to write the former
    written = termination_message.strip() or last_line
    message, hint = read_termination_message(written)
    while message and log_tail and log_tail[-1] in written.splitlines():
        log_tail = log_tail[:-1]  # said in words already
    ended = describe_exit(code, reason)
    text = f"{container} ended with {ended} {what}".rstrip() + (f": {message}" if message else ".")
    return ServerExitedError(text, hint=hint or _hint(code, reason), log_tail=log_tail)


def _hint(code: int, reason: str) -> str:
    if reason == OUT_OF_MEMORY:
        return "It needs more memory than its limit; raise mem=."
    if code == _KILLED:
        return "Something else killed it; often that is the system, because memory ran out."
    if code == _NOT_FOUND:
        return "A program that its command calls does not exist on this machine."
    return ""


def not_ready_error(
    container: str, seconds: float, *, answer: str, log_tail: tuple[str, ...]
) -> ServerNotReadyError:
    """Return the error for a pod that waited too long for a container.

    Args:
        container: Its name.
        seconds: How long it was waited for.
        answer: What its probe said last, or what was waited for.
        log_tail: Its last lines, oldest first.
    """
    return ServerNotReadyError(
        f"{container} was not ready after {seconds:.0f} s: {answer or 'it was never asked'}.",
        hint="If it only needs longer, raise its startup probe's failureThreshold, or "
        "startup_timeout.",
        log_tail=log_tail,
    )
