"""Drawing grids of codes token by token, reproducibly for each sample, and going on from given codes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_prior.choosing import Choice, uniforms
from tcvq_prior.interface import Cache, CacheChoice, CodePrior
from tcvq_prior.memory import fitting_micro_batch

PREFILL = 256  # positions of a given prefix that are computed at once


class Drawn(NamedTuple):
    """Grids and how probable the prior finds their codes.

    Attributes:
        indices: Grids of codes.
        log_probs: Natural logarithm of the probability of each code given those before it, at temperature 1, without
            filters and guidance; None unless asked for.
    """

    indices: Int[Tensor, "n H W"]
    log_probs: Float[Tensor, "n H W"] | None


class Growing(NamedTuple):
    """Some grids while they are drawn.

    Attributes:
        first: Number of the first of them.
        indices: The codes drawn so far, -1 where there is none yet.
        rows: Complete rows of each grid.
    """

    first: int
    indices: Int[Tensor, "B H W"]
    rows: int


@torch.no_grad()
def draw_grids(
    prior: CodePrior,
    n: int,
    *,
    labels: Int[Tensor, " n"] | None = None,
    choice: Choice | None = None,
    guidance: float = 1.0,
    seed: int = 0,
    first: int = 0,
    known: Int[Tensor, "n H W"] | None = None,
    cache: CacheChoice = "auto",
    micro_batch: int | None = 64,
    callback: Callable[[int], None] | None = None,
    stream: Callable[[Growing], None] | None = None,
    return_logprobs: bool = False,
) -> Drawn:
    """Draw the samples ``first`` … ``first + n - 1`` of a seed; each is decided by seed and number, whatever ``n`` is.

    The network always runs on exactly ``micro_batch`` rows, of which those that nobody asked for are dropped, because
    in float32 another batch shape can round a membrane to the other side of the threshold.

    Known codes are forced as their turn comes. Grids are drawn in raster order: a drawn code has seen the known codes
    before it, in the rows above and to its left, and none of those after it.

    Args:
        prior: The model.
        n: Number of grids.
        labels: Class of each grid.
        choice: How a code is chosen; None draws from the prior's own probabilities.
        guidance: Scale s of classifier-free guidance (Ho and Salimans 2022): logits are null + s·(class - null). 1 is
            the class alone, and computes once instead of twice.
        seed: Any integer from 0 to 2**64 - 1.
        first: Number of the first sample.
        known: Codes that are given, -1 where one is to be drawn. Codes that all grids begin with are computed at once.
        cache: What the prior remembers; ``auto`` leaves it to the prior.
        micro_batch: Rows computed at a time; None takes as many as memory allows, at most 256.
        callback: Told the number of finished grids after each micro-batch.
        stream: Shown the growing grids after each of their rows.
        return_logprobs: Return the log-probabilities too.

    Raises:
        ValueError: If an argument is out of range, or there is not one label or known grid per sample.
        FloatingPointError: If the prior's logits are not finite.
    """
    _check(prior, n, labels, seed=seed, first=first, known=known, micro_batch=micro_batch, guidance=guidance)
    rows = fitting_micro_batch(prior, cache, guided=guidance != 1) if micro_batch is None else micro_batch
    prefix = 0 if known is None or not n else int((known.flatten(1) >= 0).long().cumprod(1).sum(1).min())
    parts: list[Drawn] = []
    with _evaluating(prior):
        for start in range(first - first % rows, first + n, rows):
            wanted = slice(max(first - start, 0), min(first + n - start, rows))
            of_all = slice(start + wanted.start - first, start + wanted.stop - first)
            batch = _Batch(
                prior,
                first=start,
                rows=rows,
                choice=choice or Choice(),
                guidance=guidance,
                seed=seed,
                cache=cache,
                with_log_probs=return_logprobs,
            )
            if labels is not None:
                batch.labels[wanted] = labels[of_all].to(prior.device)
            if known is not None:
                batch.known[wanted] = known[of_all].flatten(1).to(prior.device)
            parts.append(batch.draw(prefix, wanted, stream))
            if callback is not None:
                callback(of_all.stop)
    return _joined(parts, prior, return_logprobs)


def sample_grids(
    prior: CodePrior,
    n: int,
    *,
    labels: Int[Tensor, " n"] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    guidance: float = 1.0,
    seed: int = 0,
    micro_batch: int | None = 64,
    callback: Callable[[int], None] | None = None,
) -> Int[Tensor, "n H W"]:
    """Draw ``n`` grids; arguments and errors as of `Choice` and `draw_grids`."""
    choice = Choice(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    drawn = draw_grids(
        prior,
        n,
        labels=labels,
        choice=choice,
        guidance=guidance,
        seed=seed,
        micro_batch=micro_batch,
        callback=callback,
    )
    return drawn.indices


class _Batch:
    """The samples ``first`` … ``first + rows - 1``, drawn together."""

    def __init__(
        self,
        prior: CodePrior,
        *,
        first: int,
        rows: int,
        choice: Choice,
        guidance: float,
        seed: int,
        cache: CacheChoice,
        with_log_probs: bool,
    ) -> None:
        self.prior, self.first, self.choice, self.guidance = prior, first, choice, guidance
        length, device = prior.grid[0] * prior.grid[1], prior.device
        self.numbers = torch.from_numpy(uniforms(seed, first, rows, length)).to(device)
        self.labels = torch.zeros(rows, dtype=torch.long, device=device)
        self.null = torch.full_like(self.labels, prior.null_class or 0)
        self.known = torch.full((rows, length), -1, dtype=torch.long, device=device)
        self.tokens = torch.full((rows, length), -1, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(rows, length, dtype=torch.double, device=device) if with_log_probs else None
        self.caches: list[Cache] = [prior.new_cache(cache) for _ in range(1 if guidance == 1 else 2)]

    def draw(self, prefix: int, wanted: slice, stream: Callable[[Growing], None] | None) -> Drawn:
        """Take over the first ``prefix`` codes, which are known, and draw the others one by one."""
        position, (height, width) = 0, self.prior.grid
        self.tokens[:, :prefix] = self.known[:, :prefix].clamp_min(0)
        while position < height * width:
            stop = min(max(position, min(prefix, position + PREFILL - 1)) + 1, height * width)
            self._extend(position, stop)
            if stream is not None:
                for row in range(position // width + 1, stop // width + 1):
                    shown = self.tokens.clone()
                    shown[:, row * width :] = -1
                    stream(Growing(self.first + wanted.start, shown[wanted].unflatten(1, self.prior.grid), row))
            position = stop
        log_probs = None if self.log_probs is None else self.log_probs[wanted].unflatten(1, self.prior.grid)
        return Drawn(self.tokens[wanted].unflatten(1, self.prior.grid), log_probs)

    def _extend(self, position: int, stop: int) -> None:
        """Compute the positions up to ``stop``, and choose the code of the last one unless it is known."""
        logits, own = self._logits(position, stop)
        if not logits.isfinite().all():
            raise FloatingPointError(
                f"the prior's logits at position {stop - 1} are not finite; train or load it again"
            )
        last, known = stop - 1, self.known[:, stop - 1]
        drawn = self.choice.codes(logits[:, -1], self.numbers[:, last])
        self.tokens[:, last] = torch.where(known < 0, drawn, known)
        if self.log_probs is not None:
            chosen = self.tokens[:, position:stop, None]
            self.log_probs[:, position:stop] = own.double().log_softmax(-1).gather(-1, chosen)[..., 0]

    def _logits(self, position: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return the logits to choose by, and those of the prior itself."""
        tokens = self.tokens[:, : stop - 1]
        labels = self.labels if self.prior.n_classes else None
        own, self.caches[0] = self.prior.extend(tokens, labels, position, self.caches[0])
        if self.guidance == 1:
            return own, own
        null, self.caches[1] = self.prior.extend(tokens, self.null, position, self.caches[1])
        return null + self.guidance * (own - null), own


