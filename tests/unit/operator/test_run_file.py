from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynalign_contract.settings import publish_credentials
from dynalign_contract.stores import MODEL_CREDENTIALS
from dynalign_operator.cli.load import load_run_file, require_keys, require_objective
from dynalign_operator.cli.main import app
from dynalign_operator.runfile.run_file import RunFileError, parse_run_file
from dynalign_operator.runfile.yaml_documents import read_documents

ROOT = Path(__file__).parents[3]
GOOD = sorted([*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("crds/samples/*.yaml")])
HEAD = "apiVersion: dynalign.io/v1alpha1\nkind: AlignmentRun\nmetadata: {name: a}\nspec:\n"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_examples_and_samples_are_valid(path: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{path} is valid: ")


@pytest.mark.parametrize(
    ("number", "work"),
    [
        (1, "1 iteration of 1 prompt x 2 candidates = 2 answers; LoRA on 1 process; 1 held-out prompt"),
        (2, "2 iterations of 2 prompts x 2 candidates = 4 answers; LoRA on 2 processes; 2 held-out prompts"),
    ],
)
def test_one_of_a_kind_is_not_several(number: int, work: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"{HEAD}  model: {{uri: 'hf://a/b'}}\n  iterations: {number}\n  generation: {{candidates: 2}}\n"
        f"  prompts: {{perIteration: {number}, heldOut: {number}}}\n  training: {{gpusPerNode: {number}}}\n"
    )
    assert f"  work: {work}" in CliRunner().invoke(app, ["validate", str(tmp_path / "run.yaml")]).stdout.splitlines()


def test_one_bad_file_among_good_ones_decides_the_exit_code(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: Pod\n")
    result = CliRunner().invoke(app, ["validate", str(GOOD[0]), str(bad)])
    assert result.exit_code == 10
    assert f"{GOOD[0]} is valid" in result.stdout


def test_numbers_read_as_in_kubernetes() -> None:
    (document,) = read_documents("a: 1e-5\nb: 2020-01-01\nc: 1:30\nd: -3\ne: .5\nf: 010\n")
    assert document.data == {"a": 1e-5, "b": "2020-01-01", "c": "1:30", "d": -3, "e": 0.5, "f": "010"}


def test_whole_quantities_need_no_quotes() -> None:
    stages = "  training: {gpusPerNode: 8}\n  stages: {train: {resources: {limits: {cpu: 2, nvidia.com/gpu: 8}}}}\n"
    run = parse_run_file(HEAD + "  model: {uri: 'hf://a/b'}\n" + stages).run
    assert run.spec.stages.train.resources.limits == {"cpu": "2", "nvidia.com/gpu": "8"}


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "mine.jsonl").write_text('{"prompt": "hello"}\n')
    file = tmp_path / "run.yaml"
    file.write_text(HEAD + "  model: {uri: ./model}\n  prompts: {supplied: {uri: ./mine.jsonl}}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = load_run_file(Path("../run.yaml")).run
    assert run.spec.model.uri == str(tmp_path / "model")
    assert run.spec.prompts.supplied is not None
    assert run.spec.prompts.supplied.uri == str(tmp_path / "mine.jsonl")


def test_objective_in_the_same_file() -> None:
    run_file = load_run_file(ROOT / "crds/samples/own-objective.yaml")
    assert list(run_file.config_maps) == ["helpful-honest-harmless"]
    assert require_objective(run_file) is run_file


def test_objective_elsewhere_is_valid_but_cannot_run_here(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(HEAD + "  model: {uri: 'hf://a/b'}\n  objective: {configMapRef: {name: mine}}\n")
    assert "was not checked" in CliRunner().invoke(app, ["validate", str(file)]).stdout
    with pytest.raises(RunFileError, match="holds no such ConfigMap; add it as a further YAML document"):
        require_objective(load_run_file(file))


def test_help_lists_the_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "validate" in result.stdout


KEYED = """  model: {uri: 'bundled://smollm2-135m-instruct'}
  prompts:
    agents:
      author:
        model: Endpoint
        endpoint:
          url: http://vllm:8000/v1
          model: big
          apiKeySecretRef: {name: keys, key: author}
  evaluation:
    winRate:
      judges: [Endpoint]
      endpoint: {url: 'http://vllm:8000/v1', model: big, apiKeySecretRef: {name: keys, key: judge}}
  rewards:
    - {name: short, type: Length, max: 9}
    - name: tests-pass
      type: Http
      endpoint: {url: 'http://rewards:8000/', apiKeySecretRef: {name: keys, key: tests}}
"""


def test_a_key_that_is_not_exported_is_missed_before_the_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(HEAD + KEYED)
    monkeypatch.delenv("DYNALIGN_AUTHOR_API_KEY", raising=False)
    monkeypatch.delenv("DYNALIGN_JUDGE_API_KEY", raising=False)
    assert CliRunner().invoke(app, ["validate", str(file)]).exit_code == 0
    result = CliRunner().invoke(app, ["run", str(file), "--workdir", str(tmp_path / "run")])
    assert result.exit_code == 10
    assert result.stderr == (
        f"{file}:13: spec.prompts.agents.author.endpoint.apiKeySecretRef names a Secret, and there are none on this "
        "machine; export DYNALIGN_AUTHOR_API_KEY before `dynalign run`, or remove the reference.\n"
        f"{file}:22: spec.rewards[1].endpoint.apiKeySecretRef names a Secret, and there are none on this "
        "machine; export DYNALIGN_REWARD_TESTS_PASS_API_KEY before `dynalign run`, or remove the reference.\n"
        f"{file}:17: spec.evaluation.winRate.endpoint.apiKeySecretRef names a Secret, and there are none on this "
        "machine; export DYNALIGN_JUDGE_API_KEY before `dynalign run`, or remove the reference.\n"
    )
    assert not (tmp_path / "run").exists()
    run_file = load_run_file(file)
    keys = ("DYNALIGN_AUTHOR_API_KEY", "DYNALIGN_JUDGE_API_KEY", "DYNALIGN_REWARD_TESTS_PASS_API_KEY")
    assert require_keys(run_file, dict.fromkeys(keys, "sk-x")) is run_file


STORES = """
  model:
    uri: s3://models/base
    credentialsSecretRef: {name: s3}
  export:
    publish:
      - s3: {bucket: models, prefix: mine, credentialsSecretRef: {name: s3}}
"""


def test_keys_of_buckets_are_missed_before_the_run_begins(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(HEAD + STORES.lstrip("\n"))
    with pytest.raises(RunFileError) as missed:
        require_keys(load_run_file(file), {})
    named = [name for keys in (MODEL_CREDENTIALS, publish_credentials(0)) for name in (keys.username, keys.password)]
    assert [problem.text.partition("; export ")[2].split()[0] for problem in missed.value.problems] == named
    assert require_keys(load_run_file(file), dict.fromkeys(named, "x"))


@pytest.mark.parametrize("uri", ["/" + "a" * 300, "./" + "a" * 300, "./loop", "/proc/1/root/x"])
def test_a_path_that_nothing_can_be_at_is_missing(tmp_path: Path, uri: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    file = tmp_path / "run.yaml"
    file.write_text(HEAD + f"  model: {{uri: '{uri}'}}\n")
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert result.exit_code == 10
    assert result.stderr.startswith(f"{file}:5: spec.model.uri names the folder {uri[:20]}"), result.stderr
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    file.write_text(HEAD + f"  model: {{uri: 'hf://a/b'}}\n  prompts: {{supplied: {{uri: '{uri}.jsonl'}}}}\n")
    assert CliRunner().invoke(app, ["validate", str(file)]).exit_code == 10


def test_a_file_without_end_is_refused() -> None:
    result = CliRunner().invoke(app, ["validate", "/dev/zero"])
    assert (result.exit_code, result.stderr) == (10, "/dev/zero:1: the file is larger than 4096 KiB; shorten it.\n")
