"""References to Kubernetes objects in the run's namespace. A stage sees what they name, never the objects."""

from typing import Annotated

from pydantic import Field

from dynalign_contract.base import Model

ObjectName = Annotated[str, Field(min_length=1, max_length=253)]


class SecretKeyRef(Model):
    """A key of a Secret in the run's namespace."""

    name: ObjectName
    """Of the Secret."""
    key: ObjectName
    """Under which the Secret holds the token."""
