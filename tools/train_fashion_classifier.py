"""Train ``fashion-cnn/1``, the Fashion-MNIST classifier that ships with tcvq-eval, and write its weights file.

One command, one CPU thread, about four minutes:

    python tools/train_fashion_classifier.py --source DIR

DIR holds the four ``*-ubyte.gz`` files of the full data set (Debian's package ``dataset-fashion-mnist`` puts them into
``usr/share/datasets/fashion-mnist``). Without ``--source`` the subset embedded in tcvq-data is used.
"""

import argparse
import gzip
import hashlib
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from tcvq_eval.features import CHANNELS, N_CLASSES, STRIDES, WEIGHTS_FILE

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUT = ROOT / "packages/tcvq-eval/src/tcvq_eval/weights" / WEIGHTS_FILE
BATCH = 128
PEAK_RATE = 4e-3


def read_split(folder: Path, prefix: str) -> tuple[Tensor, Tensor, str]:
    """Read one split of idx.gz files.

    Returns:
        Images (N, 1, 28, 28) uint8, labels (N,) int64, sha256 of both uncompressed files together.
    """
    pixels = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    classes = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    magic, n, height, width = np.frombuffer(pixels, ">u4", 4).tolist()
    if magic != 0x803 or len(pixels) != 16 + n * height * width or len(classes) != 8 + n:
        raise ValueError(f"{folder}/{prefix}-*: not a pair of idx files of equal length")
    images = torch.from_numpy(np.frombuffer(pixels, np.uint8, offset=16).copy()).view(n, 1, height, width)
    labels = torch.from_numpy(np.frombuffer(classes, np.uint8, offset=8).astype(np.int64))
    return images, labels, hashlib.sha256(pixels + classes).hexdigest()


def trainable_network() -> nn.Sequential:
    """Build the network of tcvq_eval.features with batch normalisation after each convolution."""
    layers: list[nn.Module] = []
    for (c_in, c_out), stride in zip(pairwise(CHANNELS), STRIDES, strict=True):
        layers += [nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], N_CLASSES)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def to_input(images: Tensor) -> Tensor:
    """Map uint8 pixels to [-1, 1]."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def train(net: nn.Sequential, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train with AdamW, a one-cycle rate, mirrored images, label smoothing and bfloat16 autocast."""
    steps = epochs * (len(labels) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.2)
    start = time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(labels)).split(BATCH)[: len(labels) // BATCH]:
            x = to_input(images[batch])
            x = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, x.flip(-1), x)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(net(x), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / (len(labels) // BATCH):.4f}  {time.monotonic() - start:.0f} s"
        )


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that a float32 network classifies correctly."""
    net.eval()
    guesses = torch.cat([net(to_input(batch)).argmax(1) for batch in images.split(500)])
    return (guesses == labels).double().mean().item()


def fold_batch_norm(net: nn.Sequential) -> dict[str, Tensor]:
    """Return the state of FashionFeatures: each batch normalisation folded into the convolution before it."""
    state: dict[str, Tensor] = {}
    convs = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in net if isinstance(layer, nn.BatchNorm2d)]
    for i, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        state[f"convs.{i}.weight"] = (conv.weight * scale[:, None, None, None]).detach().contiguous()
        state[f"convs.{i}.bias"] = (norm.bias - norm.running_mean * scale).detach().contiguous()
    head = net[-1]
    assert isinstance(head, nn.Linear)
    state["head.weight"], state["head.bias"] = head.weight.detach(), head.bias.detach()
    return state


def main() -> None:
    """Parse the command line, train, test and write."""
    parser = argparse.ArgumentParser(description="Train the Fashion-MNIST classifier of tcvq-eval.")
    parser.add_argument("--source", type=Path, help="folder of the four *-ubyte.gz files; default: the embedded subset")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="weights file to write")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # sums in a fixed order: the same file on every run of one machine
    source = args.source or next((ROOT / "packages/tcvq-data/src").rglob("train-images-idx3-ubyte.gz")).parent
    images, labels, train_hash = read_split(source, "train")
    test_images, test_labels, test_hash = read_split(source, "t10k")
    net = trainable_network()
    train(net, images, labels, args.epochs)
    test_accuracy = accuracy(net, test_images, test_labels)
    metadata = {
        "name": "fashion-cnn/1",
        "accuracy": round(test_accuracy, 4),
        "n_train": len(labels),
        "n_test": len(test_labels),
        "train_sha256": train_hash,
        "test_sha256": test_hash,
        "command": f"train_fashion_classifier.py --source DIR --epochs {args.epochs} --seed {args.seed}",
        "torch": torch.__version__,
        "input": "(N, 1, 28, 28) in [-1, 1]",
    }
    data = save(
        fold_batch_norm(net), {"meta": json.dumps(metadata)}
    )  # one key: safetensors writes several in any order
    args.out.write_bytes(data)
    print(f"test accuracy {test_accuracy:.4f} on {len(test_labels)} images; wrote {args.out}, {len(data)} bytes")
    print(f'WEIGHTS_SHA256 = "{hashlib.sha256(data).hexdigest()}"')


if __name__ == "__main__":
    main()
