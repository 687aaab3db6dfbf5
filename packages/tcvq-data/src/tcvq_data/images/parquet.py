"""Parquet shards of encoded images, read at random through a memory-mapped Arrow copy that is made once."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcvq_data.files import atomic_path
from tcvq_data.images.encoded import EncodedImages
from tcvq_data.interface import ArtifactError, DataOptions

if TYPE_CHECKING:
    import pyarrow


class ParquetImages(EncodedImages):
    """Samples that are rows of an Arrow file written by `arrow_copy`; each process maps it at its first access."""

    def __init__(self, path: Path, rows: Sequence[int], options: DataOptions, *, size: int) -> None:
        """Take some rows of the file, up to the limit of the options."""
        self.path, self.rows = path, list(rows[: options.limit])
        self._table: Any = None
        super().__init__(len(self.rows), options, size=size)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped file behind, which would be pickled by value."""
        return {**self.__dict__, "_table": None}

    def encoded(self, index: int) -> tuple[bytes, str]:
        """Return the bytes of one image, and the row it is in."""
        if self._table is None:
            self._table = read_arrow(self.path)
        row = self.rows[index]
        return self._table.column("bytes")[row].as_py() or b"", f"{self.path} row {row}"


def read_arrow(path: Path) -> "pyarrow.Table":
    """Map an Arrow file; nothing is read before it is used.

    Raises:
        pyarrow.ArrowInvalid: The file is damaged.
        OSError: It is missing.
    """
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def arrow_copy(shards: Sequence[Path], cache: Path, *, name: str) -> tuple[Path, list[str | None]]:
    """Copy the images of parquet shards to one Arrow file, unless there is one of shards as they are now.

    Parquet is compressed in groups of rows, of which each access would unpack a whole one; Arrow is mapped as it is.

    Args:
        shards: The files, in their order.
        cache: Folder of the copy; made if missing.
        name: Of the dataset.

    Returns:
        The copy with columns ``bytes`` and ``path``, and the names that the shards give to their images.

    Raises:
        ArtifactError: A shard is damaged, or has no column of images.
        OSError: The copy cannot be written.
    """
    import pyarrow as pa

    about = [(shard.name, shard.stat().st_size, shard.stat().st_mtime_ns) for shard in shards]
    target = cache / f"{name}-{hashlib.sha256(repr(about).encode()).hexdigest()[:12]}.arrow"
    try:
        return target, read_arrow(target).column("path").to_pylist()
    except (OSError, pa.ArrowInvalid):
        cache.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("bytes", pa.binary()), ("path", pa.string())])
    with atomic_path(target) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as to:
        for shard in shards:
            for batch in _batches(shard, name):
                to.write_batch(batch.cast(schema))
    for stale in cache.glob(f"{name}-*.arrow"):
        if stale != target:
            stale.unlink(missing_ok=True)
    return target, read_arrow(target).column("path").to_pylist()


def _batches(shard: Path, name: str) -> Iterator["pyarrow.RecordBatch"]:
    """Yield columns ``bytes`` and ``path`` of a shard, 256 rows at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(shard) as file:
            column = _image_column(file.schema_arrow, shard, name)
            for batch in file.iter_batches(256, columns=[column]):
                images = batch.column(0)
                if pa.types.is_struct(images.type):
                    has_path = images.type.get_field_index("path") >= 0
                    paths = pc.struct_field(images, "path") if has_path else pa.nulls(len(images), pa.string())
                    images = pc.struct_field(images, "bytes")
                else:
                    paths = pa.nulls(len(images), pa.string())
                yield pa.RecordBatch.from_arrays([images, paths], ["bytes", "path"])
    except (pa.ArrowException, OSError) as error:
        text = str(error).splitlines()[0]
        raise ArtifactError(f"{name}: {shard} is not a readable parquet file ({text}); fetch it again") from None


def _image_column(schema: "pyarrow.Schema", shard: Path, name: str) -> str:
    """Return the name of the column that holds encoded images: one called image, else the first that could."""
    import pyarrow as pa

    def holds_bytes(kind: "pyarrow.DataType") -> bool:
        if pa.types.is_struct(kind):
            position = kind.get_field_index("bytes")
            return position >= 0 and holds_bytes(kind.field(position).type)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    found = [field.name for field in schema if holds_bytes(field.type)]
    if not found:
        raise ArtifactError(
            f"{name}: {shard} has no column of encoded images (its columns: {', '.join(schema.names)}); save it with "
            "the images embedded, paths alone do not travel"
        )
    return "image" if "image" in found else found[0]
