"""The export stage: the final policy as a model folder of its own."""
