"""A trace of each film's answer, for the OpenTelemetry collector that the operator names; for nobody otherwise."""

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from pneumonet import __version__
from pneumonet.errors import ConfigError

_SERVICE: Final = "pneumonet"
# As a caller, or the proxy before us, names its own trace (W3C Trace Context). One that ends in -00 says that its trace
# is not recorded, and then our span is not either. `tracestate` holds free words, which may reach no log and no span.
_HEADER: Final = "traceparent"


def trace_of(request: Any) -> dict[str, str]:
    """Return the header of a request that names the trace it is part of, if there is one.

    Args:
        request: A starlette.requests.Request or a gradio.Request.
    """
    value = request.headers.get(_HEADER)
    return {_HEADER: value} if value else {}


class Tracing:
    """Spans for one collector. They hold the door, the code, the request id and times, and nothing of the film."""

    def __init__(self, endpoint: str) -> None:
        """Prepare the exporter; it sends in a thread of its own, and a collector out of reach holds nobody up.

        Args:
            endpoint: OTLP over HTTP, such as `http://collector:4318`.

        Raises:
            ConfigError: If the OpenTelemetry packages are missing.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            hint = "Install requirements-otel.txt."
            message = "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the OpenTelemetry packages are missing."
            raise ConfigError(message, hint=hint) from error
        # It warns of headers that it cannot read, a line for each, and quotes some: callers would write the log.
        logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
        # Told outright: the SDK's own detectors would add the host's name and the command line.
        resource = Resource({"service.name": _SERVICE, "service.version": __version__})
        self._provider: Any = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer(_SERVICE, __version__)

    def answered(
        self,
        request_id: str,
        door: str,
        code: str,
        duration_ms: float,
        timings: Mapping[str, float] | None,
        trace: Mapping[str, str] | None = None,
    ) -> None:
        """Send the span of an answer that ends now.

        Args:
            request_id: As in the log.
            door: rest, gradio or page.
            code: ok, cancelled, or an error's stable code.
            duration_ms: How long it took.
            timings: Milliseconds of each stop on the road, where there is a finding.
            trace: From `trace_of`: the span is a child of the caller's; what names no trace starts one.
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        end = time.time_ns()
        attributes: dict[str, str | float] = {"pneumonet.request_id": request_id, "pneumonet.door": door}
        attributes["pneumonet.code"] = code
        attributes |= {f"pneumonet.{stop}_ms": value for stop, value in (timings or {}).items()}
        span = self._tracer.start_span(
            "answer",
            context=TraceContextTextMapPropagator().extract(trace or {}, context=Context()),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=end - int(duration_ms * 1e6),
        )
        if code == "internal_error":
            span.set_status(StatusCode.ERROR)
        span.end(end_time=end)

    def close(self) -> None:
        """Send what has not been sent yet."""
        self._provider.shutdown()
