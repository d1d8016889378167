"""Run files with mistakes that people and programs make, and some that only an enemy would.

Promises: the loader of `dynalign validate` takes a file or refuses it, every refusal names a field or a line and is fit
for a terminal, and what is taken can be planned and rendered.
"""

import copy
import json
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.fuzz.texts import change_text
from benchmarks.fuzz.trials import Fuzzer, Trial
from benchmarks.fuzz.values import ODD_TEXTS, ODD_VALUES
from dynalign_contract.plain_text import has_hidden
from dynalign_operator.api.schema import Schema
from dynalign_operator.cli.load import load_run_file, require_objective
from dynalign_operator.generate.crd import build_documented_schema
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning.rehearsal import rehearse
from dynalign_operator.runfile.problems import Problem
from dynalign_operator.runfile.run_file import RunFile, RunFileError
from dynalign_operator.runfile.yaml_text import to_yaml

_ROOT: Final = Path(__file__).parents[2]
_GOOD: Final = ("examples/*.yaml", "crds/samples/*.yaml")
_BAD: Final = ("tests/data/bad_runs/*.yaml",)
_BUNDLES: Final = 9
"""Rendered of each accepted file: more than one iteration."""
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NAMES_A_FIELD: Final = re.compile(r"(the file|ConfigMap|apiVersion|kind|metadata|spec|status|items)\b")
_SPEAKS_OF_LIBRARIES: Final = re.compile(r"pydantic|validation error|Traceback|Value error|Input should|input_value")

Data = dict[str, Any]
Fields = Mapping[tuple[str, ...], Schema]
"""Path of every field -> its schema."""


