"""The verifiers of a run, opened: built-in ones, servers with their keys, functions of the image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import RewardSettings, RewardType, reward_endpoint
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.verifiers.batches import BatchedReward, BatchScorer, Origin
from dynalign_trainer.verifiers.entry_points import InstalledReward, find_installed_reward
from dynalign_trainer.verifiers.reward_server import RewardServer, open_reward_server
from dynalign_trainer.verifiers.verifier import Verifier, build_verifier

REWARDS_JOURNAL: Final = ".rewards.jsonl"
"""Answers of servers of rewards, beside the stage's work while it lasts."""


@dataclass(frozen=True)
class Surroundings:
    """What rewards from elsewhere need of the stage that asks them."""

    origin: Origin
    environment: Mapping[str, str]
    """Holds the servers' keys."""
    journal: Path
    look: Callable[[], None]
    """Called now and then while answers are awaited; may raise to stop."""


def surroundings_of(context: StageContext[Any], environment: Mapping[str, str]) -> Surroundings:
    """The surroundings in a stage of an iteration."""
    origin = Origin(context.config.run, context.iteration)
    return Surroundings(origin, environment, context.folder / REWARDS_JOURNAL, context.check_stop)


@dataclass(frozen=True)
class OpenVerifiers:
    """Verifiers that are ready, and which packages take part."""

    verifiers: tuple[Verifier, ...]
    producers: Mapping[str, str]
    """Distribution -> version, of rewards that packages of the image bring."""
    journal: Path

    def close(self) -> None:
        """Remove the answers of servers that were kept for another attempt."""
        self.journal.unlink(missing_ok=True)


def open_verifiers(rewards: Sequence[RewardSettings], around: Surroundings) -> OpenVerifiers:
    """The verifiers of a run, in its order.

    Raises BadConfigError naming the field of what cannot be used: a pattern, a key, an entry point.
    """
    verifiers: list[Verifier] = []
    producers: dict[str, str] = {}
    for index, reward in enumerate(rewards):
        if reward.type is RewardType.HTTP:
            server = open_server(index, reward, around)
            verifiers.append(_batched(reward, around, partial(server.score, look=around.look)))
        elif reward.type is RewardType.PYTHON:
            installed = find_function(index, reward)
            producers[installed.distribution] = installed.version
            verifiers.append(_batched(reward, around, partial(installed.score, look=around.look)))
        else:
            verifiers.append(build_verifier(reward, f"rewards[{index}]"))
    return OpenVerifiers(tuple(verifiers), producers, around.journal)


def open_server(index: int, reward: RewardSettings, around: Surroundings) -> RewardServer:
    """The server of the reward at `index`. Raises BadConfigError as `open_reward_server` does."""
    if reward.endpoint is None:
        raise BadConfigError(f"rewards[{index}].endpoint is missing; write it, or choose another type.")
    return open_reward_server(reward_endpoint(index, reward), reward.endpoint, around.environment, around.journal)


def find_function(index: int, reward: RewardSettings) -> InstalledReward:
    """The function of the reward at `index`. Raises BadConfigError as `find_installed_reward` does."""
    if reward.entry_point is None:
        raise BadConfigError(f"rewards[{index}].entryPoint is missing; write it, or choose another type.")
    return find_installed_reward(reward.entry_point, f"rewards[{index}].entryPoint")


def _batched(reward: RewardSettings, around: Surroundings, scorer: BatchScorer) -> Verifier:
    batched = BatchedReward(reward, around.origin, scorer)
    return Verifier(reward.name, reward.weight, batched, batched.failures)
