"""The training prompts: seeds, duplicates, decontamination, prompts of the user's own."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dynalign_contract.agents import AgentsSettings
from dynalign_contract.base import Model
from dynalign_contract.sources import FileUri

FacetValues = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1, max_length=256)
]

LanguageCode = Annotated[
    str,
    Field(pattern=r"^[a-z]{2}$", max_length=16, json_schema_extra={"x-form": "a two-letter language code such as en"}),
]


class SeedSettings(Model):
    """What the author's tasks are seeded with."""

    facets: dict[str, FacetValues] = Field(default={}, max_length=32)
    """Values that replace the objective's own for these facets, at most 256 each."""
    balance: float = Field(default=1.0, ge=0, le=9)
    """Points of the critic's score that a draft loses in the choice when its facets' values have had their even share
    already; half of that counts half. 0 chooses by score alone."""


class ClusterSettings(Model):
    """Limits how many prompts may mean about the same, whatever their words.

    A prompt, without what its seed dictated, is the mean of its tokens' vectors in the base model's input embedding,
    rare tokens counting more, less what the objective's own sentences have in common. It needs no forward pass.
    """

    similarity: float = Field(default=0.6, gt=0, le=1)
    """Cosine from which a prompt belongs to the cluster of an earlier one."""
    max_size: int = Field(default=1, ge=1, le=65_536)
    """Prompts that a cluster may have, over all iterations and the held-out set."""


class DedupSettings(Model):
    """Near-duplicate removal, against this iteration, all earlier ones and the held-out set."""

    threshold: float = Field(default=0.7, gt=0, le=1)
    """Estimated Jaccard similarity of word shingles from which two prompts count as duplicates."""
    shingle_words: int = Field(default=3, ge=1, le=10)
    """Words in a shingle."""
    permutations: int = Field(default=128, ge=16, le=1024)
    """Hash functions of MinHash: more estimate the similarity better, and take longer."""
    clusters: ClusterSettings | None = None
    """Near duplicates by meaning too. Default: by words only."""


class DecontaminationSettings(Model):
    """Keeps out of training what the evaluation asks: prompts that share a run of words with it.

    The tasks that ship with dynalign always belong to it, and for prompts that agents write the held-out ones too. What
    the seed has put at a prompt's beginning does not count against those.
    """

    words: int = Field(default=8, ge=0, le=64)
    """Length of a run that must not be shared, in words; 0 switches this off."""
    uri: FileUri | None = None
    """A file of further texts that must not leak into training, such as a benchmark's questions; written as
    `prompts.supplied.uri` is."""


class SuppliedPrompts(Model):
    """Prompts of the user's own."""

    uri: FileUri
    """A .jsonl, .json or .parquet file whose rows have `prompt` (a text or a list of turns), `messages` or
    `conversations`; a last answer is left off. `pvc://claim/path`, or a path: `/folder/file` in the pod
    (`dynalign run`: on this machine), `./file` beside the run file (`dynalign run` only)."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of an iteration's prompts that is drawn from here; the agents write the rest, and are not asked at all
    where it is 1 and the file has rows enough."""


class Refresh(StrEnum):
    """When the agents write anew."""

    EVERY_ITERATION = "EveryIteration"
    ONCE = "Once"


class PromptSettings(Model):
    """The training prompts."""

    per_iteration: int = Field(default=64, ge=1, le=65_536)
    """Prompts that each iteration trains on."""
    refresh: Refresh = Refresh.EVERY_ITERATION
    agents: AgentsSettings = AgentsSettings()
    seeds: SeedSettings = SeedSettings()
    dedup: DedupSettings = DedupSettings()
    decontamination: DecontaminationSettings = DecontaminationSettings()
    languages: tuple[LanguageCode, ...] = Field(default=(), max_length=32)
    """ISO 639-1 codes such as `en`: prompts that are recognised as another language are dropped. Default: any."""
    supplied: SuppliedPrompts | None = None
    """Prompts of the user's own. Default: the agents write all of them."""
    held_out: int = Field(default=64, ge=1, le=65_536)
    """Prompts written once, never trained on, for the evaluation."""
    min_characters: int = Field(default=20, ge=1, le=10_000)
    """Shortest prompt that is kept, in characters; of a chat its last turn counts."""
    max_tokens: int = Field(default=512, ge=8, le=131_072)
    """Maximum length of a prompt in tokens, chat template included; longer ones are dropped and counted."""
    min_yield: float = Field(default=0.5, gt=0, le=1)
    """The stage fails, quoting samples, when fewer than this share of the wanted prompts remain."""
