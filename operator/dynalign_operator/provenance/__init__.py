"""Where a model comes from: the chain of artifacts of a run, its bundle, its attestation, and their verification."""
