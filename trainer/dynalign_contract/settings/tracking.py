"""Experiment trackers that the report stage writes a run's numbers to."""

from typing import Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.endpoints import URL_PATTERN, EndpointUse, ServerSettings
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.stages import Stage


class MlflowSettings(ServerSettings):
    """An MLflow tracking server: a parent run for the run, and a nested run for each iteration."""

    url: str = Field(
        pattern=URL_PATTERN,
        max_length=1024,
        json_schema_extra={"x-form": "the address of an MLflow server, without a key, such as http://mlflow:5000"},
    )
    """Address of the server, without `/api/2.0/mlflow`. No key belongs here. With `apiKeySecretRef` it begins with
    https, unless the host is inside the cluster: a Service's bare name, or `NAME.NAMESPACE.svc`. Link-local addresses
    and those of metadata services are refused, and in a cluster the pod's own."""
    api_key_secret_ref: SecretKeyRef | None = None
    """The key, sent as a bearer token. `dynalign run` takes it from DYNALIGN_MLFLOW_API_KEY. Default: none is sent."""
    experiment: str = Field(default="dynalign", min_length=1, max_length=250)
    """Name of the experiment; it is created where it does not exist."""
    timeout_seconds: float = Field(default=20.0, gt=0, le=300)
    """Maximum wait for one answer."""
    retries: int = Field(default=3, ge=0, le=20)
    """Tries after the first that a request gets when the server is busy, failing or out of reach."""


class TensorBoardSettings(Model):
    """Event files for TensorBoard, in the folder `tensorboard` of the run's folder."""


class WandbSettings(Model):
    """Runs of Weights & Biases, written without a network to the folder `wandb` of the run's folder."""

    project: str = Field(
        default="dynalign",
        min_length=1,
        max_length=128,
        pattern=r"^[^/\\#?%:\x00-\x1f]+$",
        json_schema_extra={
            "x-form": "a project's name without slashes, backslashes, colons, #, ? and %, such as dynalign"
        },
    )
    """Name of the project that `wandb sync` sends them to."""


class TrackingSettings(Model):
    """Where the run's numbers go beside its report, which they are written with."""

    mlflow: MlflowSettings | None = None
    """An MLflow server. Default: none."""
    tensorboard: TensorBoardSettings | None = None
    """`tensorboard: {}` writes event files; `tensorboard --logdir FOLDER` reads them. Default: none."""
    wandb: WandbSettings | None = Field(default=None, exclude_if=lambda settings: settings is None)
    """Offline runs of Weights & Biases; `wandb sync FOLDER/wandb` sends them. Default: none."""


NO_TRACKING: Final = TrackingSettings()

MLFLOW_ENDPOINT: Final = EndpointUse(
    field="tracking.mlflow",
    stage=Stage.REPORT,
    variable="DYNALIGN_MLFLOW_API_KEY",
    lengths="tracking.mlflow.experiment",
)
"""The MLflow server in the service of the report stage."""
