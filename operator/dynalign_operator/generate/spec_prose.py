"""What the reference of AlignmentRun says around its tables."""

from typing import Final

from dynalign_operator.api.v1alpha1 import API_VERSION, KIND, PLURAL

MINIMAL: Final = f"""\
apiVersion: {API_VERSION}
kind: {KIND}
metadata:
  name: my-run
spec:
  model:
    uri: hf://Qwen/Qwen3-4B-Instruct-2507
"""
"""A whole run file; everything else has a default."""

HEAD: Final = f"""\
<!-- Generated from operator/dynalign_operator/api by `make generate`; change the models instead. -->
# {KIND}

One `{KIND}` (`{API_VERSION}`, namespaced, short name `ar`) is one run: a language model that aligns itself for
`spec.iterations` iterations. The operator creates a Job for each stage, one after another:

```text
fetch ─► for each iteration: prompts ─► generate ─► judge ─► train ─► evaluate ─► export
```

Everything that the run makes lies on one volume, in a folder of the run's name; the aligned model is in `export`.
Deleting the run deletes its Jobs and, unless `spec.storage.existingClaim` names a claim of your own, its volume.

## Minimal example

```yaml
{MINIMAL}```

`dynalign validate FILE` says what is wrong with such a file; `kubectl apply -f FILE` refuses it for the same field and,
but for Kubernetes' own checks of types and limits, in the same words.

[full.yaml](../../crds/samples/full.yaml) shows every field, [own-objective.yaml](../../crds/samples/own-objective.yaml)
an objective of your own ([how to write one](../objectives.md)), [examples](../../examples) whole runs.

## With kubectl

<!-- test: cluster; runs my-run.yaml -->
```bash
kubectl explain {PLURAL}.spec.training          # the tables below, in the terminal
kubectl get ar                                              # NAME PHASE ITERATION STAGE PROGRESS REWARD WINRATE AGE
kubectl get ar -o wide                                      # CAPABILITYDELTA too
kubectl describe ar my-run                                  # conditions, stages, events
kubectl wait ar/my-run --for=condition=Completed --timeout=72h
kubectl wait ar/my-run --for=condition=Stalled --timeout=72h    # somebody has to act
kubectl patch ar my-run --type=merge -p '{{"spec":{{"suspend":true}}}}'     # frees the nodes; false goes on
kubectl patch ar my-run --type=merge -p '{{"spec":{{"iterations":20}}}}'    # goes on, even when the run is complete
kubectl delete ar my-run                                    # with its Jobs and its volume
```

| column | field |
|---|---|
| PHASE | `status.phase` |
| ITERATION | `status.iteration`, from 0 |
| STAGE | `status.stage` |
| PROGRESS | `status.progress`, for example `3/10 train 62%` |
| REWARD | `status.reward`, of the latest judged iteration |
| WINRATE | `status.winRate.value`, of the latest evaluated iteration |
| CAPABILITYDELTA | `status.capabilityDelta.value`, of the latest examined iteration; with `-o wide` |

The numbers of these columns are rounded to three digits; `status.iterations` has all digits.

## How to read the tables

- **default**: of a field that is left out. Empty: the field is optional, and *what* says what happens without it.
- **change**: of a run that exists. `never`: refused. `up only`: may be raised. `at once`: acted on immediately.
  `next Job`: a Job keeps what it was created with, the next one has the new value. What is done is not done again.
- Texts are of the form that the type names; numbers lie within the limits that stand beside the type.
- A *quantity* is Kubernetes' own: `500m`, `8`, `100Gi`.
- Between fields there are rules, listed below the table of the object that holds them all.
"""

AFTER_SPEC: Final = """\
## Secrets, ConfigMaps and claims that a run names

They are looked for in the run's namespace.

| field | when it is missing |
|---|---|
| `spec.model.tokenSecretRef`, every `credentialsSecretRef`, `apiKeySecretRef` of every `endpoint` | \
the operator reads no Secrets: the stage's pod waits, and `Progressing` quotes the kubelet |
| `spec.objective.configMapRef` | `Stalled` with [BadObjective](../runbook.md#badobjective) until it is there |
| `spec.storage.existingClaim`, `pvc://` in `spec.model.uri` and `spec.prompts.supplied.uri` | `Stalled` with \
[MissingClaim](../runbook.md#missingclaim) until it is there |
"""

AFTER_STATUS: Final = """\
## Condition types

Every run has all five, from the operator's first look at it. Their reasons are constants, their messages say what to
do.

| type | True means | False means | reasons |
|---|---|---|---|
| `Ready` | the model is exported | not yet, or the run is invalid | [as Completed](../runbook.md#ready-and-completed) |
| `Progressing` | the run continues by itself | it is done, suspended, held or has failed | \
[Pending ... Failed](../runbook.md#progressing) |
| `Stalled` | somebody has to act | no action is needed (`OnTrack`) | [what to do for each](../runbook.md#stalled) |
| `Completed` | every stage is done | not yet | [Succeeded, NotFinished](../runbook.md#ready-and-completed) |
| `Degraded` | the latest evaluation found, with confidence, that the model loses against the base model or has lost \
capability | it has not | \
[Regression, NoRegression](../runbook.md#degraded) |

A run that is `Stalled` in phase `Pending` or `Running` is looked at again every minute. In phase `Failed` it goes on as
soon as its specification changes, from its last finished stage.
"""
