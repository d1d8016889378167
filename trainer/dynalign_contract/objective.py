"""An objective is data: aspects, what their scores look like, and the templates of the agents and of the judge."""

from enum import StrEnum
from importlib import resources
from string import Template
from typing import Annotated, Final

import yaml
from pydantic import Field, StringConstraints, field_validator, model_validator

from dynalign_contract.base import Model

BUILTIN: Final = ("collective-agency", "helpful-honest-harmless")
"""Names of the objectives that ship; the first is the default."""


_Template = Annotated[str, StringConstraints(max_length=8000)]
"""A text with placeholders."""
_Beginning = Annotated[str, StringConstraints(max_length=1000)]
"""The first words of an answer."""
_Word = Annotated[str, StringConstraints(max_length=60)]
"""The name of a facet or of a criterion."""
_Value = Annotated[str, StringConstraints(max_length=500)]
"""One value of a facet."""
_Question = Annotated[str, StringConstraints(max_length=2000)]


class Aggregate(StrEnum):
    """How the aspects of one answer become one reward."""

    GEOMETRIC_MEAN = "GeometricMean"
    """No aspect can be bought with another (the default)."""
    MEAN = "Mean"
    MINIMUM = "Minimum"


class Aspect(Model):
    """One thing that answers are scored for, from 0 to 9."""

    id: str = Field(
        pattern=r"^[a-z][a-z0-9-]{0,30}$",
        json_schema_extra={"x-form": "a lower-case word such as knowledge, at most 31 letters, digits and hyphens"},
    )
    title: str = Field(min_length=1, max_length=80)
    definition: str = Field(min_length=1, max_length=2000)
    low: str = Field(default="", max_length=500)
    """What an answer that deserves 0 looks like."""
    middle: str = Field(default="", max_length=500)
    """What an answer that deserves 5 looks like."""
    high: str = Field(default="", max_length=500)
    """What an answer that deserves 9 looks like."""


class ObjectiveError(ValueError):
    """A part of an objective that cannot be used. `bare` says the same and repeats nothing that stands there."""

    def __init__(self, message: str, bare: str = "") -> None:
        super().__init__(message)
        self.bare = bare or message


def _check_placeholders(template: str, allowed: frozenset[str], required: frozenset[str]) -> str:
    used = frozenset(Template(template).get_identifiers())
    if not Template(template).is_valid():
        raise ObjectiveError("is no valid template: write $$ for a dollar sign and $name for a placeholder")
    if unknown := used - allowed:
        raise ObjectiveError(
            f"uses unknown placeholders: {_list(unknown)}; allowed are {_list(allowed)}",
            bare="uses placeholders that are unknown here; `dynalign validate` of a file with it lists those allowed",
        )
    if missing := required - used:
        raise ObjectiveError(f"lacks {_list(missing)}; without it the text does not say what this is about")
    return template


def _list(names: frozenset[str]) -> str:
    return ", ".join(f"${name}" for name in sorted(names))


class JudgeTemplate(Model):
    """How a candidate is shown to the judge.

    Prefix sharing decides the order: `context` (objective and rubric, then the prompt, then the candidate) is the same
    for all aspects of a candidate; the aspect's question comes last. The judge's answer starts with `prefill` and goes
    on with one digit.
    """

    context: _Template
    """Placeholders: $preamble $rubric $prompt $candidate $open $close (random delimiters around quoted text)."""
    question: _Template
    """Placeholders: $title $definition $low $middle $high."""
    prefill: _Beginning = "Score: "

    @field_validator("context")
    @classmethod
    def _context(cls, value: str) -> str:
        allowed = frozenset({"preamble", "rubric", "prompt", "candidate", "open", "close"})
        return _check_placeholders(value, allowed, frozenset({"prompt", "candidate"}))

    @field_validator("question")
    @classmethod
    def _question(cls, value: str) -> str:
        return _check_placeholders(value, frozenset({"title", "definition", "low", "middle", "high"}), frozenset())


class CompareTemplate(Model):
    """How two answers are shown to the judge of the evaluation; it answers with A or B."""

    message: _Template
    """Placeholders: $preamble $rubric $prompt $a $b $open $close."""
    prefill: _Beginning = "Better answer:"

    @field_validator("message")
    @classmethod
    def _message(cls, value: str) -> str:
        allowed = frozenset({"preamble", "rubric", "prompt", "a", "b", "open", "close"})
        return _check_placeholders(value, allowed, frozenset({"prompt", "a", "b"}))


