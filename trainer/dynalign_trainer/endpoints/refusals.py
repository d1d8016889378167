"""Errors of endpoints: why a server gave no usable answer, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.endpoints import EndpointUse
from dynalign_contract.errors import BadConfigError, StageError
from dynalign_trainer.endpoints.complaints import Refusal
from dynalign_trainer.endpoints.transport import LONGEST_ANSWER

_MOST_MODELS: Final = 5
TRANSIENT: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed."""


class EndpointError(StageError):
    """A server is out of reach, busy or failing; retriable."""

    reason = "EndpointFailed"


@dataclass(frozen=True)
class Address:
    """An endpoint as messages name it. It holds no key."""

    use: EndpointUse
    url: str
    model: str
    sends_key: bool

    @property
    def field(self) -> str:
        """Field of the run file: `prompts.agents.author.endpoint`."""
        return self.use.field


def refusal_error(at: Address, refusal: Refusal, models: Sequence[str] | None) -> StageError:
    """The error for a refusal. `models` are those that the server lists; None when it lists none."""
    status = refusal.status
    said = f" It says: {refusal.message}" if refusal.message else ""
    if status in (401, 403):
        return BadConfigError(f"{at.url} refuses the key with status {status}. {_about_key(at)}{said}")
    if status == 402:
        return BadConfigError(f"{at.url} wants to be paid first (status 402). Add credit at the provider.{said}")
    if status == 404:
        return BadConfigError(_about_missing(at, models) + said)
    if 300 <= status < 400:
        return BadConfigError(f"{at.url} redirects (status {status}). Write the final address in {at.field}.url.{said}")
    if status in TRANSIENT:
        return EndpointError(
            f"{at.url} still answers with status {status} after all retries. Lower {at.field}.concurrency, raise "
            f"{at.field}.retries, or wait until the server has recovered.{said}"
        )
    return BadConfigError(
        f"{at.url} refuses a request for {at.model} with status {status}. Check what the server allows: "
        f"{at.use.lengths}, the temperature, and the length of the prompts.{said}"
    )


def timeout_error(at: Address, timeout: float) -> EndpointError:
    """The error for a server that gave no complete answer in time."""
    return EndpointError(
        f"{at.url} gave no answer within {timeout:g} s. Raise {at.field}.timeoutSeconds, or lower "
        f"{at.field}.concurrency or {at.use.lengths}."
    )


def unreachable_error(at: Address, reason: str) -> EndpointError:
    """The error for a server that could not be reached."""
    return EndpointError(
        f"{at.url} cannot be reached ({reason}). Check {at.field}.url, that the server runs, "
        f"and that no network policy keeps the pods of the {at.use.stage} stage from it."
    )


def forbidden_address_error(at: Address, what: str) -> BadConfigError:
    """The error for an address to which no connection is allowed."""
    return BadConfigError(
        f"{at.url} leads to {what}: such addresses are never asked. Write another one in {at.field}.url."
    )


def answer_too_long_error(at: Address) -> BadConfigError:
    """The error for an answer above the maximum length."""
    return BadConfigError(
        f"{at.url} answers with more than {LONGEST_ANSWER // 2**20} MiB, which no chat completion needs. "
        f"{at.field}.url must be the base of an OpenAI-compatible API; if it is, lower {at.field}.thoughtTokens."
    )


def retry_after_too_long_error(at: Address, seconds: float, status: int) -> EndpointError:
    """The error for a server whose Retry-After is too long."""
    return EndpointError(
        f"{at.url} answers with status {status} and asks for a wait of {seconds:.0f} s. Lower {at.field}.concurrency "
        "or raise the quota at the server; the stage is tried again."
    )


def invalid_response_error(at: Address, problem: str, said: str) -> BadConfigError:
    """The error for a successful response without a chat completion; `said` is its beginning."""
    return BadConfigError(
        f"{at.url} answers with something that is no chat completion ({problem}){f': {said!r}' if said else ''}. "
        f"{at.field}.url must be the base of an OpenAI-compatible API; most end in /v1."
    )


def _about_key(at: Address) -> str:
    if not at.sends_key:
        return f"None was sent: name the Secret that holds it in {at.field}.apiKeySecretRef."
    return (
        f"Check the key in the Secret of {at.field}.apiKeySecretRef; `dynalign run` takes it from the environment "
        f"variable {at.use.variable}."
    )


def _about_missing(at: Address, models: Sequence[str] | None) -> str:
    if models is None:
        return (
            f"{at.url} has no chat completions (status 404). {at.field}.url must be the base of an OpenAI-compatible "
            "API; most end in /v1."
        )
    if at.model in models:
        return f"{at.url} lists the model {at.model} but does not serve chat completions of it (status 404)."
    shown = ", ".join(models[:_MOST_MODELS]) + (", ..." if len(models) > _MOST_MODELS else "")
    return f"{at.url} has no model {at.model}. Write one that it has in {at.field}.model: {shown or 'it lists none'}."
