"""What follows a step is counted without a look at every iteration."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.sequence import count_following, required_stages
from support.builders import a_run


def listed(spec: AlignmentRunSpec, current: Step) -> Counter[Stage]:
    """The same by listing every step of the run."""
    iterations = range(max(spec.iterations, (current.iteration or 0) + 1))
    steps = [Step(Stage.FETCH), *(Step(stage, i) for i in iterations for stage in required_stages(spec, i))]
    if current.stage is Stage.ROLLOUT:  # judge is the last of its stages
        current = Step(Stage.JUDGE, current.iteration)
    return Counter(step.stage for step in steps[steps.index(current) + 1 :]) if current in steps else Counter()


@given(
    iterations=st.integers(1, 12),
    at=st.integers(0, 12),
    stage=st.sampled_from(list(Stage)),
    refresh=st.sampled_from(["Once", "EveryIteration"]),
    every=st.integers(1, 5),
)
def test_what_follows_is_what_a_list_of_all_steps_says(
    iterations: int, at: int, stage: Stage, refresh: str, every: int
) -> None:
    run = a_run().with_iterations(iterations).with_spec(prompts={"refresh": refresh}, evaluation={"every": every})
    is_outside = stage in (Stage.FETCH, Stage.EXPORT)
    current = Step(stage) if is_outside else Step(stage, at)
    assert count_following(run.build().spec, current) == listed(run.build().spec, current)
