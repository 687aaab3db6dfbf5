"""What a codebook does over a window and over an epoch: use, error per step, neighbourhood, movement of the entries.

`CodebookStatistics` only adds tensors up while training runs; numbers leave the device, and ranks meet, in `compute`.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from tcvq_codebook.distributed import add_over_ranks
from tcvq_codebook.measures import add_neighbours, entry_drift, temporal_profile
from tcvq_codebook.report import CodebookReport

MAX_PAIR_BYTES = 64 * 2**20  # both tables of neighbours together: 2048 codes


class CodebookStatistics:
    """Statistics of the index maps that a codebook returns, over the last ``window`` sites and since `reset`.

    `update` does not synchronise with the device, so it may run in every step. Counts are summed first, over batches
    and ranks, and measures such as perplexity come last: the mean of per-batch perplexities would understate use.

    This is not a module on purpose: buffers of a module inside DistributedDataParallel are overwritten by those of rank
    0, and casts of the model would round its sums. Save it with `state_dict`.

    Args:
        n_embed: Number of codes K.
        n_steps: Number of steps T of the latents.
        n_maps: Index maps per batch: 1 for a temporal codebook, T for a vanilla one, Q for a residual one.
        shared: Whether all maps name entries of one codebook, as in a vanilla one; False for residual levels and heads,
            whose measures of use are then means over the maps.
        window: Length of the window in sites, of each rank.
        cooccurrence: Also count neighbouring codes: two K × K tables of int64, at most 64 MiB.
        device: Where the indices will be; `to` moves everything.

    Raises:
        ValueError: If a size is below one, or the tables of neighbours would be larger than 64 MiB or mix codebooks.
    """

    def __init__(
        self,
        n_embed: int,
        n_steps: int,
        *,
        n_maps: int = 1,
        shared: bool = True,
        window: int = 2**16,
        cooccurrence: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if min(n_embed, n_steps, n_maps, window) < 1:
            raise ValueError(f"sizes must be at least 1, got {n_embed=}, {n_steps=}, {n_maps=}, {window=}")
        if cooccurrence and n_maps > 1 and not shared:
            raise ValueError(
                f"neighbours in {n_maps} maps of different codebooks do not add up; pass cooccurrence=False"
            )
        if cooccurrence and 16 * n_embed**2 > MAX_PAIR_BYTES:
            raise ValueError(
                f"neighbours of {n_embed} codes would take {16 * n_embed**2 / 2**20:.0f} MiB, more than "
                f"{MAX_PAIR_BYTES // 2**20}; count them on codes compacted to the used ones, with neighbour_counts"
            )
        self.n_embed, self.n_steps, self.n_maps, self.window = n_embed, n_steps, n_maps, window
        self.shared = shared or n_maps == 1
        self._written = 0  # sites that ever entered the window
        self._tensors: dict[str, Tensor] = {
            "counts": torch.zeros(n_maps, n_embed, dtype=torch.int64, device=device),
            "window": torch.zeros(window, n_maps, dtype=torch.int32, device=device),
            "error": torch.zeros(3, n_steps, dtype=torch.float64, device=device),  # Σ(z − e)², Σz², how many terms
        }
        if cooccurrence:
            self._tensors["neighbours"] = torch.zeros(2, n_embed, n_embed, dtype=torch.int64, device=device)
        self._snapshot: Tensor | None = None

    @torch.no_grad()
    def update(
        self,
        indices: Int[Tensor, "*maps B H W"],
        z: Float[Tensor, "T B D H W"] | None = None,
        z_q: Float[Tensor, "T B D H W"] | None = None,
    ) -> None:
        """Add one batch; without a site in it, nothing changes.

        Args:
            indices: What the codebook chose, ``(B, H, W)``, or ``(n_maps, B, H, W)`` for several maps. That each is in
                0 … K − 1 is not checked, because checking would wait for the device.
            z: The latents, for the error per step.
            z_q: What replaced them.

        Raises:
            ValueError: If the number of maps or steps is not the one announced, or only one of ``z``, ``z_q`` is given.
        """
        maps = indices.unsqueeze(0) if indices.ndim == 3 else indices
        if maps.ndim != 4 or len(maps) != self.n_maps:
            raise ValueError(
                f"indices of shape {tuple(indices.shape)} do not hold {self.n_maps} maps (B, H, W); see n_maps"
            )
        if (z is None) != (z_q is None):
            raise ValueError("the error needs both z and z_q; pass both or none")
        flat = maps.reshape(self.n_maps, -1).long()
        self._tensors["counts"].scatter_add_(1, flat, torch.ones_like(flat))
        self._slide(flat)
        if "neighbours" in self._tensors:
            add_neighbours(self._tensors["neighbours"], maps)
        if z is not None and z_q is not None:
            self._add_error(z, z_q)

    @torch.no_grad()
    def mark(self, codebook: Float[Tensor, "K T D"]) -> None:
        """Remember the entries as they are now; `compute` reports their drift from here."""
        self._snapshot = codebook.detach().clone()

    @torch.no_grad()
    def compute(self, codebook: Float[Tensor, "K T D"] | None = None) -> CodebookReport:
        """Return everything, summed over the ranks of the default process group where there is one.

        State is left as it was. Under torch.distributed every rank has to call this, with sites or without.

        Args:
            codebook: The entries, for their temporal profile weighted by use, and their drift since `mark`.

        Raises:
            ValueError: If entries are given but the maps belong to different codebooks.
        """
        if codebook is not None and not self.shared:
            raise ValueError(f"one codebook cannot be weighted by {self.n_maps} maps of different ones; pass none")
        tensors = {name: add_over_ranks(tensor.clone()) for name, tensor in self._tensors.items() if name != "window"}
        counts = tensors["counts"]
        window = add_over_ranks(self._window_counts())
        squared, energy, terms = tensors["error"].cpu()
        seen = bool(terms.sum() > 0)
        neighbours = tensors.get("neighbours")
        profile = temporal_profile(codebook, counts.sum(0)) if codebook is not None else None
        drift = None
        if codebook is not None and self._snapshot is not None:
            drift = entry_drift(codebook, self._snapshot.to(codebook.device)).cpu()
        return CodebookReport(
            counts=counts.cpu(),
            window_counts=window.cpu(),
            shared=self.shared,
            error=squared / terms if seen else None,
            relative_error=squared / energy if seen else None,
            neighbours=None if neighbours is None else neighbours.cpu(),
            norm=None if profile is None else profile.norm.cpu(),
            change=None if profile is None else profile.change.cpu(),
            variance_share=None if profile is None else profile.variance_share.cpu(),
            drift=drift,
        )

    def reset(self) -> None:
        """Start a new epoch. The window and the marked snapshot go on."""
        for name, tensor in self._tensors.items():
            if name != "window":
                tensor.zero_()

    def to(self, device: torch.device | str) -> "CodebookStatistics":
        """Move all tensors to a device and return itself."""
        self._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all tensors, for a checkpoint; each rank has its own."""
        state = {name: tensor.clone() for name, tensor in self._tensors.items()}
        state["written"] = torch.tensor(self._written)
        if self._snapshot is not None:
            state["snapshot"] = self._snapshot.clone()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned, on this object's device.

        Raises:
            ValueError: If a tensor is missing, or has another shape than here; the message names it.
        """
        for name, tensor in self._tensors.items():
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "nothing"
                raise ValueError(
                    f"saved statistics hold {found} as {name!r}, but this object needs {tuple(tensor.shape)}"
                )
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])
        self._written = int(state["written"])
        self._snapshot = state["snapshot"].clone() if "snapshot" in state else None

    def _slide(self, flat: Int64[Tensor, "maps N"]) -> None:
        """Write the sites into the ring, over the oldest ones."""
        self._written += flat.shape[1]
        latest = flat[:, -self.window :].T.to(torch.int32)
        slots = torch.arange(self._written - len(latest), self._written, device=flat.device) % self.window
        self._tensors["window"][slots] = latest

    def _window_counts(self) -> Int64[Tensor, "maps K"]:
        filled = self._tensors["window"][: self._written].T.long()
        counts = torch.zeros_like(self._tensors["counts"])
        return counts.scatter_add_(1, filled, torch.ones_like(filled))

    def _add_error(self, z: Float[Tensor, "T B D H W"], z_q: Float[Tensor, "T B D H W"]) -> None:
        if z.shape[0] != self.n_steps:
            raise ValueError(f"latents have {z.shape[0]} steps, but these statistics are for {self.n_steps}")
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        sums = [x.square().sum((1, 2, 3, 4), dtype=torch.float64) for x in (z - z_q, z)]
        terms = torch.full_like(sums[0], z[0].numel())
        self._tensors["error"] += torch.stack([*sums, terms])
