"""A run file: YAML with exactly one AlignmentRun and the ConfigMaps it needs. The very file works with kubectl apply.

Pure: from text to values. Files that a run names are the loader's business (`cli/load.py`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.objective import Objective
from dynalign_operator.api.field_path import FieldPath
from dynalign_operator.api.rules import RULES
from dynalign_operator.api.rules.checking import broken_rules
from dynalign_operator.api.schema import Schema, structural_schema
from dynalign_operator.api.v1alpha1 import API_VERSION, KIND, AlignmentRun, ConfigMapKeyRef
from dynalign_operator.runfile.objective_text import refuse_objective_text
from dynalign_operator.runfile.overrides import OverrideError, apply_overrides, parse_override
from dynalign_operator.runfile.problems import (
    Problem,
    describe_error,
    describe_without_values,
    is_known,
    locate_error,
    name_field,
    quote_value,
)
from dynalign_operator.runfile.server_fields import without_server_fields
from dynalign_operator.runfile.yaml_documents import (
    OBJECTIVE_LIMITS,
    Document,
    MalformedYamlError,
    read_documents,
)

_LONGEST_KEY: Final = 253
"""Characters of a ConfigMap's key, as Kubernetes bounds them."""
_CONFIG_MAP: Final = "ConfigMap"
_LISTS: Final = ("List", f"{KIND}List")
_MOST_PROBLEMS: Final = 20

ModelT = TypeVar("ModelT", bound=BaseModel)


class RunFileError(Exception):
    """The run file is wrong; every problem is one paragraph."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.text for problem in self.problems))

    @property
    def exit_code(self) -> ExitCode:
        """Bad configuration when there is any, else what the problems say."""
        codes = {problem.exit_code for problem in self.problems}
        return ExitCode.BAD_CONFIG if ExitCode.BAD_CONFIG in codes else self.problems[0].exit_code


@dataclass(frozen=True)
class RunFile:
    """A valid run file."""

    run: AlignmentRun
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name -> key -> text."""
    lines: Mapping[FieldPath, int | None] = field(default_factory=dict)
    """Where the run's fields begin, from 1; None for those that were set from outside the file."""
    notes: tuple[str, ...] = ()
    """What the file holds that was left out, a sentence each."""


def parse_run_file(text: str, settings: Sequence[str] = ()) -> RunFile:
    """Parse and validate everything that can be known from the text. Raises RunFileError.

    `settings` are FIELD=VALUE each: fields of the run that are set in place of the text's.
    """
    try:
        documents = read_documents(text)
    except MalformedYamlError as error:
        raise RunFileError([Problem(f"{name_field(error.path) or 'the file'} {error}.", error.line)]) from error
    sorted_documents = _sort_documents(documents)
    run_document, config_map_documents = sorted_documents.run, sorted_documents.config_maps
    config_maps = dict(_read_config_map(document) for document in config_map_documents)
    _refuse_duplicates(run_document, "")
    run_document, served = without_server_fields(_override(run_document, settings))
    run = _validate(AlignmentRun, run_document, "")
    if problems := list(_broken_rules(run, run_document)):
        raise RunFileError(problems)
    _check_objective(run, config_maps, {_name_of(d): d for d in config_map_documents})
    notes = (*sorted_documents.notes, *_note_served(served))
    return RunFile(run=run, config_maps=config_maps, lines=run_document.lines, notes=notes)


def read_referenced_objective(
    reference: ConfigMapKeyRef, data: Mapping[str, str], line: int | None = None
) -> Objective:
    """The objective in a ConfigMap with this `data`, which stands at `line` of the file if it is in one.

    Raises RunFileError when the key is missing or its text is no objective.
    """
    if reference.key not in data:
        have = f"it has {', '.join(data)}" if data else "it is empty"
        missing = f"ConfigMap {reference.name}: the key {reference.key} that spec.objective names is missing"
        remedy = "add it, or write a key that is there into spec.objective.configMapRef.key"
        bare = f"{missing}; {remedy if data else have}."
        raise RunFileError([Problem(f"{missing}; {have}.", line, bare=bare)])
    return read_objective(data[reference.key], f"ConfigMap {reference.name}, key {reference.key}")


def read_objective(text: str, where: str) -> Objective:
    """Parse an objective that a user wrote; problems are named after `where`. Raises RunFileError."""
    refused = refuse_objective_text(text)
    if refused is not None:
        place = f"{where}, line {refused.line}: " if refused.line else f"{where}: "
        raise RunFileError([Problem(f"{place}{refused.sentence}.", bare=f"{place}{refused.bare}.")])
    try:
        documents = read_documents(text, OBJECTIVE_LIMITS)
    except MalformedYamlError as error:
        place = f", line {error.line}" if error.line else ""
        what = name_field(error.path) or "the text"
        bare = f"{where}{place}: the text is not YAML that can be read; `dynalign validate` of a file with it says why."
        raise RunFileError([Problem(f"{where}{place}: {what} {error}.", bare=bare)]) from error
    if len(documents) != 1 or not isinstance(documents[0].data, dict):
        text = f"{where}: must hold one YAML mapping, with the fields of an objective."
        raise RunFileError([Problem(text, bare=text)])
    _refuse_duplicates(documents[0], f"{where}: ")
    return _validate(Objective, documents[0], f"{where}: ")


@dataclass(frozen=True)
class _Sorted:
    """A run file's documents by what they are for."""

    run: Document
    config_maps: tuple[Document, ...]
    notes: tuple[str, ...]


