"""What `dynalign validate` says of a bad run file, a cluster says too: at `kubectl apply`, or as a condition.

Every file of data/bad_runs is in exactly one class, and a file in none of the lists has to be refused by the API server
in the very words of `dynalign validate`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from dynalign_operator.api.rules import TRANSITIONS
from lab.api_server import ApiServer, start_api_server
from support.player import run_object, start_operator

pytestmark = pytest.mark.cluster

FOLDER: Final = Path(__file__).parents[1] / "data" / "bad_runs"
FILES: Final = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}

REFUSED_BY_KUBECTL: Final = {
    "anchor-loop": "kubectl cannot read it",
    "api-version-wrong": "kubectl finds no such version at the API server",
    "config-map-without-name": "kubectl asks for the object of that name first, and there is none",
    "empty-file": "kubectl finds nothing to apply",
    "list-item-not-a-mapping": "kubectl cannot read it",
    "kind-missing": "kubectl does not know what to send it to",
    "kind-wrong": "kubectl finds no such kind at the API server",
    "metadata-missing": "kubectl asks for the object of that name first, and there is none",
    "name-missing": "kubectl asks for the object of that name first, and there is none",
    "not-a-mapping": "kubectl finds no object in it",
    "not-yaml": "kubectl cannot read it",
    "tab": "kubectl cannot read it",
    "yaml-half-a-character": "kubectl cannot read it",
    "yaml-no-character": "kubectl cannot read it",
    "yaml-tag-misfit": "kubectl cannot read it",
}
"""Never reaches the API server: the sentence is kubectl's own."""

KNOWN_TO_VALIDATE_ONLY: Final = {
    "duplicate-key": "kubectl keeps the last one before it sends the object",
    "duplicate-nested-key": "kubectl keeps the last one before it sends the object",
    "empty-section": "the API server takes an empty section for one that was left out, and fills in the defaults",
    "list-of-two-runs": "two runs are good for kubectl; `dynalign run` takes one",
    "no-run": "a file without a run is a good file for kubectl",
    "octal-number": "kubectl reads 010 as the number 8",
    "tilde-for-text": "kubectl drops what is null",
    "two-runs": "two runs are good for kubectl; `dynalign run` takes one",
    "yaml-control-character": "kubectl takes control characters",
    "yaml-tag-binary": "kubectl decodes it",
    "yaml-tag-set": "kubectl takes a set for a mapping",
}
"""Lost before the API server sees it: only who reads the file itself can tell."""

IN_OTHER_WORDS: Final = {
    "model-folder-missing": "spec.model.uri starts at the run file's folder, which no pod can see; put it on a "
    "PersistentVolumeClaim and write pvc://claim/path, or write hf://org/name",
    "model-folder-without-config": "spec.model.uri starts at the run file's folder, which no pod can see; put it on a "
    "PersistentVolumeClaim and write pvc://claim/path, or write hf://org/name",
    "decontamination-missing": "spec.prompts.decontamination.uri starts at the run file's folder, which no pod can see; "
    "put it on a PersistentVolumeClaim and write pvc://claim/path",
    "supplied-missing": "spec.prompts.supplied.uri starts at the run file's folder, which no pod can see; put it on a "
    "PersistentVolumeClaim and write pvc://claim/path",
}
"""On this machine a folder is missing; in a cluster it would not even be looked for."""

