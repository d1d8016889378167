"""Claims of the user's own: they must be there, and be mountable by all who mount them at once."""

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.api.status import Condition, ConditionType, Phase
from dynalign_operator.manifests.volume import claims_of
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import ClaimObservation, Observed
from dynalign_operator.planning.plan import Plan
from dynalign_operator.planning.planner import plan
from support.builders import T0, RunBuilder, a_run, minutes
from support.simulation import SETTINGS, Simulation

ONCE, ONCE_POD, MANY = "ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"
ON_CLAIM = a_run().with_spec(storage={"existingClaim": "mine"})


def planned(run: RunBuilder, claims: dict[str, tuple[str, ...]] | None) -> Plan:
    observed = None if claims is None else {name: ClaimObservation(frozenset(m)) for name, m in claims.items()}
    return plan(Observed(run.build(), claims=observed), T0, SETTINGS)


def stalled(decided: Plan) -> Condition:
    return next(c for c in decided.status.conditions if c.type is ConditionType.STALLED)


@pytest.mark.parametrize(
    ("field", "run"),
    [
        ("spec.storage.existingClaim", ON_CLAIM),
        ("spec.model.uri", a_run().with_spec(model={"uri": "pvc://mine/model"})),
        ("spec.prompts.supplied.uri", a_run().with_spec(prompts={"supplied": {"uri": "pvc://mine/p.jsonl"}})),
    ],
)
def test_a_claim_that_is_missing_holds_the_run_before_anything_is_created(field: str, run: RunBuilder) -> None:
    decided = planned(run, {})
    assert decided.create == ()
    assert decided.status.phase is Phase.PENDING
    said = stalled(decided)
    assert (said.status, said.reason) == ("True", reasons.MISSING_CLAIM)
    assert said.message.startswith(f"{field} names the PersistentVolumeClaim mine, which does not exist in namespace ")
    assert decided.wake_at == T0 + minutes(1)
    assert len(planned(run, {"mine": (MANY,)}).create) == 1


@pytest.mark.parametrize("modes", [(ONCE,), (ONCE_POD,), (ONCE, ONCE_POD), ()])
@pytest.mark.parametrize(
    ("field", "spec"),
    [("spec.training.nodes", {"training": {"nodes": 2}}), ("spec.generation.shards", {"generation": {"shards": 2}})],
)
def test_a_claim_for_one_node_is_nothing_for_several(
    modes: tuple[str, ...], field: str, spec: dict[str, object]
) -> None:
    decided = planned(ON_CLAIM.with_spec(**spec), {"mine": modes})
    assert decided.create == ()
    said = stalled(decided)
    assert (said.status, said.reason) == ("True", reasons.VOLUME_NOT_SHARED)
    assert f"{field} is 2" in said.message
    assert "Set spec.training.nodes and spec.generation.shards to 1" in said.message
    assert "with a claim that offers ReadWriteMany" in said.message
    assert len(planned(ON_CLAIM.with_spec(**spec), {"mine": (ONCE, MANY)}).create) == 1


@pytest.mark.parametrize("mode", [ONCE, ONCE_POD, MANY])
def test_one_pod_at_a_time_mounts_anything(mode: str) -> None:
    assert len(planned(ON_CLAIM, {"mine": (mode,)}).create) == 1


def test_where_nobody_looks_at_claims_they_are_taken_for_good() -> None:
    assert len(planned(ON_CLAIM, None).create) == 1


def test_later_stages_ask_only_for_the_claims_that_they_mount() -> None:
    run = ON_CLAIM.with_spec(
        model={"uri": "pvc://model/m"}, prompts={"supplied": {"uri": "pvc://data/p.jsonl"}}
    ).build()
    assert sorted(claims_of(run)) == sorted(claims_of(run, *Stage)) == ["data", "mine", "model"]
    assert sorted(claims_of(run, Stage.PROMPTS)) == ["data", "mine"]
    simulation = Simulation(run).until(Stage.PROMPTS, 0)
    simulation.lose("r-i000-prompts-a1")
    jobs = tuple(simulation.jobs.values())
    claims = {name: ClaimObservation(frozenset({MANY})) for name in ("mine", "data")}
    again = plan(Observed(simulation.run, jobs, claims=claims), simulation.now, SETTINGS)
    assert [bundle.name for bundle in again.create] == ["r-i000-prompts-a1"]
    refused = plan(Observed(simulation.run, jobs, claims={}), simulation.now, SETTINGS)
    assert stalled(refused).reason == reasons.MISSING_CLAIM


def test_fetch_sees_the_prompts_that_it_checks() -> None:
    run = a_run().with_spec(
        model={"uri": "pvc://model/m"},
        prompts={"supplied": {"uri": "pvc://data/p.jsonl"}, "decontamination": {"uri": "pvc://texts/b.jsonl"}},
    )
    assert sorted(claims_of(run.build(), Stage.FETCH)) == ["data", "model", "texts"]
    assert set(claims_of(run.build(), Stage.PROMPTS)) <= set(claims_of(run.build(), Stage.FETCH))