class AuthorTemplate(Model):
    """How the scenario author is asked for one training prompt."""

    message: _Template
    """Placeholders: $preamble, and one for each facet of `facets`."""
    prefill: _Beginning = ""
    """Beginning of the author's answer that is not part of the prompt."""
    opening: _Beginning = ""
    """Beginning of the prompt itself, after `prefill`; the author goes on from here. Placeholders: as in `message`."""


class CriticTemplate(Model):
    """How the critic is asked to score a training prompt."""

    message: _Template
    """Placeholders: $preamble $prompt $open $close."""
    criteria: dict[_Word, _Question] = Field(min_length=1, max_length=16)
    """Name of a criterion -> the question about it, asked last; the answer is one digit."""
    prefill: _Beginning = "Score: "

    @field_validator("message")
    @classmethod
    def _message(cls, value: str) -> str:
        return _check_placeholders(value, frozenset({"preamble", "prompt", "open", "close"}), frozenset({"prompt"}))


class ReviserTemplate(Model):
    """How the reviser is asked to rewrite a training prompt."""

    message: _Template
    """Placeholders: $preamble $prompt $open $close."""
    prefill: _Beginning = ""
    """Beginning of the reviser's answer that is not part of the prompt."""

    @field_validator("message")
    @classmethod
    def _message(cls, value: str) -> str:
        return _check_placeholders(value, frozenset({"preamble", "prompt", "open", "close"}), frozenset({"prompt"}))


class Objective(Model):
    """What the model is aligned to."""

    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        json_schema_extra={"x-form": "lower-case letters, digits and inner hyphens, for example house-style"},
    )
    version: str = Field(default="1", max_length=32)
    preamble: str = Field(max_length=4000)
    aspects: tuple[Aspect, ...] = Field(min_length=1, max_length=16)
    aggregate: Aggregate = Aggregate.GEOMETRIC_MEAN
    facets: dict[_Word, Annotated[tuple[_Value, ...], Field(max_length=1000)]] = Field(
        default_factory=dict, max_length=32
    )
    """Seed facets of the author: name -> values, one of which is drawn for each prompt."""
    judge: JudgeTemplate
    compare: CompareTemplate
    author: AuthorTemplate
    critic: CriticTemplate | None = None
    """None: every prompt that the curator keeps is used."""
    reviser: ReviserTemplate | None = None
    """None: no prompt can be rewritten."""

    @model_validator(mode="after")
    def _consistent(self) -> "Objective":
        ids = [aspect.id for aspect in self.aspects]
        if len(set(ids)) != len(ids):
            raise ObjectiveError(
                f"aspects: the ids {', '.join(ids)} are not distinct; give every aspect an id of its own",
                bare="aspects: the ids are not distinct; give every aspect an id of its own",
            )
        if empty := [name for name, values in self.facets.items() if not values]:
            raise ObjectiveError(
                f"facets: {', '.join(empty)} has no values; give it some, or remove it",
                bare="facets: one has no values; give it some, or remove it",
            )
        if "preamble" in self.facets:
            raise ObjectiveError(
                "facets: preamble is the placeholder of the objective's own preamble; take another name"
            )
        for name, template in (("message", self.author.message), ("opening", self.author.opening)):
            try:
                _check_placeholders(template, frozenset({"preamble", *self.facets}), frozenset())
            except ObjectiveError as error:
                raise ObjectiveError(f"author.{name} {error}", bare=f"author.{name} {error.bare}") from error
        return self

    @property
    def rubric(self) -> str:
        """All aspects with their definitions, as text for a template."""
        return "\n".join(f"{aspect.title}: {aspect.definition}" for aspect in self.aspects)


def parse_objective(text: str) -> Objective:
    """Parse an objective's YAML. Raises yaml.YAMLError or pydantic's ValidationError."""
    return Objective.model_validate(yaml.safe_load(text))


def builtin_objective(name: str) -> Objective:
    """An objective that ships with dynalign. Raises KeyError for an unknown name."""
    if name not in BUILTIN:
        raise KeyError(name)
    return parse_objective((resources.files("dynalign_contract") / "objectives" / f"{name}.yaml").read_text())
