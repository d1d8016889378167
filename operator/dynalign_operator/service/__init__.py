"""The operator process: watches, workers, probes and metrics of one installation."""
