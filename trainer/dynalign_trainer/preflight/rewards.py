"""The rewards beside the judge: what can be known of them before any work."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import Rewards, RewardSettings, RewardType
from dynalign_trainer.preflight.findings import Findings
from dynalign_trainer.verifiers.batches import Origin
from dynalign_trainer.verifiers.opening import Surroundings, find_function, open_server
from dynalign_trainer.verifiers.verifier import build_verifier


def find_in_rewards(found: Findings, rewards: Rewards, look: Callable[[], None], *, in_place: bool) -> None:
    """Collect what is wrong with the rewards of a run.

    `in_place` says that the stages run here: functions must be installed, servers must answer. Elsewhere, on the
    machine of the person who wrote the run file, a function that is missing is a note, and no server is asked.
    """
    for check in _checks(found, rewards, look, in_place=in_place):
        found.attempt(check)


def _checks(
    found: Findings, rewards: Rewards, look: Callable[[], None], *, in_place: bool
) -> Iterator[Callable[[], object]]:
    around = Surroundings(Origin("", 0), os.environ, Path(os.devnull), look)
    for index, reward in enumerate(rewards):
        if reward.type is RewardType.PYTHON:
            yield partial(find_function, index, reward) if in_place else partial(_note_missing, found, rewards, index)
        elif reward.type is not RewardType.HTTP:
            yield partial(build_verifier, reward, f"rewards[{index}]")
        elif in_place:
            yield partial(_probe, index, reward, around)


def _probe(index: int, reward: RewardSettings, around: Surroundings) -> None:
    open_server(index, reward, around).probe(around.look)


def _note_missing(found: Findings, rewards: Rewards, index: int) -> None:
    try:
        find_function(index, rewards[index])
    except BadConfigError as error:
        found.notes.append(f"On this machine, and perhaps not in the image of the stages: {error}")
