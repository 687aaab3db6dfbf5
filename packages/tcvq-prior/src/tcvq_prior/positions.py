"""Where the codes of a grid lie: coordinates of every position, and what attention makes of them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

REACH = 1.5  # cells: where the weights of the first head have fallen to 1 / e at first; of each next head, twice as far
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


class DistanceWeights(nn.Module):
    """A learned factor per head for the offset in steps, rows and columns from an earlier token to a later one.

    Instead of a softmax, which a spiking prior does not have, they let a head look at a part of the grid; for fixed
    exponential factors along a sequence see Sun et al. 2023, "Retentive Network", eq. 5. Head i begins with
    exp(-distance / (`REACH` · 2^i)), scaled up by √(offsets / Σ weights) for what is lost.

    Args:
        grid: Height and width of the grid in which the steps lie one below the other.
        n_head: Attention heads.
        n_code_steps: Steps.
    """

    coordinates: Tensor

    def __init__(self, grid: tuple[int, int], n_head: int, n_code_steps: int = 1) -> None:
        super().__init__()
        height, width = grid[0] // n_code_steps, grid[1]
        above = height - 1 if n_code_steps > 1 else 0  # rows below the later token, which only earlier steps have
        self.lowest = (0, -above, 1 - width)
        self.register_buffer("coordinates", coordinates(grid, n_code_steps), persistent=False)
        axes = [torch.arange(n_code_steps), torch.arange(-above, height), torch.arange(1 - width, width)]
        distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).double().square().sum(0).sqrt()
        heads = torch.stack([torch.exp(-distance / (REACH * 2**i)) for i in range(n_head)])
        scale = (distance.numel() / heads.sum(dim=(1, 2, 3), keepdim=True)).sqrt()
        self.weight = nn.Parameter((heads * scale).float())

    def forward(self, first: int, last: int) -> Float[Tensor, "heads P n"]:
        """Return the factors of all ``last`` tokens for those from ``first`` on; 0 for tokens that come later."""
        offsets = self.coordinates[first:last, None] - self.coordinates[:last]
        known = torch.ones(offsets.shape[:2], dtype=torch.bool, device=offsets.device).tril(first)
        offsets = torch.where(known[..., None], offsets - offsets.new_tensor(self.lowest), 0)
        step, row, column = offsets.unbind(2)
        return self.weight[:, step, row, column] * known