@contextmanager
def _open() -> Iterator[Trial]:
    good, bad = _read(_GOOD), _read(_BAD)
    fields = dict(_paths(build_documented_schema(), ()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"

        def trial(rng: random.Random) -> str:
            path.write_bytes(
                _make(rng, rng.choice(good if rng.random() < 0.8 else bad), fields).encode("utf-8", "surrogatepass")
            )
            return try_file(path)

        yield trial


DOCUMENTS: Final = Fuzzer("documents", _open)


def try_file(path: Path) -> str:
    """Load a run file, and render it if it is taken. Raises AssertionError for a broken promise."""
    try:
        run_file = load_run_file(path)
    except RunFileError as error:
        check_problems(error.problems)
        return "refused"
    try:
        require_objective(run_file)
    except RunFileError as error:
        check_problems(error.problems)
        return "accepted, objective elsewhere"
    _render(run_file)
    return "accepted, rendered"


def check_problems(problems: tuple[Problem, ...]) -> None:
    """Raise AssertionError for a refusal that does not help, or does harm."""
    assert problems, "refused without a word"  # noqa: S101 - a fuzzer asserts
    for problem in problems:
        named = problem.line is not None or _NAMES_A_FIELD.match(problem.text)
        assert named, f"names neither field nor line: {problem.text}"  # noqa: S101
        assert not has_hidden(problem.text), f"is not fit for a terminal: {problem.text!r}"  # noqa: S101
        assert not _SPEAKS_OF_LIBRARIES.search(problem.text), f"speaks of a library: {problem.text}"  # noqa: S101
        assert len(problem.text) < 2000, f"is too long: {problem.text}"  # noqa: S101


def _render(run_file: RunFile) -> None:
    bundles = islice(rehearse(run_file.run, run_file.config_maps, _NOW, BuildSettings()), _BUNDLES)
    documents = [document for bundle in bundles for document in (bundle.config_map, bundle.job)]
    assert documents, "an accepted run has no first stage"  # noqa: S101
    json.dumps(documents, allow_nan=False)
    text = to_yaml(documents[:4])
    assert not has_hidden(text), "what is rendered is not fit for a terminal"  # noqa: S101


def _read(patterns: Sequence[str]) -> list[str]:
    return [path.read_text() for pattern in patterns for path in sorted(_ROOT.glob(pattern))]


def _make(rng: random.Random, text: str, fields: Fields) -> str:
    documents = _parse(text)
    if documents and rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            rng.choice(_STRUCTURAL)(rng, documents, fields)
        text = _dump(rng, documents)
        if rng.random() < 0.9:
            return text
    for _ in range(rng.choice((1, 1, 2, 5))):
        text = change_text(rng, text)
    return text


def _parse(text: str) -> list[Data]:
    """The documents as values of JSON; empty where the text is none that can be changed so."""
    try:
        documents = json.loads(json.dumps(list(yaml.safe_load_all(text))))
    except (yaml.YAMLError, ValueError, TypeError, KeyError, OverflowError):  # of the library, for odd tags
        return []
    return [document for document in documents if isinstance(document, dict)]


def _dump(rng: random.Random, documents: list[Data]) -> str:
    match rng.randrange(4):
        case 0 if len(documents) == 1:
            return json.dumps(documents[0], ensure_ascii=rng.random() < 0.5)
        case 1:
            return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": documents}, allow_unicode=True)
    return yaml.safe_dump_all(documents, allow_unicode=rng.random() < 0.5, default_flow_style=rng.random() < 0.2)


def _paths(schema: Schema, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Schema]]:
    for name, child in schema.get("properties", {}).items():
        yield (*path, name), child
        yield from _paths(child, (*path, name))


def _set_field(rng: random.Random, documents: list[Data], fields: Fields) -> None:
    """An odd value at a field of the schema, which need not be in the file yet."""
    *above, last = rng.choice(list(fields))
    node = rng.choice(documents)
    for name in above:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    node[last] = odd_value(rng)


def _set_limit(rng: random.Random, documents: list[Data], fields: Fields) -> None:
    """The least, the greatest, the longest value of a field, or an option of it: what a careful enemy writes."""
    path = rng.choice(list(fields))
    *above, last = path
    node = rng.choice(documents)
    for name in above:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    schema = fields[path]
    values = [schema[key] for key in ("minimum", "maximum", "default") if key in schema] + schema.get("enum", [])
    if schema.get("type") == "string" and "enum" not in schema:
        values += [rng.choice(ODD_TEXTS), "9" * (schema.get("maxLength", 20) - 1) + "d"]
    node[last] = copy.deepcopy(rng.choice(values or [odd_value(rng)]))


def _replace_value(rng: random.Random, documents: list[Data], fields: Fields) -> None:
    """An odd value where there was a good one; in a ConfigMap, an odd objective."""
    del fields
    parent, key = rng.choice(list(_places(rng.choice(documents))) or [({}, "x")])
    before = parent[key] if isinstance(parent, list) or key in parent else None
    if isinstance(before, str) and "\n" in before and rng.random() < 0.8:
        parent[key] = change_text(rng, before)
    else:
        parent[key] = odd_value(rng)


def _remove(rng: random.Random, documents: list[Data], fields: Fields) -> None:
    del fields
    places = list(_places(rng.choice(documents)))
    if places:
        parent, key = rng.choice(places)
        del parent[key]


def _add_what_a_server_adds(rng: random.Random, documents: list[Data], fields: Fields) -> None:
    del fields
    document = rng.choice(documents)
    if rng.random() < 0.7:
        document["status"] = odd_value(rng)
    if isinstance(document.get("metadata"), dict):
        for name in ("uid", "resourceVersion", "generation", "managedFields", "ownerReferences", "creationTimestamp"):
            if rng.random() < 0.5:
                document["metadata"][name] = odd_value(rng)


def _repeat(rng: random.Random, documents: list[Data], fields: Fields) -> None:
    del fields
    documents.append(copy.deepcopy(rng.choice(documents)))


_STRUCTURAL: Final[tuple[Callable[[random.Random, list[Data], Fields], None], ...]] = (
    *(_set_field, _set_field, _set_limit, _set_limit, _set_limit, _replace_value, _replace_value),
    *(_remove, _add_what_a_server_adds, _repeat),
)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a document, as the container and the key to it."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in list(items):
        yield node, key
        yield from _places(child)


def odd_value(rng: random.Random) -> Any:
    """A value of its own: what one document makes of it must not be in the next one."""
    return copy.deepcopy(_draw_odd(rng))


def _draw_odd(rng: random.Random) -> Any:
    match rng.randrange(6):
        case 0 | 1:
            return rng.choice(ODD_VALUES)
        case 2:
            return rng.choice(ODD_TEXTS)
        case 3:
            return {rng.choice(ODD_TEXTS): rng.choice(ODD_VALUES)}
        case 4:
            return [rng.choice(ODD_VALUES), rng.choice(ODD_TEXTS)]
    return rng.choice(
        (
            rng.randint(-10, 10),
            rng.randint(-(2**70), 2**70),
            rng.random(),
            rng.random() * 10.0 ** rng.randint(-320, 300),
        )
    )
