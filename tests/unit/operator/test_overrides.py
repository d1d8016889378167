"""`--set FIELD=VALUE` of validate, render and run: a value as it would stand in the file, in place of what stands there."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dynalign_operator.cli.main import app
from dynalign_operator.runfile.run_file import RunFileError, parse_run_file

TEXT = """\
apiVersion: dynalign.io/v1alpha1
kind: AlignmentRun
metadata: {name: a}
spec:
  model: {uri: 'hf://a/b', chat: {thinking: "On"}}
  iterations: 5
  prompts: {agents: {critic: {model: Policy}}}
  evaluation: {winRate: {judges: [Base, Live]}}
  stages: {train: {nodeSelector: {a.b/c: d}}}
"""


def spec_with(*settings: str) -> object:
    spec = parse_run_file(TEXT, settings).run.spec
    return spec.model_dump(by_alias=True, mode="json", exclude_unset=True)


BASE = yaml.safe_load(TEXT)["spec"]


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        pytest.param((), {}, id="nothing"),
        pytest.param(("spec.model.uri=hf://c/d",), {"model": {**BASE["model"], "uri": "hf://c/d"}}, id="a text"),
        pytest.param(("spec.iterations=2",), {"iterations": 2}, id="a number"),
        pytest.param(("spec.suspend=true",), {"suspend": True}, id="a field that the file leaves out"),
        pytest.param(
            ("spec.training.lora.rank=8",), {"training": {"lora": {"rank": 8}}}, id="in mappings that it leaves out"
        ),
        pytest.param(
            ('spec.model.chat={thinking: "Off"}',),
            {"model": {"uri": "hf://a/b", "chat": {"thinking": "Off"}}},
            id="a whole mapping",
        ),
        pytest.param(
            ("spec.evaluation.winRate.judges=[Live]",), {"evaluation": {"winRate": {"judges": ["Live"]}}}, id="a list"
        ),
        pytest.param(
            ("spec.evaluation.winRate.judges[0]=Live", "spec.evaluation.winRate.judges[1]=Base"),
            {"evaluation": {"winRate": {"judges": ["Live", "Base"]}}},
            id="an item of a list",
        ),
        pytest.param(
            ("spec.prompts.languages[0]=en", "spec.prompts.languages[1]=de"),
            {"prompts": {**BASE["prompts"], "languages": ["en", "de"]}},
            id="items behind the last one",
        ),
        pytest.param(
            ('spec.stages.train.nodeSelector["a.b/c"]=e',),
            {"stages": {"train": {"nodeSelector": {"a.b/c": "e"}}}},
            id="a key with dots and a slash",
        ),
        pytest.param(
            ("spec.model.chat.arguments.reasoning=a=b",),
            {"model": {**BASE["model"], "chat": {"thinking": "On", "arguments": {"reasoning": "a=b"}}}},
            id="a value with an equals sign",
        ),
        pytest.param(("spec.iterations=2", "spec.iterations=4"), {"iterations": 4}, id="the later of two"),
        pytest.param(("spec.prompts.agents=null",), {"prompts": {}}, id="a field removed"),
        pytest.param(("spec.suspend=null",), {}, id="nothing removed"),
    ],
)
def test_a_field_is_set_in_place_of_the_files(settings: tuple[str, ...], differs: dict[str, object]) -> None:
    assert spec_with(*settings) == {**BASE, **differs}


def test_metadata_can_be_set_too() -> None:
    assert parse_run_file(TEXT, ["metadata.name=b"]).run.metadata.name == "b"


def test_what_an_alias_stands_for_elsewhere_stays() -> None:
    shared = TEXT.replace("critic: {model: Policy}", "critic: &c {model: Policy}, reviser: *c")
    agents = parse_run_file(shared, ["spec.prompts.agents.critic.model=Base"]).run.spec.prompts.agents
    assert agents.reviser is not None
    assert (agents.critic.model, agents.reviser.model) == ("Base", "Policy")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("spec.iterations", '--set "spec.iterations" is not FIELD=VALUE; write it as in --set spec.iterations=2'),
        ("=2", '--set "=2" is not FIELD=VALUE'),
        ("spec..iterations=2", '--set "spec..iterations=2" is not FIELD=VALUE'),
        (".spec.iterations=2", '--set ".spec.iterations=2" is not FIELD=VALUE'),
        ("spec.a b=2", '--set "spec.a b=2" is not FIELD=VALUE'),
        ('spec.nodeSelector["a"=2', "is not FIELD=VALUE"),
        (f"spec.{'x' * 100}", "..."),
        ("iterations=2", "--set iterations names no field that can be set; name one under spec or metadata."),
        ("spec={}", "--set spec names no field that can be set"),
        ("kind=Pod", "--set kind names no field that can be set"),
        ("spec.iterations=", "--set spec.iterations has no value; write spec.iterations=null to remove the field."),
        ("spec.iterations= ", "--set spec.iterations has no value"),
        ("spec.model={uri: [}", "--set spec.model: the value is not YAML"),
        ("spec.model.uri=!!binary aa", "--set spec.model.uri: the value has the tag !!binary"),
        ("spec.model={uri: !!set {}}", "--set spec.model: the value, uri, has the tag !!set"),
        ("spec.iterations=2\n---\n3", "--set spec.iterations: the value is 2 YAML documents; write one."),
        ("spec.model={uri: a, uri: b}", "--set spec.model: spec.model.uri is written twice; keep one of them."),
        ("spec.iterations.a=2", "--set spec.iterations.a: spec.iterations is 5, which has no field a."),
        ("spec.iterations[0]=2", "--set spec.iterations[0]: spec.iterations is 5, which has no items."),
        (
            "spec.evaluation.winRate.judges.first=Base",
            "spec.evaluation.winRate.judges is a list, which has no field first.",
        ),
        (
            "spec.evaluation.winRate.judges[3]=Base",
            "spec.evaluation.winRate.judges is a list of 2 items; the next one is [2].",
        ),
        ("spec.evaluation.winRate.judges[0]=null", "whose items are not removed one by one; set the whole list."),
        # what the file itself would be told
        ("spec.iterations=many", 'spec.iterations is "many"; write a whole number from 1 to 1000.'),
        ("spec.iterations='2'", 'spec.iterations is "2"; write a whole number from 1 to 1000.'),
        ("spec.iteration=2", "spec.iteration is unknown; did you mean iterations?"),
        ("spec.model.chat.thinking=Off", 'is Off, which YAML reads as false; write "Off", in quotes.'),
        ("spec.model=null", "spec.model is missing; write a mapping with uri."),
        ("spec.model.uri=https://a", "spec.model.uri"),
    ],
)
def test_what_cannot_be_set_is_refused_with_a_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(RunFileError) as caught:
        parse_run_file(TEXT, [setting])
    (problem,) = caught.value.problems
    assert sentence in problem.text
    assert problem.text.endswith((".", "?"))
    assert problem.line is None  # not a line of the file is to blame
    assert caught.value.exit_code == 10


def test_a_mistake_of_the_file_keeps_its_line() -> None:
    text = TEXT.replace("iterations: 5", "iterations: 0")
    with pytest.raises(RunFileError) as caught:
        parse_run_file(text, ["spec.suspend=true"])
    assert [problem.line for problem in caught.value.problems] == [6]
    parse_run_file(text, ["spec.iterations=1"])  # set, so that the mistake is gone


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(TEXT)
    return path


def test_validate_sets_a_field_in_every_file(file: Path) -> None:
    other = file.with_name("other.yaml")
    other.write_text(TEXT)
    result = CliRunner().invoke(app, ["validate", str(file), str(other), "--set", "spec.model.uri=hf://c/d"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("a aligns hf://c/d\n") == 2


def test_validate_says_what_is_wrong_with_a_field_that_is_set(file: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(file), "--set", "spec.iterations=0"])
    assert result.exit_code == 10
    assert result.stderr == f"{file}: spec.iterations is 0; write a whole number from 1 to 1000.\n"


def test_a_path_that_is_set_starts_at_the_file(file: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(file), "--set", "spec.model.uri=./here"])
    assert result.stderr == (
        f"{file}: spec.model.uri names the folder ./here, which does not exist; name a Hugging Face model folder.\n"
    )
    assert result.exit_code == 10


def test_render_prints_the_objects_of_the_run_as_set(file: Path) -> None:
    settings = ["--set", "metadata.name=twin", "--set", "spec.model.uri=hf://c/d"]
    printed = CliRunner().invoke(app, ["render", str(file), *settings]).stdout
    named = [document["metadata"]["name"] for document in yaml.safe_load_all(printed)]
    assert named
    assert all(name.startswith("twin") for name in named)
    assert "hf://c/d" in printed
    assert "hf://a/b" not in printed