IN_THE_WORDS_OF_KUBERNETES: Final = {
    *("builtin-unknown", "enum-case", "enum-near", "enum-wrong", "gate-action-unknown", "method-unknown"),
    *("clusters-similarity", "endpoint-budget-nothing", "endpoint-concurrency-zero", "injection-gate-out-of-range"),
    *("endpoint-key-in-the-file", "endpoint-secret-without-key", "endpoint-without-model"),
    *("aggregation-gspo", "dual-clip-of-one", "tokens-per-micro-batch-fraction", "tokens-per-micro-batch-too-few"),
    *("facet-without-values", "judges-empty", "noise-floor-negative", "target-modules-empty"),
    *(
        "budget-of-nothing",
        "learning-rate-zero",
        "out-of-range-exclusive",
        "out-of-range-group-of-one",
        "out-of-range-high",
    ),
    *("out-of-range-infinite", "out-of-range-low", "out-of-range-unit"),
    *("model-missing", "model-uri-missing", "objective-ref-without-name", "spec-missing", "token-without-key"),
    *("publish-hub-without-token", "publish-key-in-the-file", "publish-without-bucket"),
    *("quantity-fraction", "wrong-type-boolean", "wrong-type-fraction", "wrong-type-list-for-mapping"),
    *("wrong-type-mapping-for-text", "wrong-type-number-for-boolean", "wrong-type-quoted-number"),
    *("wrong-type-scalar-for-list", "wrong-type-text-for-number"),
    *("capability-confidence-one-sided", "capability-on-regression-misplaced", "max-drop-in-percent"),
    *("annotation-read-as-number", "language-read-as-false", "number-too-long", "ratings-unknown"),
    *("chat-argument-fraction", "chat-argument-nested", "chat-argument-read-as-true", "chat-arguments-not-a-mapping"),
    *("chat-arguments-too-many", "chat-system-prompt-empty", "chat-thinking-case", "chat-thinking-read-as-false"),
    *("chat-thinking-unknown", "chat-unknown-field", "thinking-tokens-zero"),
    *("quantized-british", "quantized-case", "quantized-auto", "quantized-field-name", "quantized-under-training"),
    "quantized-unknown",
    *("reward-schema-is-text", "reward-type", "reward-unknown-field", "reward-weight"),
    *("reward-batch-size-zero", "reward-endpoint-budget-tokens", "reward-endpoint-model", "reward-endpoint-retries"),
    "reward-endpoint-without-url",
    *("panel-combine-unknown", "panel-judge-unknown", "panel-min-judges-zero", "panel-name-missing"),
    *("panel-too-many", "panel-unknown-field", "panel-weight-negative"),
    "selector-read-as-true",
    *("approval-not-a-list", "approval-unknown-gate"),
    *("notify-on-read-as-true", "notify-unknown-event", "notify-without-secret"),
    *("task-limit-zero", "task-name-too-long", "tasks-not-a-list"),
    *("resources-not-under-a-stage", "several-problems", "unknown-field-elsewhere", "unknown-field-no-guess"),
    *("unknown-field-snake-case", "unknown-field-typo", "unknown-stage"),
}
"""Enums, limits, types, required and unknown fields: Kubernetes' own checks come before ours, with the same field."""

_HERE: Final = "ConfigMap helpful-honest-harmless, key objective.yaml"
_NODES: Final = "spec.stages.train.affinity"
CONDITIONS: Final = {
    "affinity-field-unknown": [f"{_NODES}.nodeAfinity is unknown; correct its name, or remove it."],
    "affinity-without-values": [f"{_NODES}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"],
    "config-map-data-not-text": ["spec.objective.configMapRef names the ConfigMap mine, which does not exist."],
    "config-map-without-key": ["ConfigMap mine: the key objective.yaml that spec.objective names is missing; add it"],
    "objective-aspect-id": [f"{_HERE}: aspects[0].id cannot be used as it is; write a lower-case word"],
    "objective-aspects-twice": [f"{_HERE}: aspects: the ids are not distinct; give every aspect an id of its own."],
    "objective-lacks-candidate": [],
    "objective-not-yaml": [f"{_HERE}, line 26: the text is not YAML that can be read"],
    "objective-unknown-field": [
        f"{_HERE}: preamble is missing; write a text.",
        "has an unknown field; did you mean preamble?",
    ],
    "objective-unknown-placeholder": [f"{_HERE}: author.message uses placeholders that are unknown here"],
}
"""Known only to who sees the ConfigMap too: the run is Stalled with these sentences; those of `validate` if empty.

A status repeats nothing of a ConfigMap: field, line and remedy are those of `validate`, the values are left out.
"""

IN_OUR_WORDS: Final = sorted(
    FILES.keys()
    - REFUSED_BY_KUBECTL.keys()
    - KNOWN_TO_VALIDATE_ONLY.keys()
    - IN_OTHER_WORDS.keys()
    - IN_THE_WORDS_OF_KUBERNETES
    - CONDITIONS.keys()
)


def said_by_validate(stem: str) -> list[str]:
    """The sentences at the head of a file, which test_bad_run_files holds `dynalign validate` to."""
    head = re.match(r"# exit \d+\n((?:# (?:-|\d+): .*\n)+)", FILES[stem].read_text())
    assert head is not None
    return [line.partition(": ")[2].rstrip(".") for line in head[1].splitlines()]


def said_by_server(refusal: str) -> set[str]:
    """What kubectl prints of the API server's answer, as sentences that begin with the field."""
    sentences = set()
    for path, text in re.findall(r"(\S+): Invalid value: (?:(?:\".*?\"|-?\d+): )?(.*)", refusal):
        at = "" if path == "<nil>" else re.sub(r"\[([a-z]+)\]", r".\1", path)  # a rule's map key is written [cpu]
        sentences |= {f"{at} {text}".strip(), f"{at}.{text}"}
    return sentences


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started:
        yield started


def refusal_of(server: ApiServer, stem: str) -> str:
    applied = server.kubectl("apply", "--dry-run=server", "-f", str(FILES[stem]))
    assert applied.returncode != 0, f"the API server takes {stem}"
    return applied.stderr


