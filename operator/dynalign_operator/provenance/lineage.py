"""The chain of a run's artifacts: each with the configuration that it was made from, which names its inputs. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import stage_folder
from dynalign_contract.manifest import Manifest
from dynalign_contract.result import ArtifactRef, combine_digests
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import AlignmentRunStatus, IterationStatus
from dynalign_operator.planning.observed import Step


@dataclass(frozen=True)
class Link:
    """A finished stage of a run."""

    step: Step
    artifact: ArtifactRef
    """What the status says that it left."""
    manifests: tuple[Manifest, ...]
    """Manifests of its shards, in order; empty where they are not at hand."""
    config: StageConfig | None
    """What it was made from; None where that is not known any more."""


@dataclass(frozen=True)
class Lineage:
    """All finished stages of a run whose artifacts its status names, in the order of their work."""

    links: tuple[Link, ...]

    @property
    def export(self) -> Link | None:
        """The exported model; None before the end of the run."""
        return next((link for link in self.links if link.step.stage is Stage.EXPORT), None)


def recorded_artifacts(status: AlignmentRunStatus) -> Iterator[tuple[Step, ArtifactRef]]:
    """Every artifact that a status names, with the step that made it."""
    if status.fetch is not None and status.fetch.artifact is not None:
        yield Step(Stage.FETCH), status.fetch.artifact
    for entry in status.iterations:
        for stage, artifact in _of_iteration(entry).items():
            yield Step(stage, entry.index), artifact
    if status.export is not None and status.export.artifact is not None:
        yield Step(Stage.EXPORT), status.export.artifact


def _of_iteration(entry: IterationStatus) -> Mapping[Stage, ArtifactRef]:
    """Old iterations keep the artifacts that later ones need, and no stages."""
    kept = {Stage.PROMPTS: entry.prompts, Stage.TRAIN: entry.policy, Stage.EVALUATE: entry.evaluation}
    found = {stage: artifact for stage, artifact in kept.items() if artifact is not None}
    found |= {stage.stage: stage.artifact for stage in entry.stages if stage.artifact is not None}
    return dict(sorted(found.items(), key=lambda item: list(Stage).index(item[0])))


def check_link(link: Link, digests: Mapping[str, str]) -> list[str]:
    """What is wrong with a link, as sentences. `digests`: folder -> digest of every recorded artifact."""
    where = link.artifact.path
    if not link.manifests:
        return [f"{where}: its manifest is missing"]
    problems = []
    found = combine_digests([manifest.digest for manifest in link.manifests])
    if found != link.artifact.digest:
        problems.append(f"{where}: its manifest has the digest {found}, and the run recorded {link.artifact.digest}")
    if link.artifact.path != stage_folder(link.step.stage, link.step.iteration):
        problems.append(f"{where}: the status names this folder for {link.step}, which writes to another one")
    if any((m.stage, m.iteration) != (link.step.stage, link.step.iteration) for m in link.manifests):
        problems.append(f"{where}: its manifest is that of another stage")
    if link.config is None:
        return problems
    if any(manifest.config_digest != link.config.digest for manifest in link.manifests):
        problems.append(f"{where}: it was not made from the configuration that is at hand")
    for name, artifact in link.config.inputs.items():
        if digests.get(artifact.path) != artifact.digest:
            problems.append(
                f"{where}: it was made from {artifact.path} ({name}) with the digest {artifact.digest}, and the run "
                f"recorded {digests.get(artifact.path, 'no such artifact')}"
            )
    return problems


def check_lineage(lineage: Lineage) -> list[str]:
    """What is wrong with the chain from the model to the export, as sentences; empty where it is whole."""
    digests = {link.artifact.path: link.artifact.digest for link in lineage.links}
    return [problem for link in lineage.links for problem in check_link(link, digests)]
