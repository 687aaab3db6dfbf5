"""Time and memory per drawn code against the length: running state, keys and values, no cache, and the reference.

Run ``python sampling.py``; ``--large`` adds the size of the released prior (1.2 GB of weights), ``--memory`` the peak
memory of a process of its own for each sampler, ``--grids`` whole grids of 256 codes that are really drawn, again in a
process of its own: the averaged sampler takes longer for the first than for later ones, for which the allocator has
kept its growing blocks. ``--positions`` shortens the table. Times of all samplers are taken in turns, position by
position, and are medians over the rounds; "to draw" integrates them over the sequence. With one thread
(``OMP_NUM_THREADS=1``) the time of the processor is taken, which other programs on the machine hardly change.

The reference is the sampler of the released code as `AveragedSampler` writes it down: it walks through the SNN steps
one by one, keeps keys and values averaged over the steps, and joins the list of all earlier ones anew for every code
and step. It draws from another distribution than the network was trained for, unless there is one step only.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tcvq_prior import Choice, PriorConfig, SpikingPrior

TAU, THRESHOLD = 2.0, 0.5  # the neurons' constants
SMALL = PriorConfig(n_embed=512, grid=(32, 32), n_layer=6, n_head=8, width=256, n_steps=2)
LARGE = PriorConfig(n_embed=1024, grid=(16, 16), n_layer=24, n_head=16, width=1024, n_steps=2)
POSITIONS = (16, 64, 128, 256, 512, 768, 1016)  # in the middle of the codes that are timed
Step = Callable[[], None]


class AveragedSampler:
    """Draws with the growing, time-averaged cache of the released code, from the weights of a `SpikingPrior`."""

    def __init__(self, prior: SpikingPrior, tokens: Tensor) -> None:
        """Begin behind the given tokens."""
        self.prior, self.tokens = prior, tokens
        config, rows = prior.config, tokens.shape[0]
        shape = (config.n_layer, 2, rows, config.n_head, 1, config.width // config.n_head)
        dtype = prior.ln_f.weight.dtype
        self.past = [torch.rand(shape, dtype=dtype).round() for _ in range(tokens.shape[1])]

    def logits(self) -> Tensor:
        """Compute the next position."""
        prior, position = self.prior, self.tokens.shape[1]
        labels = torch.zeros(len(self.tokens), dtype=torch.long)
        x = prior.embedding(prior.table(prior.features), self.tokens, labels, slice(position, position + 1))
        membranes: list[Tensor | float] = [0.0] * (2 * len(prior.blocks))
        steps, features = [], []
        for _ in range(prior.config.n_steps):
            past = torch.cat(self.past, dim=-2) if self.past else None
            out, present = self._blocks(x, past, membranes)
            steps.append(present)
            features.append(prior.ln_f(out))
        self.past.append(torch.stack(steps).mean(0))
        return torch.stack(features).mean(0)[:, -1] @ prior.head(prior.features).t()

    def _blocks(self, x: Tensor, past: Tensor | None, membranes: list[Tensor | float]) -> tuple[Tensor, Tensor]:
        present = []
        for i, block in enumerate(self.prior.blocks):
            spikes, membranes[2 * i] = lif(block.qkv(block.ln1(x)), membranes[2 * i])
            q, k, v = (part.unflatten(-1, (block.n_head, -1)).transpose(1, 2) for part in spikes.chunk(3, dim=-1))
            present.append(torch.stack([k, v]))
            if past is not None:
                k, v = torch.cat([past[i, 0], k], dim=-2), torch.cat([past[i, 1], v], dim=-2)
            y = (q @ k.transpose(-2, -1)) @ v * q.shape[-1] ** -0.5
            x = x + block.proj(y.transpose(1, 2).flatten(2))
            hidden, membranes[2 * i + 1] = lif(block.fc(block.ln2(x)), membranes[2 * i + 1])
            x = x + block.out(hidden)
        return x, torch.stack(present)


def lif(x: Tensor, v: Tensor | float) -> tuple[Tensor, Tensor]:
    """One step of a leaky integrate-and-fire neuron: spikes, and the membrane after them."""
    h = v + (x - v) / TAU
    s = (h > THRESHOLD).to(x.dtype)
    return s, h * (1 - s)


@torch.no_grad()
def stepper(prior: SpikingPrior, kind: str, rows: int, position: int, prefill: int | None = None) -> Step:
    """Return a function that draws the next code of every row, behind ``position`` random codes.

    ``prefill`` computes the state of the first codes only, which saves time and changes none.
    """
    numbers, choice = torch.rand(rows, dtype=torch.double), Choice()
    tokens = torch.randint(prior.n_embed, (rows, position), generator=torch.Generator().manual_seed(0))
    if kind == "averaged":
        sampler = AveragedSampler(prior, tokens)

        def averaged() -> None:
            drawn = choice.codes(sampler.logits(), numbers)
            sampler.tokens = torch.cat([sampler.tokens, drawn[:, None]], dim=1)

        return averaged
    cache, seen = prior.new_cache(kind), 0
    while kind != "none" and seen < (prefill or position):  # in chunks, as the package computes a given beginning
        stop = min(seen + 256, prefill or position)
        cache, seen = prior.extend(tokens[:, : stop - 1], None, seen, cache)[1], stop
    cache.length = position
    state = {"tokens": tokens, "cache": cache}

    def cached() -> None:
        known = state["tokens"]
        logits, state["cache"] = prior.extend(known, None, known.shape[1], state["cache"])
        state["tokens"] = torch.cat([known, choice.codes(logits[:, -1], numbers)[:, None]], dim=1)

    return cached


def in_turns(steps: dict[str, Step], rounds: int, in_a_row: int) -> dict[str, float]:
    """Return the median seconds of each step, all of them taken in turns."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in steps}
    with torch.no_grad():
        for step in steps.values():
            step()
        for _ in range(rounds):
            for name, step in steps.items():
                n = 1 if name == "none" else in_a_row
                start = clock()
                for _ in range(n):
                    step()
                found[name].append((clock() - start) / n)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def integral(times: dict[int, float], length: int) -> float:
    """Seconds to draw ``length`` codes: times between the measured positions are interpolated."""
    knots = [(0, times[min(times)]), *sorted(times.items())]
    total = 0.0
    for (a, at_a), (b, at_b) in pairwise(knots):
        if a >= length:
            break
        stop = min(b, length)
        at_stop = at_a + (at_b - at_a) * (stop - a) / max(b - a, 1)
        total += (stop - a) * (at_a + at_stop) / 2
    return total + max(0, length - knots[-1][0]) * knots[-1][1]


