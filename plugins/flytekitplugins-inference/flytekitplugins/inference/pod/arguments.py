"""`WithArguments`: the part of a description whose server is told everything by its command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .description import Description
from .flags import OptionTable, option_problems, render_options

__all__ = ["EVERY_ADDRESS", "WithArguments"]

EVERY_ADDRESS = ("0.0.0.0", "::")
"""Hosts on which the kubelet's probes, which go to the pod's address, find a server."""


@dataclass(frozen=True, kw_only=True)
class WithArguments(Description):
    """A server with options, `--host` and `--port` among them."""

    arg_dict: Mapping[str, Any] | None = None
    """Options of the server, with `_` or `-`."""

    _option_table: ClassVar[OptionTable]
    """What the server's parser knows."""
    _host_option: ClassVar[str] = "host"
    """What it calls the address on which it listens."""

    def _argument(self, name: str, default: Any = None) -> Any:
        """Return the value of the option `name`, however the user spelled it."""
        given = (
            self.arg_dict if isinstance(self.arg_dict, Mapping) else {}
        )  # checks ask before that is known
        spelled = {
            self._option_table.canonical(key): value
            for key, value in given.items()
            if isinstance(key, str)
        }
        return spelled.get(name, default)

    def _other_arguments(self, *ours: str) -> tuple[str, ...]:
        """Return the user's options as arguments, without those that the template writes itself."""
        table = self._option_table
        given = {
            name: value
            for name, value in (self.arg_dict or {}).items()
            if table.canonical(name) not in ours
        }
        return render_options(given, table)

    def _address(self) -> tuple[str, ...]:
        """Return the arguments that say where the server listens."""
        host = str(self._argument(self._host_option, EVERY_ADDRESS[0]))
        return (f"--{self._host_option}", host, "--port", str(self.port))

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields."""
        yield from super().problems()
        for word in self.args if isinstance(self.args, (list, tuple)) else ():
            if isinstance(word, str) and word.partition("=")[0] in (
                f"--{self._host_option}",
                "--port",
            ):
                yield f"args: {word!r} is the template's; give port= instead"
        if self.arg_dict is None:
            return
        if not isinstance(self.arg_dict, Mapping):
            server = self._option_table.server.partition(" ")[0]
            yield (
                f"arg_dict must be a dict of {server}'s options, not a "
                f"{type(self.arg_dict).__name__}"
            )
            return
        yield from (
            f"arg_dict: {problem}" for problem in option_problems(self.arg_dict, self._option_table)
        )
        port = self._argument("port")
        host = self._argument(self._host_option)
        if port is not None and port != self.port:
            yield (
                f"arg_dict has port {port!r}, the template has port={self.port!r}; give port= only"
            )
        if host is not None and host not in EVERY_ADDRESS:
            named = f"arg_dict has {self._host_option} {host!r}"
            yield f"{named}, where the kubelet's probes cannot reach the server; leave it out"
