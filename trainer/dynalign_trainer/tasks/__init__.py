"""Capability tasks of lm-evaluation-harness: those that ship with dynalign, and how any of them is loaded."""