def compare(rows: int, rounds: int, in_a_row: int, positions: Sequence[int]) -> None:
    """Print time per code at each position, and to the lengths 256 and 1024."""
    prior = SpikingPrior(SMALL).eval()
    kinds = ("state", "kv", "none", "averaged")
    times: dict[str, dict[int, float]] = {kind: {} for kind in kinds}
    print(
        f"\n{SMALL.n_layer} layers x {SMALL.width}, {SMALL.n_head} heads, T={SMALL.n_steps}, batch {rows}: ms per code"
    )
    print(f"{'position':>9}" + "".join(f"{kind:>11}" for kind in kinds) + f"{'averaged/state':>16}")
    for position in positions:
        n = in_a_row * rounds
        start = min(position - n // 2, SMALL.n_tokens - n - 1)
        chosen = [kind for kind in kinds if kind != "none" or position <= 256]
        steps = {kind: stepper(prior, kind, rows, start) for kind in chosen}
        for kind, seconds in in_turns(steps, rounds, in_a_row).items():
            times[kind][position] = seconds
        cells = "".join(f"{times[k][position] * 1e3:11.2f}" if position in times[k] else f"{'':>11}" for k in kinds)
        print(f"{position:9d}{cells}{times['averaged'][position] / times['state'][position]:15.1f}x", flush=True)
    for length in (n for n in (256, 1024) if 8 * min(positions) <= n <= max(positions) + 8):
        total = {kind: integral(times[kind], length) for kind in ("state", "kv", "averaged")}
        speed = ", ".join(f"{kind} {rows * length / seconds:.0f} codes/s" for kind, seconds in total.items())
        print(f"to draw {length}: {speed}; averaged takes {total['averaged'] / total['state']:.1f}x the time of state")
    for kind in ("state", "kv"):
        print(f"cache {kind} of {rows} grids of 1024: {prior.cache_bytes(rows, kind) / 2**20:.1f} MiB")
    print(f"averaged, in float32: {4 * 2 * SMALL.n_layer * rows * SMALL.width * 1024 / 2**20:.1f} MiB, and a copy")


def flatness(rounds: int, in_a_row: int) -> None:
    """Print the time per code of the released size at both ends of its grid."""
    prior, rows = SpikingPrior(LARGE).eval(), 4
    positions = (16, 240)
    around = in_a_row * rounds // 2
    steps = {str(position): stepper(prior, "state", rows, position - around, prefill=2) for position in positions}
    times = in_turns(steps, rounds, in_a_row)
    print(f"\n{LARGE.n_layer} layers x {LARGE.width}, {LARGE.n_head} heads, T={LARGE.n_steps}, batch {rows}, state")
    for position in positions:
        print(f"position {position:4d}: {times[str(position)] * 1e3:8.1f} ms per code")
    print(f"the codes before the 256th take {times['240'] / times['16']:.3f}x the time of those around the 16th")


def same_as_reference_with_one_step() -> bool:
    """Whether both samplers give the same logits where averaging over the steps averages nothing."""
    config = PriorConfig(n_embed=32, grid=(3, 4), n_layer=2, n_head=2, width=32, n_steps=1, init_gain=2.0)
    prior = SpikingPrior(config).double().eval()
    tokens = torch.randint(32, (3, 11))
    sampler = AveragedSampler(prior, tokens[:, :0])
    with torch.no_grad():
        for position in range(12):
            sampler.tokens = tokens[:, :position]
            if not torch.allclose(sampler.logits(), prior(tokens)[:, position], atol=1e-10):
                return False
    return True


def peak_memory(rows: int) -> None:
    """Print how far the memory of a process rises when it draws behind so many codes."""
    print(f"\nrise of the peak memory of a process, batch {rows}, MiB")
    for position in (16, 256, 1016):
        cells = []
        for kind in ("state", "kv", "averaged"):
            command = [sys.executable, __file__, "--child", kind, str(rows), str(position)]
            cells.append(f"{kind} {int(subprocess.run(command, check=True, capture_output=True).stdout) / 1024:7.1f}")
        print(f"position {position:5d}: {'  '.join(cells)}", flush=True)


def whole_grids(rows: int, rounds: int) -> None:
    """Print the time of 256 codes from nothing, the first time in a process and later."""
    seconds: dict[str, list[list[float]]] = {"state": [], "averaged": []}
    for _ in range(rounds):
        for kind, found in seconds.items():
            command = [sys.executable, __file__, "--child", kind, str(rows), "draw"]
            found.append([float(x) for x in subprocess.run(command, check=True, capture_output=True).stdout.split()])
    for i, name in enumerate(("first", "second")):
        state, averaged = (statistics.median(times[i] for times in seconds[kind]) for kind in ("state", "averaged"))
        print(
            f"{name} grid of 256: state {state:.2f} s, averaged {averaged:.2f} s, {averaged / state:.1f}x", flush=True
        )


def child_draws(kind: str, rows: int) -> None:
    """Draw two grids of 256 codes and print the seconds of each."""
    prior = SpikingPrior(SMALL).eval()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with torch.no_grad():
        stepper(prior, kind, rows, 1)()
        for _ in range(2):
            start, step = clock(), stepper(prior, kind, rows, 0)
            for _ in range(256):
                step()
            print(clock() - start)


def child(kind: str, rows: int, position: int) -> None:
    """Draw a few codes and print by how many KiB the peak memory of this process rose."""
    prior = SpikingPrior(SMALL).eval()
    stepper(prior, kind, 1, 1)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = stepper(prior, kind, rows, position)
    with torch.no_grad():
        for _ in range(4):
            step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-a-row", type=int, default=8, help="codes a sampler draws before it is another one's turn")
    parser.add_argument("--batch", type=int, nargs="*", default=[8])
    parser.add_argument("--grids", action="store_true")
    parser.add_argument("--positions", type=int, nargs="*", default=POSITIONS)
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child and options.child[2] == "draw":
        child_draws(options.child[0], int(options.child[1]))
        return
    if options.child:
        child(options.child[0], *map(int, options.child[1:]))
        return
    torch.manual_seed(0)
    print(
        f"{torch.get_num_threads()} threads; one step: same logits as the reference {same_as_reference_with_one_step()}"
    )
    for rows in options.batch:
        if options.positions:
            compare(rows, options.rounds, options.in_a_row, options.positions)
    if options.grids:
        whole_grids(options.batch[0], options.rounds)
    if options.large:
        flatness(options.rounds, options.in_a_row)
    if options.memory:
        peak_memory(options.batch[0])


if __name__ == "__main__":
    main()
