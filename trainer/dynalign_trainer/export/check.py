"""Whether an export is the base model in everything but the values of its weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import StageError
from dynalign_trainer.models.files import read_tensor_files
from dynalign_trainer.models.folder import load_tokenizer, read_json

_PROBES: Final = (
    "How could a village share its tools?",
    "Ünïcödé, 漢字 और 😀\n\tdef f(x): return x**2  # 3.14",
)
_SPECIAL: Final = ("bos", "eos", "pad", "unk")


class ExportError(StageError):
    """What was written is not what was to be exported; retriable, because writing it again may succeed."""

    reason = "ExportMismatch"


def check_export(base: Path, target: Path) -> None:
    """Compare configuration, tokenizer and the sizes of all tensors of two model folders.

    Raises ExportError naming what differs.
    """
    for what, before, after in _facts(base, target):
        if before != after:
            raise ExportError(
                f"the export in {target} differs from the base model in {what}: {_short(after)} instead of "
                f"{_short(before)}. Nothing but the values of its weights may. The next attempt writes it again; if "
                "that does not help, report this with the names of the files in both folders."
            )


def _facts(base: Path, target: Path) -> Iterator[tuple[str, Any, Any]]:
    yield "config.json", read_json(base / "config.json"), read_json(target / "config.json")
    before, after = _shapes(base), _shapes(target)
    yield "the names of its tensors", sorted(before), sorted(after)
    for name, shape in before.items():
        yield f"the shape of {name}", shape, after[name]
    yield from _compare_tokenizers(load_tokenizer(base), load_tokenizer(target))


def _compare_tokenizers(before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    yield "the number of its tokens", len(before), len(after)
    yield "its vocabulary", before.get_vocab(), after.get_vocab()
    for name in _SPECIAL:
        field = f"{name}_token_id"
        yield f"its {field}", getattr(before, field), getattr(after, field)
    added = [str(token) for token in before.get_added_vocab()]
    yield "its added tokens", before.get_added_vocab(), after.get_added_vocab()
    for text in (*_PROBES, *added, *(f"a{token}b" for token in added)):
        yield f"the token ids of {text!r}", before.encode(text), after.encode(text)
    yield "its chat template", before.chat_template, after.chat_template


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    files = read_tensor_files(folder)
    for path in sorted(set(files.values())):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