def test_every_file_is_in_one_class() -> None:
    classes = (
        REFUSED_BY_KUBECTL.keys(),
        KNOWN_TO_VALIDATE_ONLY.keys(),
        IN_OTHER_WORDS.keys(),
        IN_THE_WORDS_OF_KUBERNETES,
        CONDITIONS.keys(),
        IN_OUR_WORDS,
    )
    assert sorted(stem for stems in classes for stem in stems) == sorted(FILES)
    assert len(FILES) > 80


@pytest.mark.parametrize("stem", IN_OUR_WORDS)
def test_the_api_server_says_what_validate_says(server: ApiServer, stem: str) -> None:
    refused = refusal_of(server, stem)
    assert set(said_by_validate(stem)) <= said_by_server(refused), refused


@pytest.mark.parametrize("stem", sorted(IN_OTHER_WORDS))
def test_a_relative_path_is_nothing_for_a_cluster(server: ApiServer, stem: str) -> None:
    refused = refusal_of(server, stem)
    assert IN_OTHER_WORDS[stem] in said_by_server(refused), refused


def tells_value(sentence: str, value: str) -> bool:
    """Whether our sentence speaks of the value that Kubernetes names, and of what YAML made of it where that differs."""
    if value == '""':
        return sentence.startswith("is empty;")
    return sentence.startswith((f"is {value};", f"has too few entries ({value})")) or f"reads as {value};" in sentence


@pytest.mark.parametrize("stem", sorted(IN_THE_WORDS_OF_KUBERNETES))
def test_kubernetes_names_the_same_field_and_value(server: ApiServer, stem: str) -> None:
    """A refusal for an unknown field tells nothing else; with a warning for it the rest of the file is looked at."""
    refused = refusal_of(server, stem)
    lenient = server.kubectl("apply", "--dry-run=server", "--validate=warn", "-f", str(FILES[stem]))
    whole = refused + lenient.stderr
    sentences = said_by_validate(stem)
    assert any(sentence.split(" ")[0] in refused for sentence in sentences), refused
    for sentence in sentences:
        field, _, rest = sentence.partition(" ")
        assert re.search(rf"\b{re.escape(field)}(?!\w)", whole), f"{field} is not named in {whole}"
        if value := re.search(
            rf"{re.escape(field)}: (?:Unsupported|Invalid) value: ([^:]*): .*(?:should|supported)", whole
        ):
            assert tells_value(rest, value[1]), whole


@pytest.mark.parametrize("stem", sorted(REFUSED_BY_KUBECTL))
def test_kubectl_refuses_by_itself(server: ApiServer, stem: str) -> None:
    assert "is invalid" not in refusal_of(server, stem)


@pytest.mark.parametrize("stem", sorted(KNOWN_TO_VALIDATE_ONLY))
def test_what_only_a_reader_of_the_file_can_know(server: ApiServer, stem: str) -> None:
    """When one of these is refused some day, it belongs to another class."""
    applied = server.kubectl("apply", "--dry-run=server", "-f", str(FILES[stem]))
    assert applied.returncode == 0, applied.stderr


def test_what_may_not_change_is_refused_with_the_field(server: ApiServer) -> None:
    run = run_object("kept", model={"uri": "bundled://smollm2-135m-instruct"}, iterations=3)
    assert server.apply(run).returncode == 0
    changes: dict[str, dict[str, Any]] = {
        "spec.model": {"model": {"uri": "hf://a/b"}},
        "spec.objective": {"objective": {"builtin": "collective-agency"}},
        "spec.storage": {"storage": {"size": "1Ti"}},
        "spec.iterations": {"iterations": 2},
    }
    assert changes.keys() == {transition.at for transition in TRANSITIONS}
    for transition in TRANSITIONS:
        refused = server.apply({**run, "spec": {**run["spec"], **changes[transition.at]}})
        assert f"{transition.at} {transition.message}" in said_by_server(refused.stderr), refused.stderr


def test_the_rest_becomes_conditions(server: ApiServer) -> None:
    """All of them at once, each in a namespace of its own."""
    with start_operator(server):
        for stem in CONDITIONS:
            assert server.kubectl("create", "namespace", stem).returncode == 0
            server.kubectl("apply", "-n", stem, "-f", str(FILES[stem]))
        for stem, sentences in CONDITIONS.items():
            waited = server.kubectl("wait", "-n", stem, "--for=condition=Stalled", "--timeout=50s", "ar", "--all")
            assert waited.returncode == 0, f"{stem}: {waited.stderr}"
            stalled = "{.items[*].status.conditions[?(@.type=='Stalled')]['reason','message']}"
            said = server.kubectl("get", "-n", stem, "ar", "-o", f"jsonpath={stalled}").stdout
            reason = "BadConfig" if stem.startswith("affinity-") else "BadObjective"
            assert said.startswith(f"{reason} "), f"{stem}: {said}"
            for sentence in sentences or said_by_validate(stem):
                assert sentence in said, stem
            jobs = server.kubectl("get", "-n", stem, "jobs", "-o", "name").stdout
            assert jobs == "", f"{stem}: a Job was created"