@contextmanager
def _evaluating(prior: CodePrior) -> Iterator[None]:
    """Put a network into evaluation mode for a while."""
    network = prior if isinstance(prior, torch.nn.Module) and prior.training else None
    if network is not None:
        network.eval()
    try:
        yield
    finally:
        if network is not None:
            network.train()


def _joined(parts: list[Drawn], prior: CodePrior, with_log_probs: bool) -> Drawn:
    if not parts:
        empty = torch.zeros(0, *prior.grid)
        return Drawn(empty.long(), empty.double() if with_log_probs else None)
    log_probs = [part.log_probs for part in parts if part.log_probs is not None]
    return Drawn(torch.cat([part.indices for part in parts]), torch.cat(log_probs) if log_probs else None)


def _check(
    prior: CodePrior,
    n: int,
    labels: Tensor | None,
    *,
    seed: int,
    first: int,
    known: Tensor | None,
    micro_batch: int | None,
    guidance: float,
) -> None:
    if n < 0 or first < 0 or (micro_batch is not None and micro_batch < 1):
        raise ValueError(
            f"n is {n}, first {first} and micro_batch {micro_batch}; need n >= 0, first >= 0 and micro_batch >= 1"
        )
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; it must lie between 0 and 2**64 - 1")
    if labels is None and prior.n_classes and prior.null_class is None:
        raise ValueError(f"the prior has {prior.n_classes} classes; labels were not given")
    if labels is not None:
        _check_labels(prior, n, labels)
    if known is not None and (known.shape != (n, *prior.grid) or (n and int(known.max()) >= prior.n_embed)):
        raise ValueError(
            f"known codes {tuple(known.shape)} reach {int(known.max()) if known.numel() else -1}; "
            f"need {(n, *prior.grid)} below {prior.n_embed}, -1 where unknown"
        )
    if guidance != 1 and (prior.null_class is None or labels is None):
        raise ValueError(
            f"guidance is {guidance}, which compares a class with none: it needs labels, and a prior trained with "
            "prior.null_class=true and stage2.class_dropout=0.1"
        )


def _check_labels(prior: CodePrior, n: int, labels: Tensor) -> None:
    if labels.shape != (n,):
        raise ValueError(f"{tuple(labels.shape)} labels for {n} samples; give one label per sample")
    if not prior.n_classes:
        raise ValueError("the prior has 0 classes; labels were given")
    known = prior.n_classes + (prior.null_class is not None)
    if n and not 0 <= int(labels.min()) <= int(labels.max()) < known:
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}; the prior has {prior.n_classes} classes")
