"""One full training step of stage 1 against its own convolutions and against the released code's way; needs numba.

``python step.py --threads 2`` trains the paper's MNIST-size network with `LitVQVAE` under Lightning: autoencoder and
discriminator, both optimizers, logging. What is counted:

- *convolutions and matrix products*: total time, in the profiler, of ``aten::convolution``, ``convolution_backward``,
  ``mm``, ``addmm`` and ``bmm`` of the same step, with what oneDNN reorders inside of them; neither autocast's casts nor
  anything of group norm, neurons, optimizer, Python, nor the copies around convolutions that are computed as products
  (`tcvq_vqvae.conv`).
- *by torch*: the same total of one more step of the same run, in which every convolution is torch's, none a product.
- *step*: wall time of the same step, profiler included, from Lightning's first to its last hook around it.
- *plain*: the step of `plain.py`, run in turns with ours in the same process, without profiler; medians.
- *memory*: the most that torch has allocated in a step beyond what was there before it (activations and gradients), in
  the profiler; weights, moments and input are the same for both and not in it. Buffers of our kernels, one sample for
  each thread, are not torch's and not in it either.
- *cost*: medians for other numbers of steps T and batch sizes over the linear cost, step(T) / (T step(1)); after one
  step to warm up, without profiler.

The script starts itself anew with what `ALLOCATOR` sets for glibc: memory that a step gave back is kept for the next
one, and lies in huge pages. Both ways of training run under it. ``--allocator system`` leaves glibc alone.

Spikes decide what follows: the numbers of ours and of the plain step part after some steps, as any two roundings do.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import lightning
import plain
import torch
from torch.profiler import ProfilerActivity, profile

from tcvq_data import Sample
from tcvq_vqvae import LitVQVAE, LossConfig, Stage1Config, VQVAEConfig, conv

PRODUCTS = {"aten::convolution", "aten::convolution_backward", "aten::mm", "aten::addmm", "aten::bmm"}
ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


class Stopwatch(lightning.Callback):
    """Times the steps after ``warmup`` in turns with the plain ones, then profiles three.

    They show time, memory, and the time where every convolution is torch's.
    """

    def __init__(self, rounds: int, other: "plain.PlainStep | None", warmup: int, *, bf16: bool) -> None:
        self.rounds, self.warmup, self.other, self.bf16 = rounds, warmup, other, bf16
        self.ours: list[float] = []
        self.plain: list[float] = []
        self.profiled = self.products = self.profiled_by_torch = self.products_by_torch = 0.0
        self.memory = [0.0, 0.0]

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Sample, batch_idx: int) -> None:
        """Start watch or profiler."""
        number = batch_idx - self.warmup - self.rounds  # 0: profile time, 1: memory, 2: time by torch
        self.profiler = new_profiler(memory=number == 1) if number >= 0 else None
        if number == 2:
            conv.WEIGHTS = sys.maxsize
        if self.profiler:
            self.profiler.start()
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Sample, batch_idx: int) -> None:
        """Stop it; let the plain step take its turn."""
        seconds = time.perf_counter() - self.start
        number = batch_idx - self.warmup - self.rounds
        if self.profiler:
            self.profiler.stop()
        if number == 0:
            self.profiled, self.products = seconds, products(self.profiler)
        elif number == 1:
            self.memory[0] = peak(self.profiler)
        elif number > 1:
            self.profiled_by_torch, self.products_by_torch = seconds, products(self.profiler)
        elif batch_idx >= self.warmup:
            self.ours.append(seconds)
        if self.other is not None and number <= 1:
            self.compare(batch.image, batch_idx)

    def compare(self, images: torch.Tensor, batch_idx: int) -> None:
        """Run the plain step, watched as ours was."""
        if batch_idx == self.warmup + self.rounds + 1:
            with new_profiler(memory=True) as profiler:
                self.other(images, bf16=self.bf16)
            self.memory[1] = peak(profiler)
            return
        start = time.perf_counter()
        self.other(images, bf16=self.bf16)
        if self.warmup <= batch_idx < self.warmup + self.rounds:
            self.plain.append(time.perf_counter() - start)


class Images:
    """The same images again and again, in the batches of a loader."""

    def __init__(self, batch: int, length: int) -> None:
        self.sample, self.length = Sample(torch.rand(batch, 1, 32, 32) * 2 - 1, torch.full((batch,), -1)), length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Sample]:
        return iter([self.sample] * self.length)


def new_profiler(*, memory: bool) -> profile:
    """A profiler of the CPU, with allocations or without their cost."""
    return profile(activities=[ProfilerActivity.CPU], profile_memory=memory)


def products(profiler: profile) -> float:
    """Seconds in convolutions and matrix products."""
    return sum(event.cpu_time_total for event in profiler.key_averages() if event.key in PRODUCTS) / 1e6


def peak(profiler: profile) -> float:
    """Most bytes allocated at once since the profiler started."""
    events = sorted((e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"), key=start_of)
    held = highest = 0
    for event in events:
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def start_of(event: Any) -> int:
    """When an event began."""
    return event.start_ns()


def measure(n_steps: int, batch: int, rounds: int, *, bf16: bool, compare: bool) -> Stopwatch:
    """Train for some steps."""
    torch.manual_seed(0)
    config = VQVAEConfig(n_steps=n_steps, codebook_init="uniform")
    warmup, profiled = (2, 3) if compare else (1, 0)
    length = warmup + rounds + profiled
    train = Stage1Config(max_steps=length, batch_size=batch, revive_every=0)
    module = LitVQVAE(config, LossConfig(disc_start=0), train)
    other = plain.PlainStep(module.model, module.discriminator, 4.5e-6 * batch) if compare else None
    watch = Stopwatch(rounds, other, warmup, bf16=bf16)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, precision="bf16-mixed" if bf16 else "32-true", callbacks=[watch],
    )  # fmt: skip
    weights = conv.WEIGHTS
    trainer.fit(module, Images(batch, length))
    conv.WEIGHTS = weights
    return watch


def report(bf16: bool, rounds: int) -> None:
    """Print the ratios of one precision."""
    watch = measure(4, 8, rounds, bf16=bf16, compare=True)
    if bf16 and conv.emulates_bf16():
        print("bf16  this CPU has no arithmetic for it: our convolutions are computed in fp32, the plain ones not")
    ours, slow, name = statistics.median(watch.ours), statistics.median(watch.plain), "bf16" if bf16 else "fp32"
    print(f"{name}  step {watch.profiled:.3f} s, of it convolutions and matrix products {watch.products:.3f} s")
    print(f"{name}  step / convolutions and matrix products   {watch.profiled / watch.products:.2f}")
    print(f"{name}  by torch: step {watch.profiled_by_torch:.3f} s, of it {watch.products_by_torch:.3f} s")
    print(f"{name}  step by torch / its own   {watch.profiled_by_torch / watch.products_by_torch:.2f}")
    print(f"{name}  step / those by torch   {watch.profiled / watch.products_by_torch:.2f}")
    print(f"{name}  plain step {slow:.3f} s, ours {ours:.3f} s: faster   {slow / ours:.2f}x")
    mine, theirs = (bytes_ / 2**20 for bytes_ in watch.memory)
    print(f"{name}  peak of a step {mine:.0f} MiB, plain {theirs:.0f} MiB: ratio   {mine / theirs:.2f}", flush=True)


def report_scaling(rounds: int) -> None:
    """Print the cost against T and batch, over the linear cost."""
    print(f"fp32  cost: medians of {rounds} after one step to warm up, 32 px")
    measured: dict[tuple[int, int], float] = {}
    for name, sizes, linear in (
        ("T", [(t, 8) for t in (1, 2, 4, 8)], [1, 2, 4, 8]),
        ("batch", [(4, b) for b in (2, 4, 8, 16)], [1, 2, 4, 8]),
    ):
        for size in sizes:
            if size not in measured:
                measured[size] = statistics.median(measure(*size, rounds, bf16=False, compare=False).ours)
        times = [measured[size] for size in sizes]
        for size, seconds, factor in zip(sizes, times, linear, strict=True):
            share = seconds / (factor * times[0])
            print(f"fp32  T = {size[0]}, batch {size[1]:2d}: {seconds:.3f} s, over linear in {name}   {share:.2f}")
        steps = [(b - a) / (y - x) for (a, b), (x, y) in zip(pairwise(times), pairwise(linear), strict=True)]
        print(f"fp32  marginal cost along {name}: {', '.join(f'{s:.3f}' for s in steps)} s", flush=True)


def keep_memory() -> None:
    """Start this script anew with `ALLOCATOR`, unless it is so already; glibc reads it at the start only."""
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)


def main() -> None:
    """Read the options and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["fp32", "bf16", "scaling"])
    parser.add_argument("--allocator", choices=["keep", "system"], default="keep")
    options = parser.parse_args()
    if options.allocator == "keep" and sys.platform == "linux":
        keep_memory()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", module="lightning")
    print(
        f"torch {torch.__version__}, {options.threads} threads, batch 8, T = 4, 32 px, medians of {options.rounds}; "
        f"allocator {options.allocator}"
    )
    if options.only in (None, "fp32"):
        report(False, options.rounds)
    if options.only in (None, "bf16"):
        report(True, options.rounds)
    if options.only in (None, "scaling"):
        report_scaling(max(1, options.rounds // 2))


if __name__ == "__main__":
    main()
