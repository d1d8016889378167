"""What ends a release."""


class ReleaseError(Exception):
    """Something that a release needs is missing; the message says what to do."""
