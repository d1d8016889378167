"""Errors of the Python interface; those of run files and of clusters are the operator's."""


class RunFailedError(Exception):
    """A run ended without success, or stands still until somebody acts; the message says why and what to do."""
