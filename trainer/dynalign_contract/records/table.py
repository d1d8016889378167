"""Tables of typed rows: a `TypedDict` whose columns say their Parquet types, and whole files of them."""

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import atomic_path, open_plain
from dynalign_contract.layout import PART_PREFIX
from dynalign_contract.manifest import listed_names
from dynalign_contract.records.columns import columns_of

R = TypeVar("R")


class Table(Generic[R]):
    """A kind of Parquet file whose rows are of the `TypedDict` R: its annotations hold the types of the columns.

    A file has a column that R does not require if all of its rows have it.
    """

    def __init__(self, row: type[R]) -> None:
        self.schema = pa.schema(columns_of(row))
        self._optional: frozenset[str] = getattr(row, "__optional_keys__", frozenset())

    @property
    def names(self) -> list[str]:
        """Names of the columns that every file has, in order."""
        return self.names_with(())

    def names_with(self, found: Collection[str]) -> list[str]:
        """Names of the columns that every file has and of those among `found`, in order."""
        return [name for name in self.schema.names if name not in self._optional or name in found]

    def schema_of(self, names: Iterable[str]) -> Any:
        """The Arrow schema of these columns."""
        return pa.schema([self.schema.field(name) for name in names])


def write_rows(path: Path, rows: Sequence[R], table: Table[R]) -> None:
    """Write one Parquet file atomically. Raises KeyError if a row lacks a column."""
    plain: Sequence[Any] = rows
    names = table.names_with(set.intersection(*(set(row) for row in plain)) if plain else ())
    arrays = {name: pa.array([row[name] for row in plain], table.schema.field(name).type) for name in names}
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(arrays, schema=table.schema_of(names)), temporary, compression="zstd")


def read_rows(path: Path, table: Table[R]) -> list[R]:
    """Read one Parquet file; maps come back as dictionaries.

    On this thread alone: a thread of Arrow's that gives a Python file back while the interpreter ends aborts the
    process (apache/arrow issue 34314).

    Raises CorruptArtifactError when it is no Parquet file or lacks columns.
    """
    remedy = f"Remove the folder {path.parent} to have its stage run again."
    try:
        with open_plain(path) as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            present = parquet.schema_arrow.names
            lacking = [name for name in table.names if name not in present]
            if lacking:
                raise CorruptArtifactError(
                    f"{path} lacks the columns {', '.join(lacking)}: another version of dynalign wrote it, or it is a "
                    f"file of another kind. {remedy}"
                )
            names = table.names_with(present)
            found = parquet.read(columns=names, use_threads=False)
        columns = [_values(column) for column in found.cast(table.schema_of(names)).columns]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CorruptArtifactError(
            f"{path} cannot be read as Parquet with the columns {', '.join(table.names)} ({error}). {remedy}"
        ) from error
    rows: list[Any] = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return rows


def _values(column: Any) -> list[Any]:
    """A column as Python values.

    Arrow makes an object of its own for each element of a list before Python's number; NumPy makes the numbers alone,
    at a twentieth of the time.
    """
    if column.null_count or not (pa.types.is_list(column.type) and pa.types.is_primitive(column.type.value_type)):
        return column.to_pylist(maps_as_pydicts="strict")  # type: ignore[no-any-return] # pyarrow has no types
    return [value for chunk in column.chunks for value in _lists(chunk)]


def _lists(chunk: Any) -> list[Any]:
    """The lists of numbers of a part of a column that has no nulls; `chunk` may begin within a larger array."""
    elements = chunk.flatten()
    if elements.null_count:
        return chunk.to_pylist()  # type: ignore[no-any-return]
    numbers = elements.to_numpy(zero_copy_only=False).tolist()
    ends = (chunk.offsets.to_numpy() - chunk.offsets[0].as_py()).tolist()
    return [numbers[start:end] for start, end in pairwise(ends)]


def read_parts(folders: Iterable[Path], table: Table[R]) -> list[R]:
    """Rows of every `part-*.parquet` that the manifests of these folders list, in the order of folders and names.

    Raises CorruptArtifactError when a folder has no manifest, or a file cannot be read.
    """
    return [
        row
        for folder in folders
        for name in listed_names(folder, PART_PREFIX)
        for row in read_rows(folder / name, table)
    ]
