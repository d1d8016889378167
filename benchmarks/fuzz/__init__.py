"""Inputs that nobody would write, by the thousand: run files, states of a cluster, damaged artifacts."""
