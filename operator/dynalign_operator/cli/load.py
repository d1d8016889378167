"""Loading of run files: paths are resolved, and the files that they name are found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.sources import PathSource, parse_source
from dynalign_contract.stages import Stage
from dynalign_contract.stores import MODEL_CREDENTIALS
from dynalign_operator.api.field_path import parse_field
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.secrets import SecretVariable, environment_secrets, notify_secrets, secret_variables
from dynalign_operator.runfile.problems import Problem
from dynalign_operator.runfile.run_file import RunFile, RunFileError, parse_run_file
from dynalign_operator.runfile.yaml_documents import RUN_FILE_LIMITS


def load_run_file(path: Path, settings: Sequence[str] = ()) -> RunFile:
    """Read, validate and resolve a run file, in which `settings` (FIELD=VALUE each) are set. Raises RunFileError."""
    parsed = parse_run_file(read_text(path), settings)
    folder = path.resolve().parent
    run = _resolve_paths(parsed.run, folder)
    if problems := [*_missing_model(run, parsed), *_missing_prompts(run, parsed)]:
        raise RunFileError(problems)
    return replace(parsed, run=run)


def require_objective(run_file: RunFile) -> RunFile:
    """Refuse a run whose objective lies in a ConfigMap that is not in the file: no cluster has it for us."""
    reference = run_file.run.spec.objective.config_map_ref
    if reference is None or reference.name in run_file.config_maps:
        return run_file
    text = (
        f"spec.objective.configMapRef.name is {reference.name!r}, but the file holds no such ConfigMap; "
        f"add it as a further YAML document with the key {reference.key}."
    )
    raise RunFileError([Problem(text, run_file.lines.get(("spec", "objective")))])


def require_keys(run_file: RunFile, environment: Mapping[str, str]) -> RunFile:
    """Refuse a run whose Secrets are not in this process's environment: there are no Secrets on this machine."""
    secrets = [s for stage in Stage for s in (*_keys(run_file.run, stage), *environment_secrets(run_file.run, stage))]
    secrets += notify_secrets(run_file.run)
    problems = [
        Problem(
            f"{secret.field} names a Secret, and there are none on this machine; export {secret.variable} before "
            "`dynalign run`, or remove the reference.",
            run_file.lines.get(parse_field(secret.field)),
        )
        for secret in dict.fromkeys(secrets)  # several stages may ask one server
        if not environment.get(secret.variable, "").strip()
    ]
    if problems:
        raise RunFileError(problems)
    return run_file


def _keys(run: AlignmentRun, stage: Stage) -> tuple[SecretVariable, ...]:
    """Keys that the stage cannot do without. Many models need no token of the hub, and keys of rewards are checked
    with the judge stage."""
    if stage is not Stage.FETCH:
        return secret_variables(run, stage)
    needed = (*MODEL_CREDENTIALS.names, MODEL_CREDENTIALS.docker_config)
    return tuple(secret for secret in secret_variables(run, stage) if secret.variable in needed)


def read_text(path: Path) -> str:
    """Text of a run file, its line ends as Unix has them. Raises RunFileError."""
    try:
        return _decode(path)
    except FileNotFoundError:
        text = "the file does not exist; check the path."
    except IsADirectoryError:
        text = "this is a folder; name the run file in it."
    except UnicodeDecodeError as error:
        text = f"the file is not UTF-8 text (byte {error.start}); save it as UTF-8."
    except OSError as error:
        text = f"the file cannot be read ({error.strerror}); check its permissions."
    raise RunFileError([Problem(text, exit_code=ExitCode.BAD_INPUT)])


def _decode(path: Path) -> str:
    """The file's text, of no more bytes than anybody will parse."""
    most = RUN_FILE_LIMITS.kibibytes * 1024
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        text = f"the file is larger than {RUN_FILE_LIMITS.kibibytes} KiB; shorten it."
        raise RunFileError([Problem(text, data.count(b"\n") + 1)])
    return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _resolve(folder: Path, uri: str) -> str:
    """The absolute path that a uri beside the run file means; links that go in circles stay as they are."""
    try:
        return str((folder / uri).resolve())
    except (OSError, RuntimeError):
        return str(folder / uri)


def _is(check: Callable[[], bool]) -> bool:
    """Whether a path is what `check` asks for; one that is too long or out of reach is nothing."""
    try:
        return check()
    except OSError:
        return False


def _resolve_paths(run: AlignmentRun, folder: Path) -> AlignmentRun:
    spec = run.spec
    updates: dict[str, object] = {}
    if _is_relative(spec.model.uri):
        updates["model"] = spec.model.model_copy(update={"uri": _resolve(folder, spec.model.uri)})
    files = {
        name: part.model_copy(update={"uri": _resolve(folder, part.uri)})
        for name, part in _prompt_files(run).items()
        if _is_relative(part.uri)
    }
    if files:
        updates["prompts"] = spec.prompts.model_copy(update=files)
    return run.model_copy(update={"spec": spec.model_copy(update=updates)}) if updates else run


def _is_relative(uri: str) -> bool:
    source = parse_source(uri)
    return isinstance(source, PathSource) and source.is_relative


def _prompt_files(run: AlignmentRun) -> dict[str, Any]:
    """The parts of spec.prompts that name a file in their `uri`."""
    prompts = run.spec.prompts
    parts = {"supplied": prompts.supplied, "decontamination": prompts.decontamination}
    return {name: part for name, part in parts.items() if part is not None and part.uri is not None}


def _missing_model(run: AlignmentRun, parsed: RunFile) -> list[Problem]:
    source = parse_source(run.spec.model.uri)
    if not isinstance(source, PathSource):
        return []
    folder, written = Path(source.path), parsed.run.spec.model.uri
    if not _is(folder.is_dir):
        what = f"names the folder {written}, which does not exist; name a Hugging Face model folder"
    elif not _is((folder / "config.json").is_file):
        what = f"names the folder {written}, which has no config.json; name a Hugging Face model folder"
    else:
        return []
    line = parsed.lines.get(("spec", "model", "uri"))
    return [Problem(f"spec.model.uri {what}.", line, ExitCode.BAD_INPUT)]


def _missing_prompts(run: AlignmentRun, parsed: RunFile) -> list[Problem]:
    problems = []
    for name, part in _prompt_files(run).items():
        source = parse_source(part.uri)
        if not isinstance(source, PathSource) or _is(Path(source.path).is_file):
            continue
        text = (
            f"spec.prompts.{name}.uri names the file {_prompt_files(parsed.run)[name].uri}, which does not exist; "
            "paths with ./ start at the run file's folder."
        )
        problems.append(Problem(text, parsed.lines.get(("spec", "prompts", name, "uri")), ExitCode.BAD_INPUT))
    return problems
