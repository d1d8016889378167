"""What an installation decides: the operator's environment, as the Helm chart sets it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dynalign_operator.clusters.kubernetes.progress_source import ProgressSource
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.installation import SettingsError, read_build_settings, read_flag, read_names


@dataclass(frozen=True)
class OperatorSettings:
    """Settings of one operator process."""

    build: BuildSettings = field(default_factory=lambda: read_build_settings({}))
    namespaces: tuple[str, ...] = ()
    """Empty: the whole cluster."""
    metrics_port: int = 9090
    probe_port: int = 8080
    progress: ProgressSource = ProgressSource.POD_IP
    log_level: str = "INFO"
    exports_traces: bool = False
    """Whether spans of runs are exported by OTLP."""
    workers: int = 10
    """Runs that are reconciled at the same time."""


def read_settings(environment: Mapping[str, str]) -> OperatorSettings:
    """Read `DYNALIGN_*`. Raises SettingsError."""
    default = OperatorSettings()
    return OperatorSettings(
        build=read_build_settings(environment),
        namespaces=read_names(environment.get("DYNALIGN_NAMESPACES", "")),
        metrics_port=_port(environment, "DYNALIGN_METRICS_PORT", default.metrics_port),
        probe_port=_port(environment, "DYNALIGN_PROBE_PORT", default.probe_port),
        progress=_progress(environment.get("DYNALIGN_PROGRESS") or default.progress),
        exports_traces=read_flag(environment, "DYNALIGN_TRACES"),
        log_level=(environment.get("DYNALIGN_LOG_LEVEL") or default.log_level).upper(),
    )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or not 0 <= int(text) < 65536:
        raise SettingsError(f"{name} is {text!r}; write a port number from 0 (any free one) to 65535.")
    return int(text)


def _progress(text: str) -> ProgressSource:
    try:
        return ProgressSource(text)
    except ValueError as error:
        raise SettingsError(f"DYNALIGN_PROGRESS is {text!r}; write one of {', '.join(ProgressSource)}.") from error
