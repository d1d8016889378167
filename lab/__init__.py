"""What tests and benchmarks share: clusters, API servers, the test-bed's model and runs of it on this machine."""