def _sort_documents(documents: list[Document]) -> _Sorted:
    runs, config_maps, others = [], [], []
    for document, listed in _unlisted(documents):
        kind = document.data.get("kind")
        if kind == KIND:
            runs.append(document)
        elif kind == _CONFIG_MAP and document.data.get("apiVersion") == "v1":
            config_maps.append(document)
        elif listed and isinstance(kind, str):
            others.append(kind)
        elif kind is None:
            _refuse(document, (), f"kind is missing; write kind: {KIND}.")
        else:
            allowed = f"kind: {KIND} with apiVersion: {API_VERSION}, or kind: ConfigMap with apiVersion: v1"
            _refuse(document, ("kind",), f"kind is {quote_value(kind)}; a run file holds {allowed}.")
    if len(runs) != 1:
        count, names = "no" if not runs else str(len(runs)), ", ".join(filter(None, map(_find_name, runs)))
        which = f" ({names})" if names else ""
        line = runs[1].line_of(()) if len(runs) > 1 else None
        raise RunFileError(
            [Problem(f"the file holds {count} documents of kind {KIND}{which}; write exactly one.", line)]
        )
    ignored = [f"ignored the objects of other kinds in the list: {', '.join(dict.fromkeys(others))}"] if others else []
    return _Sorted(runs[0], tuple(config_maps), tuple(ignored))


def _unlisted(documents: Iterable[Document]) -> Iterator[tuple[Document, bool]]:
    """The file's objects one by one, and whether they come from a list such as `kubectl get -o yaml` prints."""
    for document in documents:
        if not isinstance(document.data, dict):
            _refuse(document, (), f"the file must hold mappings such as `kind: {KIND}`, but here is something else.")
        items = document.data.get("items")
        if document.data.get("kind") not in _LISTS or not isinstance(items, list):
            yield document, False
            continue
        _refuse_duplicates(document, "")
        for index, item in enumerate(document.items(("items",))):
            if not isinstance(item.data, dict):
                _refuse(item, (), f"items[{index}] is {quote_value(item.data)}; write an object.")
            yield item, True


def _note_served(fields: tuple[FieldPath, ...]) -> list[str]:
    named = ", ".join(name_field(path) for path in fields)
    return [f"ignored what the API server owns: {named}"] if named else []


def _override(document: Document, settings: Sequence[str]) -> Document:
    try:
        return apply_overrides(document, [parse_override(setting) for setting in settings])
    except OverrideError as error:
        raise RunFileError([Problem(f"{error}.")]) from error


def _refuse(document: Document, path: FieldPath, text: str) -> NoReturn:
    raise RunFileError([Problem(text, document.line_of(path))])


def _refuse_duplicates(document: Document, prefix: str) -> None:
    if document.duplicates:
        raise RunFileError(
            Problem(
                f"{prefix}{name_field(duplicate.path)} is written twice, first on line {duplicate.first_line}; "
                "keep one of them.",
                None if prefix else duplicate.line,
                bare=f"{_at(prefix, duplicate.line)}what line {duplicate.first_line} says is said again; "
                "keep one of them.",
            )
            for duplicate in document.duplicates
        )


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return structural_schema(model)


def _validate(model: type[ModelT], document: Document, prefix: str) -> ModelT:
    """Validate as the API server would: types are not bent, names are the documented ones."""
    try:
        return model.model_validate_json(json.dumps(document.data), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False)[:_MOST_PROBLEMS]:
            path = locate_error(detail)
            sentence = describe_error(detail, _schema(model), document.written).rstrip(".")
            subject = name_field(path)
            end = "" if sentence.endswith("?") else "."
            line = None if prefix else document.line_of(path)
            bare = describe_without_values(detail, _schema(model)).rstrip(".")
            place = prefix if is_known(path, _schema(model)) else _at(prefix, document.line_of(path))
            bare = f"{place}{bare}{'' if bare.endswith('?') else '.'}"
            text = f"{prefix}{subject} {sentence}{end}" if subject else f"{prefix}{sentence}{end}"
            problems.append(Problem(text, line, bare=bare))
        raise RunFileError(problems) from error


def _at(prefix: str, line: int | None) -> str:
    """`ConfigMap mine, key objective.yaml, line 3: `."""
    return f"{prefix.removesuffix(': ')}, line {line}: " if prefix and line is not None else prefix


def _broken_rules(run: AlignmentRun, document: Document) -> Iterator[Problem]:
    for path, rule in broken_rules(run, RULES):
        yield Problem(f"{name_field(path)} {rule.message}.", document.line_of(path))


def _find_name(document: Document) -> str | None:
    metadata = document.data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else None


def _name_of(document: Document) -> str:
    name = _find_name(document)
    if not name:
        _refuse(
            document, ("metadata",), "metadata.name of the ConfigMap is missing; name it as configMapRef.name does."
        )
    return name


def _read_config_map(document: Document) -> tuple[str, dict[str, str]]:
    name = _name_of(document)
    _refuse_duplicates(document, f"ConfigMap {name}: ")
    data = document.data.get("data", {})
    if not isinstance(data, dict):
        _refuse(document, ("data",), f"ConfigMap {name}: data must be a mapping of keys to texts.")
    for key, value in data.items():
        if not isinstance(value, str):
            shown = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}..."
            _refuse(
                document, ("data", key), f"ConfigMap {name}: data.{shown} must be a text; write `{shown}: |` above it."
            )
    return name, data


def _check_objective(
    run: AlignmentRun, config_maps: Mapping[str, Mapping[str, str]], documents: Mapping[str, Document]
) -> None:
    reference = run.spec.objective.config_map_ref
    if reference is None or reference.name not in config_maps:
        return
    line = documents[reference.name].line_of(("data",))
    read_referenced_objective(reference, config_maps[reference.name], line)
