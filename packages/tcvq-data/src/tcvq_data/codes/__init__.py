"""The codes artifact ``tcvq.codes/2``: Arrow shards with the grids of code indices that stage 1 hands to stage 2.

A folder of them holds ``shard-<rank>-<number>.arrow``, files of at most 10,000 rows in the Arrow stream format with the
columns ``codes``, ``label`` and ``row`` (the position in the dataset); ``state.json`` and ``dataset_info.json``, with
which `datasets.load_from_disk` reads the folder as it is; and ``manifest.json``, which is written last.
"""

from tcvq_data.codes.finish import finish_codes
from tcvq_data.codes.header import SCHEMA
from tcvq_data.codes.reader import read_codes
from tcvq_data.codes.shards import SHARD_ROWS
from tcvq_data.codes.writer import CodesWriter, write_codes

__all__ = ["SCHEMA", "SHARD_ROWS", "CodesWriter", "finish_codes", "read_codes", "write_codes"]
