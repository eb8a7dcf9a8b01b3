"""Runs a pod manifest on this machine, as processes or containers, with the kubelet's semantics.

```
manifest ──▶ plan (pure) ──▶ supervisor (state machine) ──▶ backend ──▶ processes: shim ──▶ program
                             container, prober, events       choice     containers: warden
                             pod: the thread and the public object
                             pool: pods that are used again
```

`start` runs a pod for one `with` block, `lease` lends one that others may use too. This room
imports the standard library, this package's errors and facts, and the programs' names only: neither
flytekit nor kubernetes. It works on Linux and macOS.
"""

from .backend import THIS_MACHINE, Backend, Process
from .backoff import Backoff
from .events import Event
from .launch import start
from .pod import LocalPod, stop_all
from .pool import Lease, lease, stop_idle
from .settings import LocalSettings

__all__ = [
    "THIS_MACHINE",
    "Backend",
    "Backoff",
    "Event",
    "Lease",
    "LocalPod",
    "LocalSettings",
    "Process",
    "lease",
    "start",
    "stop_all",
    "stop_idle",
]
