"""What the monitor costs: a forward pass of a small convolutional network with it over one without.

`python benchmarks/monitor.py [--threads 2]`; medians of rounds in which both take turns.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from tcvq_neurons import LIFGate
from tcvq_neurons.monitor import monitor
from tcvq_neurons.sequential import SpikingSequential


def make_network(width: int, depth: int) -> SpikingSequential:
    """Return ``depth`` blocks of convolution, group norm and gate."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(3 if i == 0 else width, width, 3, padding=1), nn.GroupNorm(8, width), LIFGate()]
    return SpikingSequential(*layers)


@torch.no_grad()
def measure(net: nn.Module, x_seq: Tensor, rounds: int) -> tuple[float, float]:
    """Return seconds of one forward pass without and with the monitor; its set-up is not part of it."""
    plain, watched = [], []
    for turn in range(rounds + 1):
        start = time.perf_counter()
        net(x_seq)
        between = time.perf_counter()
        with monitor(net):
            begin = time.perf_counter()
            net(x_seq)
            end = time.perf_counter()
        if turn:
            plain.append(between - start)
            watched.append(end - begin)
    return statistics.median(plain), statistics.median(watched)


def main() -> None:
    """Print the ratio for narrow and wide layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    args, _ = parser.parse_known_args()
    torch.set_num_threads(args.threads)
    for width in (32, 128):
        x_seq = torch.randn(4, 4, 3, 32, 32)
        plain, watched = measure(make_network(width, depth=4), x_seq, args.rounds)
        print(
            f"width {width}: {plain * 1e3:.1f} ms, with the monitor {watched * 1e3:.1f} ms, {watched / plain:.3f} times"
        )


if __name__ == "__main__":
    main()
