"""One trace a run: its spans, their parents and times, what a stage is given of it, and what a collector receives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.trace_ids import run_span_id, trace_id
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.environment import plain_variables
from dynalign_operator.planning.observed import Observed
from dynalign_operator.planning.planner import plan, retry
from dynalign_operator.planning.traces import SpanRecord, ended_spans
from dynalign_operator.service.tracing import Tracer, open_tracer
from support.builders import T0, a_run
from support.loopback import serve
from support.simulation import SETTINGS, Fate, Simulation, fail, succeed

UID = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"


def a_traced_run(iterations: int = 2) -> AlignmentRun:
    return a_run().with_iterations(iterations).stored().build()


def spans_of(simulation: Simulation, fate: Fate = succeed, steps: int = 80) -> list[SpanRecord]:
    """Every span that ends until the run does."""
    found: list[SpanRecord] = []
    for _ in range(steps):
        before, now = simulation.run, simulation.now
        simulation.step(fate)
        found += ended_spans(before, before.status, simulation.run.status, now)
        if simulation.run.status.phase in ("Succeeded", "Failed"):
            break
    return found


def test_every_stage_iteration_and_the_run_have_one_span() -> None:
    run = a_traced_run()
    found = spans_of(Simulation(run))
    names = [span.name for span in found]
    for stage in ITERATION_STAGES:
        assert names.count(str(stage)) == 2
    assert [names.count(name) for name in ("fetch", "export", "iteration 0", "iteration 1", "run r")] == [1] * 5
    ids = {span.span_id: span for span in found}
    assert len(ids) == len(found)
    for span in found:
        assert span.start <= span.end
        if span.parent_id is None:
            assert span.span_id == run_span_id(run)
        else:
            parent = ids[span.parent_id]
            assert parent.start <= span.start
            assert span.end <= parent.end
    assert not [span for span in found if span.error]


def test_the_trace_is_that_of_the_runs_uid() -> None:
    assert trace_id(a_traced_run()) == UUID(UID).int
    assert trace_id(a_run().build()) == trace_id(a_run().build()) != 0


def test_failed_attempts_are_spans_with_an_error() -> None:
    left = [fail]
    simulation = Simulation(a_traced_run(1))
    found = spans_of(simulation, lambda job: left.pop()(job, 1) if left and job.stage is Stage.TRAIN else succeed(job))
    trainings = [span for span in found if span.name == "train"]
    assert [(span.attributes["dynalign.attempt"], bool(span.error)) for span in trainings] == [(1, True), (2, False)]
    assert trainings[0].span_id != trainings[1].span_id


def test_a_run_that_fails_and_goes_on_ends_twice_under_the_same_ids() -> None:
    simulation = Simulation(a_traced_run(1))
    first = spans_of(simulation, lambda job: fail(job, 10) if job.stage is Stage.TRAIN else succeed(job))
    assert [bool(span.error) for span in first if span.parent_id is None] == [True]
    simulation.run = retry(simulation.run)
    second = spans_of(simulation)
    ids = [[s.span_id for s in spans if s.name in ("iteration 0", "run r")] for spans in (first, second)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 2


def test_a_status_that_does_not_change_ends_no_span() -> None:
    run = Simulation(a_traced_run()).finish().run
    assert ended_spans(run, run.status, run.status, T0) == ()


def test_a_stage_is_given_the_id_of_its_span() -> None:
    """Both sides: what the manifest says, and what is exported when the stage has ended."""
    simulation = Simulation(a_traced_run(1)).until(Stage.JUDGE, 0)
    observed = Observed(simulation.run, (), {})
    traced, untraced = (
        plan(observed, simulation.now, replace(SETTINGS, are_stages_traced=is_traced)).create[0]
        for is_traced in (True, False)
    )
    variables = [
        plain_variables(bundle.job["spec"]["template"]["spec"]["containers"][0]["env"]) for bundle in (traced, untraced)
    ]
    assert "TRACEPARENT" not in variables[1]
    assert traced.config_map == untraced.config_map, "the digest of the configuration stays"
    version, trace, span, flags = variables[0]["TRACEPARENT"].split("-")
    judged = next(span for span in spans_of(simulation) if span.name == "judge")
    assert (version, int(trace, 16), int(span, 16), flags) == ("00", UUID(UID).int, judged.span_id, "01")


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP receiver that decodes what it gets."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with serve(Handler) as origin:
        yield origin, received


def finish_traced(tracer: Tracer, simulation: Simulation) -> None:
    for _ in range(80):
        before, now = simulation.run, simulation.now
        simulation.step(succeed)
        tracer.trace(before, simulation.run.status, now)
        if simulation.run.status.phase == "Succeeded":
            return
    raise AssertionError("the run does not end")


def test_a_collector_receives_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_traced_run(1)
    with collector() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "cluster=test")
        tracer = open_tracer()
        finish_traced(tracer, Simulation(run))
        tracer.close()
    resources = [resource for request in received for resource in request.resource_spans]
    named = {a.key: a.value.string_value for resource in resources for a in resource.resource.attributes}
    assert (named["service.name"], named["cluster"]) == ("dynalign-operator", "test")
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert {span.trace_id for span in spans} == {UUID(UID).bytes}
    (root,) = (span for span in spans if not span.parent_span_id)
    assert root.name == "run r"
    assert root.start_time_unix_nano == int(T0.timestamp()) * 10**9
    assert len(spans) == len(ITERATION_STAGES) + 4


def test_a_collector_that_is_away_costs_spans_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    tracer = open_tracer()
    finish_traced(tracer, Simulation(a_traced_run(1)))
    tracer.close()
