"""The exporter's page: the server's quantities in one vocabulary, and what the exporter knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...facts.metrics_page import current_labels
from .server_monitor import HEALTH_BOUNDS
from .vocabulary import ALIASES, VOCABULARY, Metric, common_labels, lines_of, sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .server_monitor import MonitorReading
    from .start_facts import StartFacts
    from .upstream import ServerPage
    from .vocabulary import Labels

__all__ = ["ExporterPage"]

Block = tuple[Metric, list[str]]
"""A metric and its lines."""


class ExporterPage:
    """Renders the page.

    Args:
        labels: Labels of every sample: the server's kind and its model.
        aliases: Sets of further names (`ALIASES`).
        facts: What the files of the start say.
    """

    def __init__(
        self, labels: Mapping[str, str], *, aliases: Iterable[str], facts: StartFacts
    ) -> None:
        self._common = common_labels(labels)
        self._aliases = [
            (name, alias) for group in aliases for name, alias in ALIASES[group].items()
        ]
        self._facts = facts
        self._of: ServerPage | None = None
        self._server_part = ""

    def text(self, reading: MonitorReading, *, closed_connections: int = 0) -> str:
        """Return the page."""
        own = self._rendered([*self._own(reading, closed_connections)])
        page = reading.page
        if page is None:
            return own
        # the server's part is rendered once for each of its pages, however many ask
        if page is not self._of:
            self._server_part = self._rendered([*self._servers(page)]) + page.native
            self._of = page
        return own + self._server_part

    def _rendered(self, blocks: list[Block]) -> str:
        parts = []
        lines_by_name = {}
        for metric, lines in blocks:
            if lines:
                parts += [metric.head(), *lines]
                lines_by_name[metric.name] = (metric, lines)
        for name, alias in self._aliases:
            if name in lines_by_name:
                metric, lines = lines_by_name[name]
                parts += [metric.head(alias), *(alias + line[len(name) :] for line in lines)]
        return "".join(parts)

    def _servers(self, page: ServerPage) -> Iterator[Block]:
        for quantity, metric in VOCABULARY.items():
            family = page.families.get(quantity)
            if family:
                yield metric, list(lines_of(quantity, family, self._common))
        adapters = page.families.get("lora_requests")
        if adapters:
            yield self._adapters(current_labels(adapters))

    def _adapters(self, labels: Mapping[str, str]) -> Block:
        metric = Metric("inference_lora_adapters", "gauge", "LoRA adapters in use, by state.")
        counts = {
            state: len(
                [name for name in labels.get(f"{state}_lora_adapters", "").split(",") if name]
            )
            for state in ("running", "waiting")
        }
        return metric, [
            sample(metric.name, (("state", state), *self._common), count)
            for state, count in counts.items()
        ]

    def _own(self, reading: MonitorReading, closed_connections: int) -> Iterator[Block]:
        yield self._gauge("up", "Whether the last page of the server was good.", _is_up(reading))
        yield self._gauge("ready", "Whether the server is ready with its model.", reading.is_ready)
        yield self._gauge("live", "Whether the server works.", reading.verdict.is_live)
        yield self._gauge(
            "seconds_since_progress",
            "Seconds since the server last proved that it works or has nothing to do.",
            round(reading.seconds_since_proof, 3),
        )
        yield self._counter("server_restarts_total", "Restarts of the server.", reading.restarts)
        yield self._health(reading)
        yield from self._start()
        yield self._counter(
            "exporter_scrapes_total", "Good pages of the server.", reading.good_pages
        )
        errors = Metric(
            "inference_exporter_scrape_errors_total", "counter", "Pages that were not, by reason."
        )
        yield (
            errors,
            [
                sample(errors.name, (("reason", reason), *self._common), count)
                for reason, count in reading.bad_pages.items()
            ],
        )
        yield self._gauge(
            "exporter_stale",
            "Whether what the server reports is older than its last page.",
            reading.is_stale,
        )
        yield self._counter(
            "exporter_closed_connections_total",
            "Connections that were closed for newer ones.",
            closed_connections,
        )
        if reading.page is not None:
            yield from self._about_page(reading.page, reading.age)

    def _about_page(self, page: ServerPage, age: float) -> Iterator[Block]:
        yield self._gauge(
            "exporter_page_age_seconds", "Age of the server's last good page.", round(age, 3)
        )
        yield self._gauge("exporter_page_bytes", "Its size.", page.size)
        yield self._gauge("exporter_page_seconds", "How long it took.", round(page.seconds, 6))
        yield self._gauge(
            "exporter_unmapped_families",
            "Families on it that this vocabulary has no place for.",
            page.unmapped,
        )

    def _start(self) -> Iterator[Block]:
        facts = self._facts
        phases = Metric("inference_start_phase_seconds", "gauge", "Seconds of each phase.")
        yield (
            phases,
            [
                sample(phases.name, (*common_labels({"phase": name}), *self._common), value)
                for name, value in facts.phases.items()
            ],
        )
        if facts.seconds is not None:
            yield self._gauge("start_seconds", "Seconds of the whole start.", facts.seconds)
        if facts.model_bytes is not None:
            yield self._gauge("model_bytes", "Size of the loaded model.", facts.model_bytes)
        if model := facts.model:
            info = Metric("inference_model_info", "gauge", "The loaded model.")
            yield info, [sample(info.name, (*common_labels(model), *self._common), 1)]

    def _health(self, reading: MonitorReading) -> Block:
        metric = Metric(
            "inference_health_check_seconds",
            "histogram",
            "Times of the answers whether it is ready.",
        )
        lines, count = [], 0
        bounds = (*(f"{bound:g}" for bound in HEALTH_BOUNDS), "+Inf")
        for bound, number in zip(bounds, reading.health_buckets, strict=True):
            count += number
            labels: Labels = (("le", bound), *self._common)
            lines.append(sample(f"{metric.name}_bucket", labels, count))
        lines.append(sample(f"{metric.name}_sum", self._common, round(reading.health_seconds, 6)))
        lines.append(sample(f"{metric.name}_count", self._common, count))
        return metric, lines

    def _gauge(self, name: str, text: str, value: float) -> Block:
        return self._block(name, "gauge", text, value)

    def _counter(self, name: str, text: str, value: float) -> Block:
        return self._block(name, "counter", text, value)

    def _block(self, name: str, kind: str, text: str, value: float) -> Block:
        metric = Metric(f"inference_{name}", kind, text)
        return metric, [sample(metric.name, self._common, value)]


def _is_up(reading: MonitorReading) -> bool:
    return reading.page is not None and not reading.is_stale
