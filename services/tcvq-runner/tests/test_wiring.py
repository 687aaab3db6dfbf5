"""From strings to objects: device, precision, seeds, batches, samples, and what doctor says about them."""

import pytest
import torch

from tcvq_data import ArtifactError, write_artifact
from tcvq_runner import wiring
from tcvq_runner.batching import in_batches
from tcvq_runner.cli import main
from tcvq_runner.doctor import diagnose
from tcvq_runner.recipe import ConfigError
from tcvq_runner.samples import SCHEMA, Samples, read_samples, write_samples
from tcvq_runner.wiring import Compute, has_bf16, open_compute, stage_seed

CPU = Compute(device=torch.device("cpu"), precision="32-true", threads=1)


@pytest.fixture(autouse=True)
def _keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_auto_takes_bf16_exactly_where_the_hardware_has_it(monkeypatch):
    for native, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(wiring, "has_bf16", lambda device, native=native: native)
        assert open_compute("cpu").precision == precision
    assert open_compute("cpu", "bf16").precision == "bf16-mixed"
    assert open_compute("cpu", "32").precision == "32-true"


def test_a_torch_that_cannot_tell_has_no_bf16(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not has_bf16(torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without CUDA")
def test_cuda_where_there_is_none_is_refused():
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        open_compute("cuda")


def test_threads_are_set_for_the_process():
    assert open_compute("cpu", threads=1).threads == torch.get_num_threads() == 1


def test_each_stage_and_each_seed_has_its_own_seed():
    assert len({stage_seed(seed, stage) for seed in range(10) for stage in ("stage1", "stage2", "sample")}) == 30
    assert stage_seed(0, "stage1") == stage_seed(0, "stage1")


def test_every_batch_has_the_same_shape_and_every_item_its_own_result():
    shapes, counted = [], []

    class Task:
        def update(self, done, values=None):
            counted.append(done)

    def double(x):
        shapes.append(tuple(x.shape))
        return 2 * x

    items = torch.arange(14.0).reshape(7, 2)
    assert torch.equal(in_batches(double, items, 3, CPU, task=Task(), done=10), 2 * items)
    assert shapes == [(3, 2)] * 3
    assert counted == [13, 16, 17]


def test_a_batch_larger_than_the_data_is_filled_up():
    assert torch.equal(in_batches(lambda x: x, torch.arange(2), 5, CPU), torch.arange(2))


def some_samples():
    return Samples(
        indices=torch.arange(8).reshape(2, 2, 2),
        images=torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1),
        labels=torch.tensor([1, 0]),
        classes=("a", "b"),
        vqvae_sha256="v",
        prior_sha256="p",
        settings={"seed": 0},
    )


def test_samples_come_back_as_they_were_written(tmp_path):
    samples = some_samples()
    write_samples(tmp_path / "s.safetensors", samples)
    read = read_samples(tmp_path / "s.safetensors")
    assert torch.equal(read.images, samples.images)
    assert torch.equal(read.indices, samples.indices)
    assert torch.equal(read.labels, samples.labels)
    assert (read.classes, read.vqvae_sha256, read.prior_sha256) == (("a", "b"), "v", "p")


def test_equal_samples_give_equal_files(tmp_path):
    assert write_samples(tmp_path / "a", some_samples()) == write_samples(tmp_path / "b", some_samples())


def test_a_samples_file_with_other_fields_is_refused(tmp_path):
    write_artifact(tmp_path / "s", {"images": torch.zeros(1)}, schema=SCHEMA)
    with pytest.raises(ArtifactError, match="sample again"):
        read_samples(tmp_path / "s")


def test_doctor_names_every_package_and_exactly_one_neuron_backend():
    findings = dict(diagnose(CPU))
    assert all("interface" in findings[name] for name in wiring.DISTRIBUTIONS if name != "tcvq-runner")
    chosen = [
        text for topic, text in findings.items() if topic.startswith("neurons:") and text.startswith("will be used")
    ]
    assert len(chosen) == 1
    assert findings["device"].startswith("cpu will be used")


def test_recipes_doctor_and_config_show_print_to_stdout(capsys):
    assert main(["recipes"]) == main(["doctor", "--threads", "1"]) == main(["config", "show", "debug", "seed=9"]) == 0
    out, err = capsys.readouterr()
    assert "fashion-mini" in out
    assert "threads             1 of" in out
    assert "seed: 9" in out
    assert not err
