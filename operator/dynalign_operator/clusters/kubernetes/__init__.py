"""Runs as AlignmentRun objects and stages as Jobs: the only room that calls the API server."""
