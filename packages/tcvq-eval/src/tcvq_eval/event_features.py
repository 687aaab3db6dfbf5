"""The space in which recordings are compared: a small spatio-temporal classifier trained on the real training split."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from .frozen import Frozen, state_sha256

LARGEST = 32  # pixels; larger frames are averaged down to it
CHANNELS = (16, 32, 32)
REGIONS = 2  # per side, in which the last map is averaged, so that a clip's features know where
BATCH = 128
NORMALISED = 500  # recordings, drawn at random, that decide the size of the features
Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class EventTraining:
    """How the classifier is trained.

    Attributes:
        steps: Batches.
        batch_size: Recordings per batch.
        learning_rate: Of Adam, falling to zero along half a cosine.
        seed: Of the initial weights and of the order of recordings.
    """

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject numbers out of range."""
        if min(self.steps, self.batch_size) < 1 or self.learning_rate <= 0:
            raise ValueError(f"{self} cannot train; steps, batch_size and learning_rate must be positive")


class EventClassifier(Frozen):
    """``event-cnn/3``: three strided convolutions of each frame, then one layer over all steps together.

    The layer over all steps sees their order, so that its features change when time is reversed. No batch statistics,
    no dropout; ``train()`` of a parent leaves it in evaluation mode. After training, features and maps are divided by
    their root mean square over training recordings, so that distances have a size that one can read.

    Args:
        n_steps: Steps T of a recording.
        n_classes: Number of classes.
        num_features: Width of a recording's features.
    """

    name = "event-cnn/3"
    input = "float32 in [-1, 1]"
    colour = "OFF, ON"

    def __init__(self, n_steps: int, n_classes: int, num_features: int = 64) -> None:
        super().__init__()
        self.n_steps, self.n_classes, self.num_features = n_steps, n_classes, num_features
        sizes = zip((2, *CHANNELS[:-1]), CHANNELS, (5, 3, 3), strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k, stride=2, padding=k // 2) for a, b, k in sizes)
        self.mix = nn.Linear(n_steps * CHANNELS[-1] * REGIONS**2, num_features)
        self.head = nn.Linear(num_features, n_classes)
        self.layer = str(num_features)
        self.resize = f"average to at most {LARGEST} pixels"
        self.train(False)

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights."""
        return state_sha256(self)

    def maps(self, frames: Float[Tensor, "N P H W"]) -> Float[Tensor, "N C R R"]:
        """Return the pooled maps of single frames."""
        if max(frames.shape[-2:]) > LARGEST:
            frames = adaptive_avg_pool2d(frames, (min(frames.shape[-2], LARGEST), min(frames.shape[-1], LARGEST)))
        for conv in self.convs:
            frames = conv(frames).relu()
        return adaptive_avg_pool2d(frames, REGIONS)

    def features(self, clips: Float[Tensor, "N T P H W"]) -> Float[Tensor, "N F"]:
        """Return the features of recordings, with gradient.

        Raises:
            ValueError: The recordings have another number of steps or channels.
        """
        if clips.ndim != 5 or clips.shape[1:3] != (self.n_steps, 2):
            raise ValueError(f"{self.name} got {tuple(clips.shape)}; it was built for (N, {self.n_steps}, 2, H, W)")
        maps = self.maps(clips.flatten(0, 1))
        return self.mix(maps.reshape(len(clips), -1)).relu()

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "N T P H W"]) -> Float[Tensor, "N F"]:
        """Return the features of recordings in [-1, 1]."""
        return torch.cat([self.features(part.float()) for part in images.split(BATCH)])

    @torch.no_grad()
    def frame_features(self, frames: Float[Tensor, "N P H W"]) -> Float[Tensor, "N C"]:
        """Return the features of single frames, averaged over space."""
        return torch.cat([self.maps(part.float()).mean(dim=(2, 3)) for part in frames.split(BATCH * self.n_steps)])

    @torch.no_grad()
    def logits_of(self, features: Float[Tensor, "N F"]) -> Float[Tensor, "N K"]:
        """Return class scores that belong to features."""
        return self.head(features)

    @torch.no_grad()
    def predict(self, clips: Float[Tensor, "N T P H W"]) -> Int[Tensor, " N"]:
        """Return the most probable class of each recording."""
        return self.logits_of(self(clips)).argmax(dim=1)

    @torch.no_grad()
    def normalise(self, clips: Float[Tensor, "N T P H W"]) -> None:
        """Give maps and features a mean square of 1 over some recordings, and leave the class scores as they are.

        Rectified layers are homogeneous: what one divides by, the next one multiplies with.
        """
        maps = torch.cat([self.maps(part.flatten(0, 1).float()) for part in clips.split(BATCH)])
        last, features = self.convs[len(CHANNELS) - 1], self(clips)
        for layer, following, values in ((last, self.mix, maps), (self.mix, self.head, features)):
            size = values.square().mean().sqrt().clamp_min(1e-6)
            for parameter in layer.parameters():
                parameter.div_(size)
            following.weight.mul_(size)


def train_event_classifier(
    read: Rows,
    labels: Int[Tensor, " N"],
    *,
    n_steps: int,
    n_classes: int,
    training: EventTraining | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EventClassifier:
    """Train the classifier on the real training split; the same data and seed give the same weights on a machine.

    Args:
        read: Returns the recordings of some rows, ``(B, T, 2, H, W)`` in [-1, 1].
        labels: Class of each row.
        n_steps: Steps T.
        n_classes: Number of classes.
        training: How.
        progress: Called with the number of batches done and of all.

    Raises:
        ValueError: There are no recordings, or one has no class.
    """
    training = training or EventTraining()
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= n_classes:
        raise ValueError(f"the classifier of recordings needs classes from 0 to {n_classes - 1} for every recording")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = EventClassifier(n_steps, n_classes)
    network.requires_grad_(True)
    optimizer = torch.optim.Adam(network.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    generator = torch.Generator().manual_seed(training.seed)
    order = torch.randperm(len(labels), generator=generator)
    for step in range(training.steps):
        if len(order) < training.batch_size:
            order = torch.cat([order, torch.randperm(len(labels), generator=generator)])
        rows, order = order[: training.batch_size], order[training.batch_size :]
        loss = cross_entropy(network.head(network.features(read(rows).float())), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, training.steps)
    network.freeze()
    network.normalise(read(torch.randperm(len(labels), generator=generator)[:NORMALISED]))
    return network


def cached_event_classifier(
    folder: Path,
    data_sha256: str,
    read: Rows,
    labels: Int[Tensor, " N"],
    *,
    n_steps: int,
    n_classes: int,
    training: EventTraining | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EventClassifier:
    """Return the classifier of a training split from a cache, trained the first time.

    The file's name is a hash of data, architecture and training; it holds the hash of its weights, and a file whose
    weights are others is trained again.

    Args:
        folder: The cache; made if missing.
        data_sha256: Hash that changes whenever the recordings do.
        read: As for `train_event_classifier`, as are the rest.
        labels: Class of each row.
        n_steps: Steps T.
        n_classes: Number of classes.
        training: How.
        progress: Called with the number of batches done and of all.

    Raises:
        ValueError: As `train_event_classifier`.
        OSError: The cache cannot be written.
    """
    training = training or EventTraining()
    what = [EventClassifier.name, CHANNELS, REGIONS, LARGEST, n_steps, n_classes, data_sha256, asdict(training)]
    path = folder / f"event-cnn-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]}.safetensors"
    network = EventClassifier(n_steps, n_classes)
    if path.is_file() and _restored(network, path.read_bytes()):
        return network
    network = train_event_classifier(
        read, labels, n_steps=n_steps, n_classes=n_classes, training=training, progress=progress
    )
    _write(path, network)
    return network


def _restored(network: EventClassifier, data: bytes) -> bool:
    """Load weights if they are whole, and say whether they were."""
    try:
        network.load_state_dict(load(data))
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        expected = head["__metadata__"]["weights_sha256"]
    except (SafetensorError, RuntimeError, ValueError, KeyError):
        return False
    network.freeze()
    return bool(expected == network.weights_sha256)


def _write(path: Path, network: EventClassifier) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(network.state_dict(), metadata={"weights_sha256": network.weights_sha256}))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
