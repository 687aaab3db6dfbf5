"""Conformance kit for image sources, and idx files for tests."""

import pickle
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray

from tcvq_data.batches import read_batch
from tcvq_data.interface import ImageSource, Sample


def check_image_source(source: ImageSource, *, n_checked: int = 32, pickled: bool = True) -> None:
    """Check that a dataset keeps the contract of `ImageSource`.

    Args:
        source: The dataset; must not be empty.
        n_checked: How many samples to read, spread over the dataset.
        pickled: Also check that a pickled copy gives the same; worker processes that are spawned need that.

    Raises:
        AssertionError: It breaks the contract; the message says how.
    """
    assert isinstance(source, ImageSource), f"{type(source).__name__} lacks classes, __len__ or __getitem__"
    assert isinstance(source.classes, tuple), "classes must be a tuple"
    assert len(set(source.classes)) == len(source.classes), "names of classes repeat"
    assert len(source) > 0, "the dataset is empty"
    labels = source.labels
    found = f"{labels.dtype} {tuple(labels.shape)}"
    assert (labels.dtype, labels.shape) == (torch.int64, (len(source),)), f"labels are {found}, not int64, one each"
    shape = source[0].image.shape
    checked = np.linspace(0, len(source) - 1, min(n_checked, len(source))).astype(int).tolist()
    for i in checked:
        _check_sample(source[i], where=f"sample {i}", shape=shape, n_classes=len(source.classes))
        first, again = source[i], source[i]
        same = torch.equal(first.image, again.image) and torch.equal(first.label, again.label)
        assert same, f"sample {i} differs when read twice"
        assert int(first.label) == int(labels[i]), f"sample {i} has label {int(first.label)}, labels says {labels[i]}"
    backwards = checked[::-1]
    batch, alone = read_batch(source, backwards), [source[i] for i in backwards]
    assert torch.equal(batch.image, torch.stack([s.image for s in alone])), "batch differs from single samples"
    assert torch.equal(batch.label, labels[backwards]), "labels of a batch differ from those of single samples"
    with suppress(IndexError):
        source[len(source)]
        raise AssertionError("an index beyond the end must raise IndexError, or iteration never ends")
    if pickled:
        copy = pickle.loads(pickle.dumps(source))
        assert torch.equal(copy[0].image, source[0].image), "a pickled copy differs"


def _check_sample(sample: Sample, *, where: str, shape: torch.Size, n_classes: int) -> None:
    """Assert type, shape and range of one sample."""
    assert isinstance(sample, Sample), f"{where} is a {type(sample).__name__}, not a Sample"
    image, label = sample
    assert image.dtype == torch.float32, f"{where}: image is {image.dtype}, not float32"
    assert image.ndim in (3, 4), f"{where}: image has shape {tuple(image.shape)}, not (C, H, W) or (T, C, H, W)"
    assert image.shape == shape, f"{where}: image has shape {tuple(image.shape)}, sample 0 has {tuple(shape)}"
    assert bool(image.isfinite().all()), f"{where}: image has NaN or infinity"
    assert image.abs().max() <= 1, f"{where}: image leaves [-1, 1]"
    assert label.dtype == torch.int64, f"{where}: label is {label.dtype}, not int64"
    assert label.ndim == 0, f"{where}: label has shape {tuple(label.shape)}, not ()"
    assert -1 <= int(label) < n_classes, f"{where}: label {int(label)} with {n_classes} classes"


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return an uncompressed idx file that holds ``array``."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
