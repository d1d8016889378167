"""Export of a run's spans by OTLP over HTTP, configured by the standard variables `OTEL_*`.

The libraries are those of the extra `tracing`. Spans are queued and sent by a thread of theirs: a collector that hangs
or is away costs spans and nothing else.
"""

from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.trace_ids import trace_id
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.installation import SettingsError
from dynalign_operator.planning.traces import SpanRecord, ended_spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

_PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class Tracer:
    """Exports what ends; made by `open_tracer`."""

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import Resource

        self._processor = processor
        self._resource = Resource.create({"service.name": "dynalign-operator"})

    def trace(self, run: AlignmentRun, after: AlignmentRunStatus, now: datetime) -> None:
        """Queue the spans that have ended with this status. Never waits."""
        for record in ended_spans(run, run.status, after, now):
            self._processor.on_end(self._span(run, record))

    def close(self) -> None:
        """Send what is queued, and end; may take some seconds."""
        self._processor.shutdown()

    def _span(self, run: AlignmentRun, record: SpanRecord) -> "ReadableSpan":
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        def context(span_id: int) -> SpanContext:
            return SpanContext(trace_id(run), span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        names = {"k8s.namespace.name": run.metadata.namespace, "dynalign.run": run.metadata.name}
        return ReadableSpan(
            name=record.name,
            context=context(record.span_id),
            parent=None if record.parent_id is None else context(record.parent_id),
            resource=self._resource,
            attributes={**names, **record.attributes},
            status=Status(StatusCode.ERROR, record.error) if record.error else Status(StatusCode.OK),
            start_time=_nanoseconds(record.start),
            end_time=_nanoseconds(record.end),
        )


def open_tracer() -> Tracer:
    """A tracer as `OTEL_EXPORTER_OTLP_ENDPOINT` and its like say. Raises SettingsError without the libraries."""
    missing = [name for name in _PACKAGES if not _is_installed(name)]
    if missing:
        raise SettingsError(
            f"DYNALIGN_TRACES is true, and {missing[0]} is not installed: pip install 'dynalign[tracing]'."
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Tracer(BatchSpanProcessor(OTLPSpanExporter()))


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _nanoseconds(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000) * 1000
