"""VGG16, DINOv2 and CLIP from files, with random weights; CMMD by hand; a sentence for every way a file is wrong."""

import math

import pytest
import torch
from safetensors.torch import save_file

from tcvq_eval import (
    FeatureSet,
    MissingWeightsError,
    TimmFeatures,
    VGGFeatures,
    clip_features,
    cmmd,
    dinov2_features,
    fit_gaussian,
    measure,
)
from tcvq_eval.pretrained import file_sha256
from tcvq_eval.testing import check_feature_extractor

SMALL, SIDE = "vit_small_patch14_dinov2", 56  # the same network as ViT-L/14, smaller


def test_cmmd_by_hand():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.5]])  # of length 1 they are sqrt(2) apart
    assert cmmd(a, b) == pytest.approx(1000 * 2 * (1 - math.exp(-2 / (2 * 10**2))))
    assert cmmd(a, 3 * a) == 0


def test_cmmd_in_chunks_is_that_of_all_pairs(generator):
    a, b = (torch.randn(n, 5, generator=generator) for n in (1500, 1100))
    x, y = (torch.nn.functional.normalize(each.double(), dim=1) for each in (a, b))
    means = [torch.exp(-torch.cdist(p, q).square() / 200).mean().item() for p, q in ((x, x), (y, y), (x, y))]
    assert cmmd(a, b) == pytest.approx(1000 * (means[0] + means[1] - 2 * means[2]), abs=1e-9)


def test_cmmd_is_a_measure_beside_its_noise_floor(generator):
    real, fake = torch.randn(200, 8, generator=generator), torch.randn(100, 8, generator=generator) + 2
    sets = [FeatureSet(name=n, n=len(x), gaussian=fit_gaussian(x), features=x) for n, x in (("r", real), ("f", fake))]
    (found,) = measure(*sets, ("cmmd",))
    assert found.value > 5 * found.noise_floor > 0
    assert (found.better, found.spread) == ("lower", None)


@pytest.fixture(scope="module")
def random_vit(tmp_path_factory):
    """Return a small network of timm with random weights, and its file."""
    timm = pytest.importorskip("timm", reason="needs timm: uv pip install 'tcvq-eval[backbones]'")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(SMALL, pretrained=False, img_size=SIDE).eval()
        for block in network.blocks:  # they start as almost nothing
            torch.nn.init.ones_(block.ls1.gamma)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def small(path, **options):
    return TimmFeatures(path, architecture=SMALL, side=SIDE, **options)


@pytest.mark.extra
def test_features_are_those_of_the_network_on_resized_and_scaled_images(random_vit, pictures):
    network, path = random_vit
    images = pictures(3)
    x = ((images + 1) * 127.5).round().expand(-1, 3, -1, -1)
    x = torch.nn.functional.interpolate(x, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((x - mean[:, None, None]) / std[:, None, None])
    space = small(path)
    assert torch.allclose(space(images), expected, atol=1e-5)
    assert space.weights_sha256 == file_sha256(path)
    assert space.resize == "antialiased bicubic to 56 x 56"
    check_feature_extractor(space, images)


@pytest.mark.extra
def test_the_authors_own_file_is_read_too(random_vit, pictures, tmp_path):
    network, path = random_vit
    theirs = network.state_dict() | {"mask_token": torch.zeros(1, 384)}  # which only their file has
    torch.save(theirs, tmp_path / "dinov2_vits14_pretrain.pth")
    images = pictures(2)
    assert torch.equal(small(tmp_path / "dinov2_vits14_pretrain.pth")(images), small(path)(images))


@pytest.mark.extra
def test_a_projection_follows_the_token_where_one_is_asked_for(random_vit, pictures, tmp_path):
    import timm

    network = timm.create_model(SMALL, pretrained=False, img_size=SIDE, num_classes=6)
    save_file(network.state_dict(), tmp_path / "projected.safetensors")
    space = small(tmp_path / "projected.safetensors", n_outputs=6)
    assert (space.num_features, space.layer) == (6, "projection")
    assert space(pictures(2)).shape == (2, 6)


@pytest.mark.extra
def test_a_wrong_file_is_refused_with_what_is_wrong(random_vit, tmp_path):
    _, path = random_vit
    with pytest.raises(ValueError, match="not the 00000000"):
        small(path, sha256="0" * 64)
    with pytest.raises(ValueError, match="does not hold vit_small_patch14_dinov2"):
        small(path, n_outputs=3)
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="does not hold"):
        small(tmp_path / "damaged.safetensors")


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(MissingWeightsError, match=r"vit_large_patch14_dinov2 needs its weights.*--weights FILE"):
        dinov2_features(None)
    with pytest.raises(MissingWeightsError, match=f"there is no file {tmp_path / 'clip.safetensors'}"):
        clip_features(tmp_path / "clip.safetensors")
    monkeypatch.setenv("TCVQ_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeightsError, match="tcvq weights download vgg16"):
        VGGFeatures()


@pytest.mark.slow
@pytest.mark.extra
def test_vgg_features_are_those_of_torch_fidelity(pictures, tmp_path):
    module = pytest.importorskip("torch_fidelity.feature_extractor_vgg16", reason="install tcvq-eval[fidelity]")
    import torchvision

    torch.save(torchvision.models.vgg16(weights=None).state_dict(), tmp_path / "vgg16.pth")
    theirs = module.FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=tmp_path / "vgg16.pth")
    images = pictures(2)
    pixels = ((images + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
    ours = VGGFeatures(tmp_path / "vgg16.pth", sha256=file_sha256(tmp_path / "vgg16.pth"))
    assert torch.equal(ours(images), theirs(pixels)[0])
    assert ours(images).shape == (2, 4096)
    with pytest.raises(ValueError, match="has sha256"):
        VGGFeatures(tmp_path / "vgg16.pth")
