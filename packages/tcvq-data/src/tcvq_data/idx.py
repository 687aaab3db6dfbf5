"""The idx format of MNIST and its descendants: a big-endian header, then unsigned bytes."""

import gzip
import math
import zlib

import numpy as np
from numpy.typing import NDArray

from tcvq_data.interface import ArtifactError

_UINT8 = 0x08


def parse_idx(payload: bytes, *, name: str) -> NDArray[np.uint8]:
    """Return the array in an uncompressed idx file of unsigned bytes.

    The header is ``0 0 type ndim`` (one byte each) and ``ndim`` sizes as big-endian u4; type 0x08 is unsigned byte.

    Args:
        payload: The whole file.
        name: What to call the file in an error.

    Returns:
        A writable uint8 array of ``ndim`` axes.

    Raises:
        ArtifactError: The magic number, the header or the size is wrong.
    """
    if len(payload) < 4 or payload[:3] != bytes([0, 0, _UINT8]) or payload[3] == 0:
        raise ArtifactError(f"{name}: not an idx file of bytes: it begins with 0x{payload[:4].hex()}, not 0x000008..")
    start = 4 + 4 * payload[3]
    if len(payload) < start:
        raise ArtifactError(f"{name}: truncated idx header: {len(payload)} of {start} bytes")
    shape = tuple(int(n) for n in np.frombuffer(payload[4:start], ">u4"))
    if len(payload) != start + math.prod(shape):
        raise ArtifactError(f"{name}: idx header promises shape {shape}, but {len(payload) - start} bytes follow")
    return np.frombuffer(payload, np.uint8, offset=start).reshape(shape).copy()


def gunzip(data: bytes, *, name: str) -> bytes:
    """Return the payload of a gzip file.

    Raises:
        ArtifactError: The data are not gzip, truncated or damaged.
    """
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"{name}: damaged gzip file ({error}); reinstall the package or copy the file") from None
