"""The contenders of `make bench-peer`: `dynalign run`, TRL alone in one process, and three plain scripts."""
