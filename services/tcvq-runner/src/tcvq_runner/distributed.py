"""What a process needs to know of its fellows; nothing here communicates unless there are several."""

import sys


def process_rank() -> tuple[int, int]:
    """Return the number of this process and how many there are, 0 and 1 without a process group."""
    if "torch" not in sys.modules:  # then nobody can have opened a group, and asking would cost seconds
        return 0, 1
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
