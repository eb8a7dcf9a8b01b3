"""`llama-server` from a wheel: llama.cpp's own parser and server, both in xllamacpp's library.

xllamacpp offers the server to Python, but of the command line only the result: a `CommonParams`
with a property for each option. The parser is in the library too, an exported C++ function. Called
from here, every option and every `LLAMA_ARG_*` variable means what it means in llama.cpp, and one
that it does not know is refused in its words. The call fits the version in
`dev/servers.d/llamacpp.txt`; whether it fits the one installed is checked before it is made.

Source: https://github.com/xorbitsai/xllamacpp (`xllamacpp.pyx`, `server.cpp`) and `common/arg.h`,
`common/common.h` of https://github.com/ggml-org/llama.cpp, as of October 2026.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

import xllamacpp  # type: ignore[import-not-found]  # in the environment of the server alone

PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
"""`bool common_params_parse(int argc, char ** argv, common_params &, llama_example, void (*)(int,
char **))`."""
SERVER_EXAMPLE = 12
"""`LLAMA_EXAMPLE_SERVER` of `enum llama_example`: whose options there are."""
DEFAULT_PORT = 8080
"""llama.cpp's own; xllamacpp starts from 0, which is any free port."""
FAILED = 1
"""The exit code of llama.cpp's own, for a refused command line as for a model that does not
load."""


def address_of(params: xllamacpp.CommonParams) -> int:
    """Return the address of a `CommonParams`'s C++ structure: it follows the Python object's head.

    Raises:
        RuntimeError: It does not lie there, so this is not the version of xllamacpp that it was
            written for.
    """
    address = id(params) + object.__basicsize__
    before = params.n_predict  # the first field of the structure
    params.n_predict = 1_234_567
    found = ctypes.c_int32.from_address(address).value
    params.n_predict = before
    if found != 1_234_567:
        raise RuntimeError(
            f"xllamacpp {xllamacpp.__version__} keeps its parameters in another place than "
            "expected."
        )
    return address


def parse(words: list[str]) -> xllamacpp.CommonParams | None:
    """Return what llama.cpp makes of a command line and the environment; `None` when it refuses.

    Args:
        words: The program's name and its arguments.
    """
    params = xllamacpp.CommonParams()
    params.port = DEFAULT_PORT
    parser = ctypes.CDLL(xllamacpp.xllamacpp.__file__)[PARSE]
    parser.restype = ctypes.c_bool
    argv = (ctypes.c_char_p * (len(words) + 1))(*map(os.fsencode, words), None)
    accepted = parser(len(words), argv, ctypes.c_void_p(address_of(params)), SERVER_EXAMPLE, None)
    return params if accepted else None


def wait_for_end() -> None:
    """Return when SIGTERM or SIGINT has arrived, in whichever of the server's threads."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda *_: None)
    reader.recv(1)


def main(words: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    params = parse(words)
    if params is None:
        return FAILED
    # no Python code runs while the model is loaded: until then the signals' default ends the
    # process
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        print(f"llama-server: error: {error}", file=sys.stderr)
        return FAILED
    print("llama-server: listening on", server.listening_address, flush=True)
    wait_for_end()
    del server  # waits for its threads
    return 0


if __name__ == "__main__":
    sys.exit(main(["llama-server", *sys.argv[1:]]))
