"""The columns of a batch's results."""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from pneumonet.batch.rows import PROBABILITY_COLUMNS, Row

_PROBABILITIES: Final = [pa.field(column, pa.float64()) for column in PROBABILITY_COLUMNS.values()]
SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("label", pa.string()),
        *_PROBABILITIES,
        pa.field("confidence", pa.float64()),
        pa.field("prediction_set", pa.list_(pa.string())),
        pa.field("risk", pa.string()),
        pa.field("members", pa.list_(pa.struct([pa.field("name", pa.string()), *_PROBABILITIES]))),
        pa.field("admitted", pa.bool_()),
        pa.field("admission_reasons", pa.list_(pa.string())),
        pa.field("warnings", pa.list_(pa.string())),
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("model_revision", pa.string(), nullable=False),
        pa.field("engine", pa.string()),
    ]
)


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table of `SCHEMA`."""
    return pa.Table.from_pylist(list(rows), SCHEMA)
