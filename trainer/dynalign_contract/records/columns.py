"""Types of columns: what a row holds for the type checker, and what its Parquet column holds."""

from typing import Annotated, Any, NotRequired, TypedDict, get_args, get_origin, get_type_hints

import pyarrow as pa

from dynalign_contract.supplied.turns import Message

Text = Annotated[str, pa.string()]
Flag = Annotated[bool, pa.bool_()]
Int32 = Annotated[int, pa.int32()]
Int64 = Annotated[int, pa.int64()]
Float32 = Annotated[float, pa.float32()]
Float64 = Annotated[float, pa.float64()]
Ids = Annotated[list[int], pa.list_(pa.int32())]
"""Token ids."""
Logprobs = Annotated[list[float], pa.list_(pa.float32())]
Texts = Annotated[dict[str, str], pa.map_(pa.string(), pa.string())]
Numbers = Annotated[dict[str, float], pa.map_(pa.string(), pa.float32())]
Messages = Annotated[list[Message], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))]


class ScoreRow(TypedDict):
    """A judge's score of one aspect."""

    aspect: Text
    score: Float32
    """Expected digit, 0 to 9; NaN if the judge gave none."""
    mass: Float32
    """Probability that the next token was a digit at all, 0 to 1."""


def columns_of(row: type[Any]) -> list[tuple[str, Any]]:
    """Name and Parquet type of each column of a `TypedDict` whose annotations are types of this module."""
    hints: dict[str, Any] = get_type_hints(row, include_extras=True)
    plain = {n: get_args(hint)[0] if get_origin(hint) is NotRequired else hint for n, hint in hints.items()}
    return [(name, hint.__metadata__[0]) for name, hint in plain.items()]


Scores = Annotated[list[ScoreRow], pa.list_(pa.struct(columns_of(ScoreRow)))]
"""One score an aspect, in the objective's order."""
