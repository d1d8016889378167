"""A namespace of a test cluster, as kubectl reaches it."""

from dataclasses import dataclass

from lab.cluster import Cluster


@dataclass(frozen=True)
class ClusterPlace:
    """A namespace."""

    cluster: Cluster
    namespace: str

    def kubectl(self, *arguments: str, manifest: object = None) -> str:
        """Run kubectl in the namespace; raises LabError with what it said."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, manifest=manifest).strip()
