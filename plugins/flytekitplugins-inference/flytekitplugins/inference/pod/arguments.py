"""`WithArguments`: a server that reads options from its command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .description import EVERY_ADDRESS, LOOPBACK, Description
from .flags import OptionTable, form_problems, render_options, table_problems
from .image_version import Version, image_version, is_release_of, version_text

__all__ = ["EVERY_ADDRESS", "WithArguments"]


@dataclass(frozen=True, kw_only=True)
class WithArguments(Description):
    """A server that reads options from its command line, its host and its port among them.

    The class variables say what differs between servers; only `option_table` has no default. What
    they rule out is checked in `problems()`. A server builds its command line from `argument`,
    `other_arguments`, `address_arguments` and `served_name`.
    """

    arg_dict: Mapping[str, Any] | None = None
    """Options of the server, with `_` or `-`."""

    option_table: ClassVar[OptionTable]
    """The options that the server has."""
    release_parts: ClassVar[int] = 2
    """How many parts of a version name a release, within which options stay the same."""
    host_option: ClassVar[str] = "host"
    """The option for the address on which the server listens."""
    port_option: ClassVar[str] = "port"
    """The option for its port."""
    model_option: ClassVar[str] = ""
    """The option for the model, which excludes the field `model`; empty when there is none."""
    template_options: ClassVar[Mapping[str, str]] = {}
    """More options that only the template may write → what to do instead."""
    exclusive_options: ClassVar[Mapping[str, str]] = {}
    """More options that exclude a field of the template → that field."""
    no_http_options: ClassVar[frozenset[str]] = frozenset()
    """Options with which the server does not answer plain HTTP on its port, where probes, gate and
    clients ask it."""

    def argument(self, name: str, default: Any = None) -> Any:
        """Return the value of the option `name`, however the user spelled it."""
        return self._options.get(name, default)

    def whole_number(self, name: str, default: int) -> int:
        """Return the value of an option that is a whole number, also when it is given as text.

        `default` stands for what is missing, or is no number, which `problems()` tells.
        """
        value = self.argument(name, default)
        try:
            return default if isinstance(value, bool) else int(value)
        except (TypeError, ValueError):
            return default

    @property
    def image_version(self) -> Version | None:
        """The release that `image` names; `None` for the default image, and if it names none."""
        return image_version(self.image, self.published_images)

    @property
    def knows_image(self) -> bool:
        """Whether `option_table` is that of the image's release, as far as the image says."""
        version = self.image_version
        table = image_version(self._published_reference, self.published_images)
        return version is None or table is None or is_release_of(version, table, self.release_parts)

    @property
    def _published_reference(self) -> str | None:
        # all images of a server are of the release that its table describes
        return self.published_images[0].reference if self.published_images else None

    @property
    def _options(self) -> dict[str, Any]:
        """The user's options by their long names."""
        # `problems()` reads this too, before it has refused an `arg_dict` of another type
        options = self.arg_dict if isinstance(self.arg_dict, Mapping) else {}
        return {
            self.option_table.canonical(name): value
            for name, value in options.items()
            if isinstance(name, str)
        }

    def other_arguments(self, *ours: str) -> tuple[str, ...]:
        """Return the user's options as arguments.

        Args:
            ours: Options that the template writes itself.
        """
        others = {
            name: value
            for name, value in (self.arg_dict or {}).items()
            if self.option_table.canonical(name) not in ours
        }
        return render_options(others, self.option_table, is_table_of_server=self.knows_image)

    def address_arguments(self) -> tuple[str, ...]:
        """Return the arguments for the host and port on which the server listens."""
        host = str(self.argument(self.host_option, self.host))
        flags = (f"--{name.replace('_', '-')}" for name in (self.host_option, self.port_option))
        return (next(flags), host, next(flags), str(self.port))

    def served_name(self) -> str:
        """Return the name under which requests ask for the model.

        It is the first `served_model_name`, else that of `model=`, else the value of the server's
        `model_option`; empty when only the server knows.
        """
        names = self.argument("served_model_name")
        if names:
            return str(names if isinstance(names, str) else names[0])
        if self.model_source is not None:
            return self.model_source.name
        return str(self.argument(self.model_option) or "")

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields."""
        yield from super().problems()
        yield from self._word_problems()
        if self.arg_dict is None:
            return
        if not isinstance(self.arg_dict, Mapping):
            server = self.option_table.server.partition(" ")[0]
            yield (
                f"arg_dict must be a dict of {server}'s options, not a "
                f"{type(self.arg_dict).__name__}"
            )
            return
        problems = form_problems(self.arg_dict, self.option_table)
        if self.knows_image:
            problems += table_problems(self.arg_dict, self.option_table)
        yield from (f"arg_dict: {problem}" for problem in problems)
        yield from self._ownership_problems()
        yield from self._address_problems()

    def cautions(self) -> Iterator[str]:
        """Yield warnings: what is valid but may not do what its author expects."""
        yield from super().cautions()
        version = self.image_version
        if version is None or self.knows_image or not self.arg_dict:
            return
        # for another release the table is no judge
        if doubts := table_problems(self.arg_dict, self.option_table):
            yield (
                f"arg_dict is passed on as it is: the image is of release {version_text(version)}, "
                f"and this package knows the options of {self.option_table.server}, where "
                f"{'; '.join(doubts)}"
            )

    def _word_problems(self) -> Iterator[str]:
        """Yield what of the user's `args` is the template's own."""
        advice = {
            self.host_option: "leave it out, and give expose= instead",
            self.port_option: "give port= instead",
            **self.template_options,
        }
        # `args` is passed on unread, so only what would contradict the template is refused
        for word in self.args if isinstance(self.args, (list, tuple)) else ():
            if not isinstance(word, str) or not word.startswith("--"):
                continue
            name = self.option_table.canonical(word.partition("=")[0])
            if name in advice:
                yield f"args: {word!r} is the template's; {advice[name]}"

    def _ownership_problems(self) -> Iterator[str]:
        """Yield the options that the template writes itself, or that one of its fields replaces."""
        for name in self.arg_dict or {}:
            option = self.option_table.canonical(name) if isinstance(name, str) else ""
            if option in self.template_options:
                yield f"arg_dict: {name!r} is the template's; {self.template_options[option]}"
        for option, field in {self.model_option: "model", **self.exclusive_options}.items():
            own, value = getattr(self, field), self.argument(option)
            if own and value is not None:
                yield (
                    f"arg_dict has {option} {value!r} and the template has {field}= as well; give "
                    "one of them"
                )

    def _address_problems(self) -> Iterator[str]:
        host, port = self.argument(self.host_option), self.argument(self.port_option)
        if self.port_option not in self.template_options and port not in (None, self.port):
            yield (
                f"arg_dict has port {port!r}, the template has port={self.port!r}; give port= only"
            )
        # what it would listen on tells who has to reach it
        reachable = EVERY_ADDRESS if self.host in EVERY_ADDRESS else (*EVERY_ADDRESS, *LOOPBACK)
        if self.host_option not in self.template_options and host not in (None, *reachable):
            yield (
                f"arg_dict has {self.host_option} {host!r}, where the kubelet's probes cannot "
                "reach the server; leave it out"
            )
        for option in sorted(self.no_http_options):
            if self.argument(option):
                yield (
                    f"arg_dict: with {option!r} the server does not answer plain HTTP on the "
                    "template's port"
                )
