"""The shipped classifier: pinned, unmoved, and better than chance on shapes it was made for."""

import json
import subprocess
import sys
from importlib import resources

import pytest
import torch
from safetensors import safe_open
from torch import nn

from tcvq_eval import FashionFeatures, FeatureExtractor, features
from tcvq_eval.testing import check_feature_extractor


@pytest.fixture(scope="module")
def extractor():
    return FashionFeatures()


def weights_file():
    return resources.files("tcvq_eval") / "weights" / features.WEIGHTS_FILE


def test_the_extractor_keeps_its_contract(extractor, pictures):
    assert isinstance(extractor, FeatureExtractor)
    check_feature_extractor(extractor, pictures(5))


def test_streaming_equals_one_batch(extractor, pictures):
    x = pictures(300)  # more than one internal batch
    parts = torch.cat([extractor(part) for part in x.split(37)])
    torch.testing.assert_close(extractor(x), parts)


def test_it_stays_in_eval_inside_a_parent_that_trains(extractor):
    parent = nn.Sequential(extractor).train()
    assert parent.training
    assert not any(module.training for module in extractor.modules())


def test_no_weight_asks_for_a_gradient(extractor):
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_the_features_are_float32_even_under_autocast(extractor, pictures):
    x = pictures(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor(x), extractor(x.clone()))
        inside = extractor(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, extractor(x))


def test_predictions_are_the_largest_logits(extractor, pictures):
    x = pictures(6)
    assert torch.equal(extractor.predict(x), extractor.logits(x).argmax(1))
    assert extractor.logits(x).shape == (6, extractor.n_classes)


def test_drawn_trousers_and_bags_are_recognised(extractor):
    trousers, bag = (-torch.ones(2, 1, 1, 28, 28)).unbind()
    trousers[..., 1:27, 8:13] = 0.6
    trousers[..., 1:27, 15:20] = 0.6
    trousers[..., 1:6, 8:20] = 0.6
    bag[..., 10:26, 2:26] = 0.5
    bag[..., 4:10, 8:9] = bag[..., 4:10, 19:20] = bag[..., 4:5, 8:20] = 0.5
    assert extractor.predict(torch.cat([trousers, bag])).tolist() == [1, 8]


def test_the_weights_file_states_its_accuracy_and_is_small(extractor):
    with resources.as_file(weights_file()) as path:
        assert path.stat().st_size < 1_000_000
        with safe_open(path, "pt") as file:
            meta = json.loads(file.metadata()["meta"])
    assert meta["name"] == extractor.name
    assert meta["accuracy"] >= 0.91
    assert (meta["n_train"], meta["n_test"]) == (60_000, 10_000)


def test_damaged_weights_are_refused_with_a_clear_sentence(tmp_path, monkeypatch):
    data = bytearray(weights_file().read_bytes())
    data[-1] ^= 1
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / features.WEIGHTS_FILE).write_bytes(data)
    monkeypatch.setattr(features.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"weights of fashion-cnn/1 in .* are damaged: sha256 .* reinstall tcvq-eval"):
        FashionFeatures()


def test_missing_weights_are_refused_with_a_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(features.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"are missing from .* reinstall tcvq-eval"):
        FashionFeatures()


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 28, 28)])
def test_images_of_another_shape_are_refused(extractor, shape):
    with pytest.raises(ValueError, match=r"it needs \(N, 1, 28, 28\)"):
        extractor(torch.zeros(shape))


@pytest.mark.parametrize("pixel", [1.5, float("nan")])
def test_pixels_outside_the_range_are_refused(extractor, pixel):
    x = torch.zeros(2, 1, 28, 28)
    x[1, 0, 3, 3] = pixel
    with pytest.raises(ValueError, match=r"finite values in \[-1, 1\]"):
        extractor(x)


def test_the_kit_catches_an_extractor_whose_batch_norm_moves(pictures):
    class Moving(nn.Module):
        name, num_features = "moving", 4

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.BatchNorm1d(4))

        @torch.no_grad()
        def forward(self, images):
            return self.body(images)

    with pytest.raises(AssertionError, match="override train"):
        check_feature_extractor(Moving().eval(), pictures(4))


def test_the_kit_catches_a_gradient(pictures):
    class Grad(nn.Linear):
        name, num_features = "grad", 4

        def forward(self, images):
            return super().forward(images.flatten(1))

    with pytest.raises(AssertionError, match="gradient"):
        check_feature_extractor(Grad(784, 4), pictures(4))


def test_importing_the_package_loads_neither_matplotlib_nor_torchmetrics():
    code = "import sys, tcvq_eval; print(sorted({'matplotlib', 'torchmetrics', 'scipy'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
