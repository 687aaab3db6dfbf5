"""Where the codes of a grid lie: coordinates of every position, and rotations of queries and keys by them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

ROTARY_BASE = 100.0  # for grids of few rows: Heo et al. 2024, "Rotary Position Embedding for Vision Transformer"


def coordinates(grid: tuple[int, int], n_code_steps: int = 1) -> Int[Tensor, "L 3"]:
    """Return step, row and column of every position of a grid in which the steps lie one below the other."""
    axes = (n_code_steps, grid[0] // n_code_steps, grid[1])
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*map(torch.arange, axes), indexing="ij")], dim=1)


class Rotary(nn.Module):
    """Turns pairs of channels by angles that grow with row and column, so that q·k depends on the distance only.

    Pair i of an axis is turned by ``position · base^(-i / pairs)`` (Su et al. 2021, eq. 34). The first half of the
    pairs counts rows, through all steps, and the second half columns. The turned numbers are no longer integers.

    Args:
        grid: Height and width of the grid.
        d: Channels of a head, a multiple of 4.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: tuple[int, int], d: int) -> None:
        super().__init__()
        rows, columns = coordinates(grid).double()[:, 1:].unbind(1)
        frequencies = ROTARY_BASE ** (-torch.arange(d // 4, dtype=torch.float64) / max(d // 4, 1))
        angles = torch.cat([rows[:, None] * frequencies, columns[:, None] * frequencies], dim=1)  # (L, d/2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Float[Tensor, "T B heads P d"], first: int) -> Float[Tensor, "T B heads P d"]:
        """Turn the queries or keys of the positions from ``first`` on."""
        cos, sin = (table[first : first + x.shape[-2]].to(x.dtype) for table in (self.cos, self.sin))
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
