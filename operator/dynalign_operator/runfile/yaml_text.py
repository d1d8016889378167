"""Kubernetes objects as YAML for people: long texts readable, no anchors."""

from collections.abc import Iterable
from typing import Any

import yaml

from dynalign_contract.plain_text import has_hidden


def to_yaml(objects: Iterable[dict[str, Any]]) -> str:
    """Documents for kubectl; texts of several lines stay readable, hidden characters are escapes."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)

    def dump(*, unicode: bool) -> str:
        return str(
            yaml.dump_all(
                documents, Dumper=Dumper, sort_keys=False, allow_unicode=unicode, width=120, explicit_start=True
            )
        )

    documents = list(objects)
    text = dump(unicode=True)
    return dump(unicode=False) if has_hidden(text) else text
