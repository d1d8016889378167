"""`make bench-transition`: how long the operator leaves a run without a Job, on a real node.

A run of trivial stages (lab/scripted_stage) goes from fetch to export. Measured is, in this process and on
its monotonic clock, the time from the arrival of the event in which a Job first has condition Complete to the arrival
of the event that adds the next Job, both on one watch of Jobs: the operator's own watch, its decision, and its writes
up to the Job. Not in it: the time from the end of the container to that condition, which is the kubelet's and the Job
controller's and stands in the table's other rows, and the status that is written after the Job. Timestamps of the API
server would not do: they are whole seconds.

The operator's own dynalign_stage_transition_seconds, taken within its process, is printed as a cross-check.
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty
from statistics import fmean
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from rich.table import Column, Table

from benchmarks.job_events import Arrival, find_kubernetes_share, find_transitions, has_condition
from benchmarks.report import describe, print_report, this_machine
from benchmarks.watching import Feed, follow_jobs, follow_pods
from lab.cluster import (
    RELEASE,
    Cluster,
    LabError,
    bring_up,
    give_image,
    install_operator,
    own_namespace,
    say,
)

NAME: Final = "bench-transition"
ITERATIONS: Final = 20
RUN: Final = "r"
PATIENCE_SECONDS: Final = 180.0
"""The longest silence of both watches before the run counts as stuck."""
OWN_METRIC: Final = "dynalign_stage_transition_seconds"
_LABEL: Final = f"dynalign.io/run={RUN}"


@dataclass(frozen=True)
class Measurement:
    """What was seen of one run."""

    jobs: tuple[Arrival, ...]
    pods: tuple[Arrival, ...]
    seconds: float
    """From the run's creation to its last Job's completion."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when everything was measured, 1 with a sentence when it could not be."""
    parser = argparse.ArgumentParser(prog=NAME, description="Time from a Job's completion to the next Job's creation.")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of the run; five Jobs each")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = this_machine()
    try:
        cluster = bring_up()
        operator, trainer = give_image("operator"), give_image("scripted-stage")
        with own_namespace(cluster, NAME) as namespace:
            install_operator(cluster, namespace, operator, trainer)
            measured = measure(cluster, namespace, options.iterations)
            own = read_own_mean(cluster, namespace)
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    table, values = summarise(measured, own)
    print_report(NAME, machine, table, values, {})
    return 0


def measure(cluster: Cluster, namespace: str, iterations: int) -> Measurement:
    """Carry a run from its creation to its last Job's completion. Raises LabError when a Job fails."""
    feed: Feed = Feed()
    follow_jobs(cluster, namespace, _LABEL, feed)
    follow_pods(cluster, namespace, _LABEL, feed)
    begin = time.monotonic()
    cluster.kubectl("create", "--namespace", namespace, "-f-", manifest=build_run(iterations))
    arrivals: list[Arrival] = []
    while not arrivals or not _is_last(arrivals[-1]):
        arrivals.append(_next(cluster, namespace, feed))
        _tell(arrivals[-1], iterations)
    jobs = tuple(arrival for arrival in arrivals if arrival.thing["kind"] == "Job")
    pods = tuple(arrival for arrival in arrivals if arrival.thing["kind"] == "Pod")
    return Measurement(jobs, pods, jobs[-1].at - begin)


def build_run(iterations: int) -> dict[str, object]:
    """A run whose stages ask for no GPU and no model."""
    stages = ("prompts", "generate", "judge", "train", "evaluate")
    return {
        "apiVersion": "dynalign.io/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": RUN},
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct"},
            "iterations": iterations,
            "prompts": {"perIteration": 1, "heldOut": 1},
            "generation": {"candidates": 2},
            "training": {"promptsPerStep": 1},
            "storage": {"size": "1Gi"},
            "rollout": "Separate",
            "stages": {stage: {"resources": {"limits": {"nvidia.com/gpu": "0"}}} for stage in stages},
        },
    }


def read_own_mean(cluster: Cluster, namespace: str) -> float | None:
    """Mean of the operator's own metric of the same name, seconds; None where it has none."""
    path = f"/api/v1/namespaces/{namespace}/services/{RELEASE}-dynalign:metrics/proxy/metrics"
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(cluster.kubectl("get", "--raw", path))
        if family.name == OWN_METRIC
        for sample in family.samples
    }
    count = samples.get(f"{OWN_METRIC}_count", 0)
    return samples[f"{OWN_METRIC}_sum"] / count if count else None


def summarise(measured: Measurement, own_mean: float | None) -> tuple[Table, dict[str, float]]:
    """The table, and the values of the JSON line."""
    transitions = [1000 * transition.seconds for transition in find_transitions(measured.jobs)]
    share = find_kubernetes_share(measured.jobs, measured.pods)
    stages = len(share.job_to_pod)
    table = Table(
        "milliseconds", *(Column(name, justify="right") for name in ("n", "mean", "p50", "p95", "p99", "max"))
    )
    _add(table, "Job complete to next Job", transitions)
    table.add_section()
    _add(table, "Job to its pod", [1000 * s for s in share.job_to_pod])
    _add(table, "pod created to ended", [1000 * s for s in share.pod_to_end])
    _add(table, "  to started (whole s)", [1000 * s for s in share.pod_to_start])
    _add(table, "pod ended to Job complete", [1000 * s for s in share.end_to_complete])
    own = "is missing" if own_mean is None else f"has a mean of {1000 * own_mean:.0f} ms"
    table.caption = (
        f"The run of {stages} stages took {measured.seconds:.1f} s, {measured.seconds / stages:.2f} s a stage. "
        f"All but the first row is Kubernetes; the operator's own metric of the first row {own}."
    )
    told = describe(transitions)
    return table, {f"{name}_ms": round(getattr(told, name), 1) for name in ("p50", "p95", "p99")}


def _add(table: Table, what: str, sample: Sequence[float]) -> None:
    told = describe(sample)
    numbers = (fmean(sample), told.p50, told.p95, told.p99, told.max)
    table.add_row(what, str(told.n), *(f"{number:.0f}" for number in numbers))


def _next(cluster: Cluster, namespace: str, feed: Feed) -> Arrival:
    try:
        arrival = feed.get(timeout=PATIENCE_SECONDS)
    except Empty:
        said = cluster.kubectl("describe", "alignmentrun", RUN, "--namespace", namespace)
        raise LabError(f"nothing has happened for {PATIENCE_SECONDS:.0f} s:\n{said}") from None
    if isinstance(arrival, Exception):
        raise arrival
    if has_condition(arrival.thing, "Failed"):
        raise LabError(f"{arrival.name} failed; the transition after it tells nothing: {arrival.thing['status']}")
    return arrival


def _is_last(arrival: Arrival) -> bool:
    return _stage(arrival) == "export" and has_condition(arrival.thing, "Complete")


def _stage(arrival: Arrival) -> str:
    stage: str = arrival.thing["metadata"]["labels"]["dynalign.io/stage"]
    return stage


def _tell(arrival: Arrival, iterations: int) -> None:
    if arrival.type == "ADDED" and arrival.thing["kind"] == "Job" and _stage(arrival) == "prompts":
        say(f"iteration {int(arrival.thing['metadata']['labels']['dynalign.io/iteration']) + 1} of {iterations}")


if __name__ == "__main__":
    sys.exit(main())
