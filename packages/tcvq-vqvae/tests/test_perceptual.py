"""LPIPS from a file: the right numbers, a frozen network, and one sentence for every way the file is wrong."""

import hashlib
import inspect
import sys
from pathlib import Path

import lightning
import pytest
import torch
import torch.nn.functional as F

from tcvq_data import ArtifactError
from tcvq_vqvae import LitVQVAE, LossConfig, Perceptual, Stage1Config

CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
CONVOLUTIONS |= {17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)}
TAPS, POOLS = (2, 7, 14, 21, 28), (5, 10, 17, 24)  # relu1_2 … relu5_3; convolutions with a pooling before them
NO_FILE = LossConfig(disc_weight=0.0)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """A file as torchvision's, with random weights, and its checksum."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for number, (a, b) in CONVOLUTIONS.items():
        tensors[f"features.{number}.weight"] = torch.randn(b, a, 3, 3, generator=generator) * (2 / (9 * a)) ** 0.5
        tensors[f"features.{number}.bias"] = torch.randn(b, generator=generator) * 0.1
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(tensors, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def perceptual(vgg):
    pytest.importorskip("lpips", reason='needs lpips; pip install "tcvq-vqvae[perceptual]"')
    return Perceptual(*vgg)


def by_hand(x, y, path):
    """LPIPS as its paper says it, from VGG16's weights and the five learned ones of the package."""
    import lpips

    weights = torch.load(path, weights_only=True)
    folder = Path(inspect.getfile(lpips)).parent / "weights/v0.1/vgg.pth"
    learned = torch.load(folder, map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    a, b = ((image - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for image in (x, y))
    total, depth = 0, 0
    for number in CONVOLUTIONS:
        weight, bias = (weights[f"features.{number}.{kind}"] for kind in ("weight", "bias"))
        if number in POOLS:
            a, b = F.max_pool2d(a, 2), F.max_pool2d(b, 2)
        a, b = (F.relu(F.conv2d(h, weight, bias, padding=1)) for h in (a, b))
        if number in TAPS:
            units = [h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10) for h in (a, b)]
            difference = (units[0] - units[1]).square()
            total = total + F.conv2d(difference, learned[f"lin{depth}.model.1.weight"]).mean((1, 2, 3))
            depth += 1
    return total.mean()


def test_distance_is_that_of_the_paper(perceptual, vgg):
    x, y = torch.rand(2, 2, 3, 24, 24) * 2 - 1
    expected = by_hand(x, y, vgg[0])
    assert perceptual(x, y).item() == pytest.approx(expected.item(), rel=1e-4)
    assert perceptual(x, x) == 0


def test_grey_images_are_three_equal_channels(perceptual):
    x, y = torch.rand(2, 1, 1, 16, 16) * 2 - 1
    assert perceptual(x, y) == perceptual(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1))


def test_network_is_frozen_in_evaluation_mode_and_appears_nowhere(perceptual):
    x, y = torch.rand(2, 1, 1, 16, 16) * 2 - 1
    before = perceptual(x, y)
    perceptual.train()
    assert perceptual(x, y) == before
    assert not list(perceptual.parameters())
    assert not perceptual.state_dict()
    y.requires_grad_()
    perceptual(x, y).backward()
    assert y.grad.abs().sum() > 0


def test_network_follows_the_module_to_another_dtype(perceptual):
    perceptual.double()
    try:
        x, y = torch.rand(2, 1, 1, 16, 16, dtype=torch.float64)
        assert perceptual(x, y).dtype == torch.float64
    finally:
        perceptual.float()


def test_training_asks_for_the_distance_once_per_batch_and_logs_it(make_config, fit, vgg, perceptual, monkeypatch):
    loss = LossConfig(
        perceptual_weight=2.0, perceptual_weights=str(vgg[0]), perceptual_sha256=vgg[1], disc_start=0, disc_width=4,
        disc_layers=1,
    )  # fmt: skip
    module, calls, logged = (
        LitVQVAE(make_config(image_size=16, attn_resolutions=()), loss, Stage1Config(max_steps=2)),
        [],
        [],
    )

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            logged.append({name: value.item() for name, value in trainer.callback_metrics.items()})

    module.perceptual.register_forward_hook(lambda *args: calls.append(args[2]))
    fit(module, torch.rand(2, 1, 16, 16) * 2 - 1, callbacks=[Watch()])
    assert len(calls) == 2
    last = logged[-1]
    total = last["train/l1"] + 2 * last["train/perceptual"] + last["train/codebook"]
    total += last["train/adaptive_weight"] * last["train/generator"]
    assert last["train/loss"] == pytest.approx(total, rel=1e-4)
    assert not any("perceptual" in name for name in module.state_dict())


def test_nothing_is_built_or_looked_for_at_weight_0(make_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert LitVQVAE(make_config(), NO_FILE, Stage1Config()).perceptual is None


def test_missing_file_is_named_and_never_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("a download was tried"))
    with pytest.raises(
        ArtifactError, match=r"vgg\.pth: No such file.*never downloaded.*or set loss\.perceptual_weight=0"
    ):
        Perceptual(tmp_path / "vgg.pth", "0" * 64)


def test_damaged_file_is_refused(vgg, tmp_path):
    broken = tmp_path / "vgg16.pth"
    broken.write_bytes(vgg[0].read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"its SHA-256 is .* and not"):
        Perceptual(broken, vgg[1])


def test_file_of_another_network_is_refused(tmp_path):
    pytest.importorskip("lpips", reason='needs lpips; pip install "tcvq-vqvae[perceptual]"')
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 5, 5)}, other)
    with pytest.raises(
        ArtifactError, match=r"features\.0\.weight is shape \(64, 3, 5, 5\), VGG16 has shape \(64, 3, 3, 3\)"
    ):
        Perceptual(other, hashlib.sha256(other.read_bytes()).hexdigest())


def test_missing_package_is_named_with_the_way_to_get_it(vgg, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "tcvq-vqvae\[perceptual\]"'):
        Perceptual(*vgg)


@pytest.mark.parametrize(
    ("changes", "seen"), [({}, "1 channels of 8"), ({"in_channels": 2, "image_size": 16}, "2 channels of 16")]
)
def test_images_that_lpips_cannot_compare_are_refused(make_config, changes, seen):
    loss = LossConfig(perceptual_weight=1.0, perceptual_weights="vgg16.pth", disc_weight=0.0)
    with pytest.raises(ValueError, match=f"at least 16 pixels, not {seen}"):
        LitVQVAE(make_config(**{"attn_resolutions": (), **changes}), loss, Stage1Config())
