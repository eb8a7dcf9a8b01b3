"""Waits, in as little memory as Python takes: what the model loader becomes when it is done.

    python -I -S -c <this text> SECONDS RENEWAL_SECONDS [LEASE ...] -- [COMMAND ...]

Renews the leases, and becomes COMMAND after SECONDS (never, when that is 0). SIGTERM, which the
loader has blocked so that none is lost between the two, ends it. This text is started on its own,
so it imports nothing of this package, nor anything that is not built in.
"""

import os
import signal
import sys
import time


def main(words: list[str]) -> None:
    """Wait; see the module."""
    split = words.index("--")
    seconds, renewal = float(words[0]), float(words[1])
    leases, command = words[2:split], words[split + 1 :]
    end = time.monotonic() + seconds
    while not seconds or time.monotonic() < end:
        pause = min(renewal, max(end - time.monotonic(), 0.0)) if seconds else renewal
        is_over = signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, pause) is not None
        for lease in leases:
            try:  # noqa: SIM105 (contextlib would be one more import)
                (os.unlink if is_over else os.utime)(lease)
            except OSError:
                pass  # the volume is away for a moment
        if is_over:
            os._exit(143)
    os.execv(command[0], command)  # noqa: S606 (it is the loader itself)


if __name__ == "__main__":
    main(sys.argv[1:])
