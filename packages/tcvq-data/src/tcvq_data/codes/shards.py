"""The Arrow files that hold grids, labels and positions in the dataset; pyarrow is imported on first use."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64, Integer, UInt32

from tcvq_data.codes.header import Header
from tcvq_data.codes.manifest import Shard
from tcvq_data.files import atomic_path, sha256_file
from tcvq_data.interface import ArtifactError

if TYPE_CHECKING:
    import pyarrow

SHARD_ROWS = 10_000


class Rows(NamedTuple):
    """Some rows, as they are stored.

    Attributes:
        codes: One flattened grid each.
        labels: Their classes, -1 where there is none.
        rows: Their positions in the dataset.
    """

    codes: Integer[np.ndarray, "N L"]
    labels: Int[np.ndarray, " N"]
    rows: UInt32[np.ndarray, " N"]


def write_shard(path: Path, rows: Rows, header: Header) -> Shard:
    """Write rows as one Arrow stream file, atomically; the same rows give the same bytes."""
    import pyarrow as pa

    schema = _schema(header)
    codes = pa.FixedSizeListArray.from_arrays(pa.array(rows.codes.reshape(-1)), type=schema.field("codes").type)
    table = pa.Table.from_arrays([codes, pa.array(rows.labels), pa.array(rows.rows)], schema=schema)
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as stream,
    ):
        stream.write_table(table)
    return Shard(file=path.name, rows=len(rows.labels), sha256=sha256_file(path))


def read_shards(
    folder: Path, shards: Sequence[Shard], header: Header
) -> tuple[Int32[np.ndarray, "N L"], Int64[np.ndarray, " N"]]:
    """Map all shards into memory, check them, and return grids and labels in the order of the dataset.

    Raises:
        ArtifactError: A shard is missing or damaged, holds something else, or the rows are not those of one dataset.
    """
    found = [_read_shard(folder / shard.file, shard, header) for shard in shards]
    n = sum(shard.rows for shard in shards)
    codes, labels = np.empty((n, header.length), np.int32), np.empty(n, np.int64)
    seen = np.zeros(n, bool)
    for part in found:
        if part.rows.max(initial=0) >= max(n, 1):
            break
        codes[part.rows], labels[part.rows], seen[part.rows] = part.codes, part.labels, True
    if not seen.all():
        raise ArtifactError(f"{folder}: its {n} rows are not the rows 0..{n - 1} of the dataset; encode again")
    return codes, labels


def _read_shard(path: Path, shard: Shard, header: Header) -> Rows:
    """Return views of the mapped rows of one shard."""
    import pyarrow as pa

    try:
        if sha256_file(path) != shard.sha256:
            raise ArtifactError(f"{path}: damaged, its content does not match its checksum; encode again")
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all()
        if not table.schema.equals(_schema(header)) or len(table) != shard.rows:
            raise ArtifactError(f"{path}: columns or rows are not those of its manifest; encode again")
        label, row = (_whole(table.column(name)).to_numpy() for name in ("label", "row"))
        codes = _whole(table.column("codes")).flatten().to_numpy().reshape(-1, header.length)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file, but its manifest names it; encode again") from None
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not an Arrow file, or unreadable ({error}); encode again") from None
    if problem := _problem(codes, label, header):
        raise ArtifactError(f"{path}: {problem}; encode again")
    return Rows(codes, label, row)


def _whole(column: "pyarrow.ChunkedArray") -> "pyarrow.Array":
    """Return a column in one piece; `combine_chunks` would copy even the one that it is."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _problem(codes: np.ndarray, labels: np.ndarray, header: Header) -> str:
    """Return which values are out of range, or an empty string."""
    for what, values, low, size in (("index", codes, 0, header.n_embed), ("label", labels, -1, len(header.classes))):
        if values.size and not low <= values.min() <= values.max() < size:
            return f"{what} {values.min()}..{values.max()} outside {low}..{size - 1}"
    return ""


def _schema(header: Header) -> "pyarrow.Schema":
    """Return the columns of a shard."""
    import pyarrow as pa

    index, label = (pa.from_numpy_dtype(kind) for kind in (header.index_type, header.label_type))
    return pa.schema([("codes", pa.list_(index, header.length)), ("label", label), ("row", pa.uint32())])
