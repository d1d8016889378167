"""What must hold in a cluster, where pods see no folder of the user's machine."""

from typing import Final

from dynalign_operator.api.rules.rule import ClusterRule


def _is_no_relative_path(at: str, remedy: str) -> ClusterRule:
    return ClusterRule(
        at=at,
        field="uri",
        cel="!has(self.uri) || !self.uri.startsWith('./')",
        message="starts at the run file's folder, which no pod can see; put it on a PersistentVolumeClaim and write "
        f"pvc://claim/path{remedy}",
    )


PATH_RULES: Final = (
    _is_no_relative_path("spec.model", ", or write hf://org/name"),
    _is_no_relative_path("spec.prompts.supplied", ""),
    _is_no_relative_path("spec.prompts.decontamination", ""),
)
