"""The life of a stage, the same for all: what it is given, what it reports, and what its end means."""
