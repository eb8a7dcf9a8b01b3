#!/bin/sh
# `tritonserver` as in NVIDIA's image: its libraries and backends are found, and a Python backend gets this environment.
# dev/servers fills in the places.
PATH="@bin@:$PATH"
LD_LIBRARY_PATH="@libraries@${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PATH LD_LIBRARY_PATH
unset PYTHONHOME PYTHONPATH
exec "@package@/bin/tritonserver" --backend-directory="@package@/backends" "$@"
