"""What the installation decides about the pods of all runs: the chart's value `trainer`, as the operator reads it."""

from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import Field, model_validator

from dynalign_contract.base import Model
from dynalign_contract.environment import EnvironmentVariable, is_own
from dynalign_contract.names import DataKey, ObjectName
from dynalign_contract.stages import Stage
from dynalign_operator.api.pods import StageOverrides, StagesSpec
from dynalign_operator.api.values import Quantity

GPU = "nvidia.com/gpu"

Port = Annotated[int, Field(ge=1, le=65535)]
HttpUrl = Annotated[
    str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$", json_schema_extra={"x-form": "http://host:port"})
]


class PodSecurity(Model):
    """Identity of the pods. A field that is null is left to the cluster, as OpenShift's restricted-v2 demands."""

    run_as_user: int | None = Field(default=1000, ge=1)
    run_as_group: int | None = Field(default=1000, ge=1)
    fs_group: int | None = Field(default=1000, ge=1)


class PodDefaults(StageOverrides):
    """Where and with what all stages run unless a run says otherwise; `stages` goes before the rest."""

    stages: StagesSpec = StagesSpec()
    """Defaults of single stages."""

    def of(self, stage: Stage) -> tuple[StageOverrides, ...]:
        """The defaults of a stage, the stronger last."""
        own: StageOverrides = getattr(self.stages, stage)
        return (self, own)


class Proxy(Model):
    """The site's proxy."""

    http: HttpUrl | None = None
    https: HttpUrl | None = None
    no_proxy: tuple[str, ...] = ()
    """Hosts and domains that are reached directly, beside this machine and the cluster's Services."""


class CaBundle(Model):
    """Certificate authorities that the site trusts: all of them, in one PEM file."""

    config_map: ObjectName
    """Name of a ConfigMap in the namespace of each run."""
    key: DataKey = "ca-bundle.crt"


class Scratch(Model):
    """The most that a pod's own volumes may hold."""

    cache: Quantity = "50Gi"
    tmp: Quantity = "20Gi"
    shared_memory: Quantity = "8Gi"
    """Upper limit of /dev/shm, through which NCCL and vLLM's workers talk; only pages in use count."""


class OperatorPods(Model):
    """How NetworkPolicies recognise the operator."""

    namespace: str
    labels: dict[str, str] = Field(min_length=1)


class NetworkPolicySettings(Model):
    """The NetworkPolicies of the stages."""

    enabled: bool = True
    operator: OperatorPods | None = None
    """Who may read `/metrics` of a stage. None: everybody, as where the API server asks for the operator."""
    metrics_from: tuple[dict[str, object], ...] = ()
    """Further NetworkPolicyPeers that may read `/metrics`, such as Prometheus."""
    dns_ports: tuple[Port, ...] = (53,)
    """Where the cluster's DNS listens itself: 5353 on OpenShift."""
    extra_egress: tuple[dict[str, object], ...] = ()
    """Further NetworkPolicyEgressRules of all stages."""


class PodSettings(Model):
    """What the chart's value `trainer` says about the stages' pods."""

    env: tuple[EnvironmentVariable, ...] = ()
    """Variables of all stages; a run's own of the same name go before them."""
    pod_defaults: PodDefaults = PodDefaults()
    pod_security: PodSecurity | None = PodSecurity()
    """None: the cluster decides."""
    proxy: Proxy = Proxy()
    ca_bundle: CaBundle | None = None
    hub_endpoint: HttpUrl | None = None
    """Mirror of the model hub."""
    allowed_images: tuple[str, ...] = ("*",)
    """Images that runs may name for their stages: names, or their beginnings before a `*`. The chart allows none."""
    allowed_service_accounts: tuple[str, ...] = ("*",)
    """ServiceAccounts that runs may name for their stages. The chart allows none."""
    scratch: Scratch = Scratch()
    share_compiled: bool = True
    """Whether the stages of a run pass on what vLLM and torch compile, on a volume that the run has made itself."""
    network_policy: NetworkPolicySettings = NetworkPolicySettings(enabled=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        sets = {"podDefaults": self.pod_defaults} | {
            f"podDefaults.stages.{stage}": getattr(self.pod_defaults.stages, stage) for stage in Stage
        }
        for variable in (*self.env, *(v for overrides in sets.values() for v in overrides.env)):
            if is_own(variable.name):
                raise ValueError(f"env: {variable.name} is set by dynalign itself; remove it")
            if (variable.value is None) == (variable.value_from is None):
                raise ValueError(f"env: {variable.name} needs either value or valueFrom")
        for name, overrides in sets.items():
            gpu = overrides.gpu_resource or GPU
            if gpu in {**overrides.resources.requests, **overrides.resources.limits}:
                raise ValueError(f"{name}.resources: {gpu} is asked for by the runs themselves; remove it")
        return self


@dataclass(frozen=True)
class BuildSettings:
    """What the installation decides, not the run."""

    trainer_image: str = "dynalign-trainer:0.1.0"
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the run's namespace."""
    pods: PodSettings = field(default_factory=PodSettings)
    are_stages_traced: bool = False
    """Whether a stage gets the variable TRACEPARENT, with the id of its span."""
    has_gpus: bool = True
    """False where stages find no GPU, whatever the run asks for: `dynalign run` on a machine without one."""
    are_approvals_verified: bool = False
    """Whether an admission policy compares the name in an approval with that of the user who sends it."""
    report_retries_at_end: int = 1
    """Retries of the report of a run that has ended. An operator is patient: a tracker may be down for hours."""
    sends_notifications: bool = False
    """Whether webhooks that runs name are told. `dynalign run` tells them; an operator, where the chart allows it."""
