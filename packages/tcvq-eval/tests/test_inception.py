"""FID, KID and IS through Inception equal the libraries', offline, with random weights; its files are checked."""

import socket

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

from tcvq_eval import (
    FeatureExtractor,
    InceptionFeatures,
    MissingWeightsError,
    extract_features,
    measure,
    open_source,
)
from tcvq_eval.inception import resize_for_inception, to_uint8
from tcvq_eval.pretrained import file_sha256, read_weights

N = 6  # images per set, since Inception at 299 pixels takes its time


@pytest.fixture
def no_network(monkeypatch):
    """Fail whoever opens a connection."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def extractor(random_inception):
    return InceptionFeatures(random_inception, sha256=file_sha256(random_inception))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Write two folders of coloured PNG files whose smooth colours differ."""
    root, generator = tmp_path_factory.mktemp("pictures"), torch.Generator().manual_seed(1)
    for name, offset in (("real", 0.0), ("fake", 0.3)):
        (root / name).mkdir()
        for i in range(N):
            smooth = interpolate(torch.randn(1, 3, 5, 5, generator=generator) + offset, (40, 40), mode="bicubic")
            pixels = ((smooth[0].clamp(-2, 2) + 2) * 63.75).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(root / name / f"{i:03}.png")
    return root / "real", root / "fake"


@pytest.mark.slow
def test_fid_kid_and_is_equal_those_of_torch_fidelity(folders, extractor, random_inception, no_network):
    import torch_fidelity

    expected = torch_fidelity.calculate_metrics(
        input1=str(folders[1]),
        input2=str(folders[0]),
        feature_extractor_weights_path=str(random_inception),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        isc_splits=3,
        kid_subset_size=N,
        kid_subsets=2,
        verbose=False,
        save_cpu_ram=True,  # no worker processes
    )
    fake, real = (extract_features(open_source(folder), extractor) for folder in (folders[1], folders[0]))
    ours = {m.name: m for m in measure(real, fake, ("fd", "kid", "is"), resamples=0)}
    name = "inception-v3-2015-12-05"
    assert ours["fid"].value == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert ours["kid"].value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    assert ours["is"].value == pytest.approx(expected["inception_score_mean"], rel=1e-3)
    assert "cannot fill 2048" in ours["fid"].note
    assert ours["fid"].fingerprint.extractor == name
    assert ours["fid"].fingerprint.resize == "tf1 bilinear to 299 x 299"


@pytest.mark.slow
def test_torchmetrics_gives_the_same_features_as_its_default_resize(folders, extractor, random_inception, monkeypatch):
    from torchmetrics.image.fid import NoTrainInceptionV3

    image = next(open_source(folders[0]).batches(1))
    peer = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(random_inception), antialias=True)
    monkeypatch.setattr(extractor, "how", "antialias")
    torch.testing.assert_close(extractor(image), peer(to_uint8(image)), rtol=1e-4, atol=1e-5)


def test_each_resize_is_its_librarys_on_real_files(folders):
    pytest.importorskip("torch_fidelity", reason="the way of TensorFlow 1 is taken from it: install the extra")
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as tf1

    picture = ((next(open_source(folders[0]).batches(1)) + 1) * 127.5).round().byte()
    x = picture.float()
    torch_fidelity = (tf1(x, size=(299, 299), align_corners=False) - 128) / 128
    pytorch_fid = 2 * interpolate(x / 255, size=(299, 299), mode="bilinear", align_corners=False) - 1
    torchmetrics = (interpolate(x, size=(299, 299), mode="bilinear", align_corners=False, antialias=True) - 128) / 128
    for how, expected in (("tf1", torch_fidelity), ("halfpixel", pytorch_fid), ("antialias", torchmetrics)):
        assert torch.equal(resize_for_inception(picture, how), expected)
    assert (torch_fidelity - torchmetrics).abs().max() > 0.05  # so that a FID must say which one it is


def test_grey_pictures_become_three_equal_channels():
    pytest.importorskip("torch_fidelity", reason="install the extra tcvq-eval[fidelity]")
    grey = torch.randint(0, 256, (2, 1, 28, 28)).byte()
    assert torch.equal(resize_for_inception(grey, "tf1"), resize_for_inception(grey.expand(-1, 3, -1, -1), "tf1"))
    with pytest.raises(ValueError, match="1 or 3"):
        resize_for_inception(grey.expand(-1, 2, -1, -1), "tf1")


@pytest.mark.slow
def test_it_stays_in_eval_inside_a_parent_that_trains(extractor, pictures):
    assert isinstance(extractor, FeatureExtractor)
    before = extractor(pictures(1))
    assert not any(module.training for module in nn.Sequential(extractor).train()[0].modules())
    assert not before.requires_grad
    assert before.shape == (1, extractor.num_features)


def test_missing_weights_say_how_to_get_them_and_touch_no_network(monkeypatch, tmp_path, no_network):
    monkeypatch.setenv("TCVQ_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"inception are not at .*tcvq weights download inception"):
        InceptionFeatures()
    with pytest.raises(MissingWeightsError, match=r"other\.pth"):
        InceptionFeatures(tmp_path / "other.pth")


def test_other_weights_than_the_published_ones_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="not the 6726825d0af5"):
        read_weights(path, "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2")


def test_a_file_that_would_run_code_is_not_read(tmp_path):
    path = tmp_path / "evil.pth"

    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"a": Evil()}, path)
    with pytest.raises(ValueError, match="is not a file of weights"):
        read_weights(path, file_sha256(path))
