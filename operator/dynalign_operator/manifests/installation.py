"""Settings of an installation for all stage pods, read from the operator's variables as the chart sets them. Pure."""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from dynalign_operator.api.schema import structural_schema
from dynalign_operator.manifests.build_settings import BuildSettings, PodSettings
from dynalign_operator.runfile.problems import describe_error, name_field

REPORT_RETRIES_AT_END: Final = 30
"""Retries of a run's last report: some 20 minutes long, and then for a day, an hour apart."""


class SettingsError(Exception):
    """The environment is wrong; the message names the variable and says what to write."""


def read_build_settings(environment: Mapping[str, str]) -> BuildSettings:
    """Read the trainer's image, its pull Secrets and the pods' settings (`DYNALIGN_*`). Raises SettingsError."""
    return BuildSettings(
        trainer_image=environment.get("DYNALIGN_TRAINER_IMAGE") or BuildSettings().trainer_image,
        image_pull_secrets=read_names(environment.get("DYNALIGN_IMAGE_PULL_SECRETS", "")),
        pods=_pods(environment.get("DYNALIGN_TRAINER_PODS", "")),
        are_stages_traced=read_flag(environment, "DYNALIGN_TRACES"),
        are_approvals_verified=read_flag(environment, "DYNALIGN_APPROVALS_VERIFIED"),
        report_retries_at_end=REPORT_RETRIES_AT_END,
        sends_notifications=read_flag(environment, "DYNALIGN_NOTIFICATIONS"),
    )


def read_names(text: str) -> tuple[str, ...]:
    """Split a list of names at its commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_flag(environment: Mapping[str, str], name: str) -> bool:
    """Read a variable that is true, false or empty. Raises SettingsError."""
    text = environment.get(name, "").lower()
    if text not in ("", "true", "false"):
        raise SettingsError(f"{name} is {text!r}; write true or false.")
    return text == "true"


def _pods(text: str) -> PodSettings:
    """The chart's value `trainer`, as JSON."""
    try:
        return PodSettings.model_validate_json(text or "{}")
    except ValidationError as error:
        schema = structural_schema(PodSettings)
        sentences = (
            f"trainer.{name_field(tuple(detail['loc']))} {describe_error(detail, schema)}".replace(". ", " ")
            for detail in error.errors(include_url=False)
        )
        raise SettingsError(f"DYNALIGN_TRAINER_PODS, the chart's value trainer: {'; '.join(sentences)}.") from error
