"""From known codes and a class to the input of every position of the grid."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tcvq_prior.config import PriorConfig
from tcvq_prior.positions import coordinates


class CodeTable(nn.Module):
    """One vector per code: a learned table, plus a linear map of fixed code features where they are given.

    Args:
        config: Sizes.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(config.n_embed, config.width) * 0.02)
        self.from_features = nn.Linear(config.code_features, config.width, bias=False) if config.code_features else None

    def forward(self, features: Float[Tensor, "K F"]) -> Float[Tensor, "K C"]:
        """Return the table."""
        return self.weight if self.from_features is None else self.weight + self.from_features(features)


class CodeEmbedding(nn.Module):
    """Input of position i: previous code (or class, or start), position, and optionally class and neighbours.

    Args:
        config: Sizes and options.
    """

    coordinates: Tensor
    neighbours: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.start = nn.Embedding(max(config.n_classes, 1) + config.null_class, config.width)
        sites = (1, *config.site_grid)
        if config.positions == "learned":
            self.position = nn.Parameter(torch.zeros(sites[1] * sites[2], config.width))
        else:
            self.row, self.column = (nn.Parameter(torch.zeros(n, config.width)) for n in sites[1:])
        if config.n_code_steps > 1:
            self.step = nn.Parameter(torch.zeros(config.n_code_steps, config.width))
        self.register_buffer("coordinates", coordinates(config.grid, config.n_code_steps), persistent=False)
        neighbours = causal_neighbours(config.grid, config.neighbourhood, config.n_code_steps)
        self.register_buffer("neighbours", neighbours, persistent=False)
        m = self.neighbours.shape[1]
        self.stem = nn.Linear(m * config.width, config.width, bias=False) if m else None

    def forward(
        self,
        table: Float[Tensor, "K C"],
        tokens: Int[Tensor, "B L"],
        labels: Int[Tensor, " B"],
        positions: slice,
    ) -> Float[Tensor, "B P C"]:
        """Return the inputs of the given positions; position i uses tokens before i only.

        Args:
            table: One vector per code.
            tokens: The known codes, raster order.
            labels: Class of each row; zeros without classes.
            positions: Which positions to compute.
        """
        first, last = positions.start, positions.stop
        start = self.start(labels)[:, None]  # (B, 1, C)
        previous = F.embedding(tokens[:, max(first - 1, 0) : last - 1], table)
        x = torch.cat([start.to(previous.dtype), previous], dim=1) if first == 0 else previous
        x = x + self.positions(first, last)
        if self.config.class_everywhere:
            x = x + start
        if self.stem is not None:
            x = x + self._around(self.stem, table, tokens, positions)
        return x

    def positions(self, first: int, last: int) -> Float[Tensor, "P C"]:
        """Return the vectors of the positions from ``first`` to before ``last``."""
        step, row, column = self.coordinates[first:last].unbind(1)
        if self.config.positions == "grid":
            x = self.row[row] + self.column[column]
        else:
            x = self.position[row * self.config.site_grid[1] + column]
        return x + self.step[step] if self.config.n_code_steps > 1 else x

    def _around(
        self, stem: nn.Linear, table: Float[Tensor, "K C"], tokens: Int[Tensor, "B L"], positions: slice
    ) -> Float[Tensor, "B P C"]:
        """Return the stem of the neighbours' embeddings, zeros outside of the grid."""
        outside, width = table.shape
        tokens = F.pad(tokens, (0, self.config.n_tokens + 1 - tokens.shape[1]), value=outside)  # last one: outside
        ids = tokens[:, self.neighbours[positions]]  # (B, P, M)
        table = F.pad(table, (0, 0, 0, 1))
        n_batch, n_positions, m = ids.shape
        if n_batch * n_positions < len(table):
            return stem(F.embedding(ids, table).flatten(2))
        # fewer codes than positions: what each code brings as each neighbour, once, and sums of rows of that
        weight = stem.weight.view(width, m, width).permute(2, 1, 0)
        rows = (table @ weight.reshape(width, -1)).view(-1, width).to(table.dtype)  # (K + 1) x M
        bags = (ids * m + torch.arange(m, device=ids.device)).flatten(0, 1)
        return F.embedding_bag(bags, rows, mode="sum").view(n_batch, n_positions, width)


def causal_neighbours(grid: tuple[int, int], radius: int, n_code_steps: int = 1) -> Int[Tensor, "L M"]:
    """Raster indices of the earlier sites within ``radius`` rows and columns of each site.

    Where several steps lie one below the other, the site itself and those next to it in the step before are added.

    Returns:
        For each site its M = 2r(r + 1) neighbours (9 more with several steps), nearest rows last; ``H·W`` stands for
        outside of the grid, or of the step.
    """
    sites = coordinates(grid, n_code_steps)
    around = range(-radius, radius + 1)
    offsets = [(0, dy, dx) for dy in range(-radius, 1) for dx in around if (dy, dx) < (0, 0)]
    if n_code_steps > 1 and radius:
        offsets += [(-1, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    sizes = torch.tensor((n_code_steps, grid[0] // n_code_steps, grid[1]))
    moved = sites[:, None] + torch.tensor(offsets, dtype=torch.long).reshape(1, -1, 3)  # (L, M, 3)
    index = (moved[..., 0] * sizes[1] + moved[..., 1]) * sizes[2] + moved[..., 2]
    return index.masked_fill(((moved < 0) | (moved >= sizes)).any(-1), grid[0] * grid[1])
