"""Servers that a run asks, for models and for rewards: where they are, what may be spent, and which part each plays."""

from dataclasses import dataclass
from typing import Final

from pydantic import Field

from dynalign_contract.addresses import HOST, INSIDE_URL, LOOPBACK_URL, matches
from dynalign_contract.base import Model
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.stages import Stage, stages_of_job


class RequestBudget(Model):
    """The most that may be asked of a server in one attempt of one stage."""

    requests: int | None = Field(default=None, ge=1, le=100_000_000)
    """HTTP requests, repeated ones included. Default: no limit."""


class EndpointBudget(RequestBudget):
    """The most that may be spent at an endpoint in one attempt of one stage: an iteration's prompts, judging or
    evaluation."""

    tokens: int | None = Field(default=None, ge=1, le=1_000_000_000_000)
    """Tokens read and written, as the server counts them; when they are used up no request starts. Default: no
    limit."""


URL_PATTERN: Final = rf"^https?://{HOST}(:[0-9]{{1,5}})?(/[^\s@?#\\]*)?$"
"""A plain http or https address without a key."""


class ServerSettings(Model):
    """A server, and how it is asked."""

    url: str
    api_key_secret_ref: SecretKeyRef | None = None
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests under way at a time."""
    timeout_seconds: float = Field(default=120.0, gt=0, le=3600)
    """Maximum wait for one answer."""
    retries: int = Field(default=5, ge=0, le=20)
    """Tries after the first that a request gets when the server is busy, failing or out of reach."""
    budget: RequestBudget = RequestBudget()
    """Once it is used up, no more requests are sent, and the stage continues with the answers that it has."""


class EndpointSettings(ServerSettings):
    """An OpenAI-compatible server: another vLLM, or a provider's."""

    url: str = Field(
        pattern=URL_PATTERN,
        max_length=1024,
        json_schema_extra={
            "x-form": "the base of an OpenAI-compatible API, without a key, such as http://vllm:8000/v1"
        },
    )
    """Base of the API; `/chat/completions` is added to it. No key belongs here. With `apiKeySecretRef` it begins with
    https, unless the host is inside the cluster: a Service's bare name, or `NAME.NAMESPACE.svc`. Link-local addresses
    and those of metadata services are refused, and in a cluster the pod's own."""
    api_key_secret_ref: SecretKeyRef | None = None
    """The key, sent as a bearer token. `dynalign run` takes it from the environment: DYNALIGN_AUTHOR_API_KEY,
    DYNALIGN_CRITIC_API_KEY and DYNALIGN_REVISER_API_KEY for the agents, DYNALIGN_JUDGE_API_KEY for the judge of the
    evaluation, DYNALIGN_JUDGE_NAME_API_KEY for the judge NAME of `judging.judges`, in capitals and with underscores.
    Default: none is sent."""
    budget: EndpointBudget = EndpointBudget()
    """Once it is used up, no more requests are sent, and the stage continues with the answers that it has."""
    model: str = Field(min_length=1, max_length=256)
    """Name of the model at the server."""
    thought_tokens: int = Field(default=4096, ge=0, le=131_072)
    """Room for the thoughts of a model that reasons before it answers, in tokens on top of what the answer may take. It
    is given once a reply has ended in the middle of a thought."""

    @property
    def version(self) -> str:
        """What records call the model."""
        return f"endpoint:{self.model}"


KEY_IN_THE_CLEAR: Final = (
    "would send the key in plain text; begin it with https://, or name a Service of the cluster, as in "
    "http://NAME.NAMESPACE.svc:8000/v1"
)
"""The rest of a sentence that begins with the URL's field."""


def keeps_key(url: str) -> bool:
    """Whether a key may be sent to a URL: it is encrypted, or goes to a Service of the cluster or to this machine."""
    return url.lower().startswith("https://") or matches(INSIDE_URL, url) or matches(LOOPBACK_URL, url)


@dataclass(frozen=True)
class EndpointUse:
    """A part of a run that a server may play."""

    field: str
    """Where the run file names the endpoint, below `spec`: `prompts.agents.author.endpoint`."""
    stage: Stage
    """The stage whose pods talk to it."""
    variable: str
    """The environment variable that holds its key."""
    lengths: str
    """What makes its requests or answers longer, as messages call it."""
    also: tuple[Stage, ...] = ()
    """Further stages whose pods talk to it."""

    @property
    def stages(self) -> frozenset[Stage]:
        """The stages whose pods talk to the server, and see its key."""
        return frozenset({self.stage, *self.also})

    def is_asked_by(self, stage: Stage) -> bool:
        """Whether a Job of this stage talks to the server: as the stage itself, or as a rollout that does its work."""
        return not self.stages.isdisjoint(stages_of_job(stage))


JUDGE_ENDPOINT: Final = EndpointUse(
    field="evaluation.winRate.endpoint",
    stage=Stage.EVALUATE,
    variable="DYNALIGN_JUDGE_API_KEY",
    lengths="evaluation.winRate.maxTokens",
)
"""The judge of the evaluation's win rates."""
