"""The operator: turns one AlignmentRun into Jobs, on Kubernetes or as subprocesses of a laptop."""
