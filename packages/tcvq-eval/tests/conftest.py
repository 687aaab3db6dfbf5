"""Small random pictures for every test, the same in each run; an Inception of random weights where it is installed."""

import io

import pytest
import torch


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pictures(generator):
    """Return a function that makes n random 28 x 28 images of 8-bit levels in [-1, 1]."""

    def make(n):
        return torch.randint(0, 256, (n, 1, 28, 28), generator=generator) / 127.5 - 1

    return make


@pytest.fixture(scope="session")
def random_inception(tmp_path_factory):
    """Return a file of random Inception weights, seeded and scaled so that features neither vanish nor explode."""
    pytest.importorskip("torch_fidelity", reason="Inception needs the extra: nox -s 'tests(tcvq-eval)' installs it")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs):
            """Keep what the constructor drew."""

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.bias, std=0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path
