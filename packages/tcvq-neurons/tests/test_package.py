"""What the package promises as a whole: modules, options, coding, merging time, versions."""

import copy
import dataclasses
import json
import subprocess
import sys
import typing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tcvq_neurons
from tcvq_neurons import (
    LAUNCHES,
    LIF,
    LIFConfig,
    LIFGate,
    Neuron,
    QuadraticGate,
    SpikeDecoder,
    SpikeEncoder,
    Surrogate,
    lif,
    lif_gate,
    merge_time,
)
from tcvq_neurons.config import LIFOptions
from tcvq_neurons.testing import check_neuron


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize("neuron", [LIF, LIFGate])
def test_modules_pass_the_conformance_kit(neuron, backend):
    check_neuron(neuron(backend=backend))
    check_neuron(neuron(LIFConfig(reset="soft", tau=1.7), detach_reset=False, backend=backend))


class Leaky(torch.nn.Module):
    """A neuron that forgets to reset: the mistake that the kit must find."""

    def __init__(self):
        super().__init__()
        self.v = None

    def forward(self, x_seq):
        out = lif(x_seq, self.v if self.v is not None and self.v.shape == x_seq.shape[1:] else None)
        self.v = out.v.detach()
        return out.s_seq


class Acausal(torch.nn.Module):
    def forward(self, x_seq):
        return lif(x_seq.flip(0)).s_seq.flip(0)


class Widening(torch.nn.Module):
    def forward(self, x_seq):
        return lif(x_seq).s_seq.float()


@pytest.mark.parametrize(
    ("broken", "promise"), [(Leaky, "rest"), (Acausal, "outputs before step"), (Widening, "dtype")]
)
def test_conformance_kit_finds_broken_neurons(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_neuron(broken())


def test_modules_equal_the_functions_and_satisfy_the_protocols():
    x = torch.randn(4, 2, 3)
    assert torch.equal(LIF(tau=1.7)(x), lif(x, tau=1.7).s_seq)
    assert torch.equal(LIFGate()(x), lif_gate(x).s_seq)
    assert torch.equal(lif_gate(x).s_seq, x * lif(x).s_seq)
    assert isinstance(LIF(), Neuron)
    assert isinstance(QuadraticGate(), Surrogate)


def test_modules_have_no_state():
    net = LIFGate()
    net(torch.randn(4, 2))
    assert not net.state_dict()
    assert not list(net.parameters())
    assert "tau=2.0" in repr(net)


def test_options_are_the_fields_of_the_config():
    fields = {field.name: field.type for field in dataclasses.fields(LIFConfig)}
    tensors = {name: fields[name] | torch.Tensor for name in ("tau", "v_threshold")}
    assert typing.get_type_hints(LIFOptions) == fields | tensors
    assert LIF(LIFConfig(tau=3.0), reset="soft").config == LIFConfig(tau=3.0, reset="soft")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"tau": 0.5}, "lif.tau is 0.5"),
        ({"tau": float("nan")}, "lif.tau is nan"),
        ({"v_threshold": 0.0}, "lif.v_threshold is 0.0"),
    ],
)
def test_constants_without_meaning_are_refused_by_name(options, word):
    with pytest.raises(ValueError, match=word):
        LIF(**options)


def test_surrogate_without_meaning_is_refused():
    with pytest.raises(ValueError, match="alpha is -1"):
        QuadraticGate(-1.0)


MISTAKES = {
    "v0's shape": "lif(torch.zeros(4, 2), torch.zeros(3))",
    "v0's device": "lif(torch.zeros(4, 2), torch.zeros(2, device='meta'))",
    "no steps": "LIF()(torch.zeros(0, 2))",
    "integers": "LIF()(torch.zeros(4, 2, dtype=torch.int64))",
    "option": "LIF(taw=2.0)",
    "reset": "LIF(reset='half')",
    "surrogate": "LIF(surrogate='atan')",
    "backend": "lif(torch.zeros(4, 2), backend='cuda')",
    "default": "set_default_backend('cuda')",
    "encoder": "SpikeEncoder('rate')",
    "decoder": "SpikeDecoder('median')",
    "image": "SpikeEncoder('direct')(torch.zeros(4, 2))",
    "frames": "SpikeEncoder('event', n_steps=5)(torch.zeros(4, 2, 2, 3, 3))",
    "steps": "SpikeEncoder(n_steps=0)",
}
SCRIPT = """
import json, sys
import torch, tcvq_neurons
from tcvq_neurons import *
said = {"modules": sorted({"numba", "lightning", "torchvision"} & set(sys.modules))}
for name, code in json.loads(sys.argv[1]).items():
    try:
        eval(code)
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    """What a plain interpreter, without the run-time shape checks of these tests, says to each mistake."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(MISTAKES)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_import_pulls_in_nothing_heavy(said):
    assert said["modules"] == []


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("v0's shape", "ValueError: v0 has shape (3,); one step of x_seq has (2,)"),
        ("v0's device", "ValueError: v0 is on meta and x_seq on cpu"),
        ("no steps", "ValueError: x_seq has shape (0, 2); axis 0 is time and needs at least one step"),
        ("integers", "TypeError: x_seq has dtype torch.int64"),
        ("option", "unexpected keyword argument 'taw'"),
        ("reset", "ValueError: lif.reset is 'half'; known resets are hard, soft, none"),
        ("surrogate", "TypeError: lif.surrogate is 'atan'; pass an object"),
        ("backend", "ValueError: backend is 'cuda'; known backends are auto, reference, torch, numba"),
        ("default", "ValueError: backend is 'cuda'; known backends are"),
        ("encoder", "ValueError: SpikeEncoder.mode is 'rate'; known modes are direct, event"),
        ("decoder", "known modes are mean, sum_sigmoid, mean_sigmoid, last, event"),
        ("image", "ValueError: SpikeEncoder('direct') got shape (4, 2); it takes images"),
        ("frames", "ValueError: SpikeEncoder('event') got shape (4, 2, 2, 3, 3); it takes (5, B, C, H, W)"),
        ("steps", "ValueError: SpikeEncoder.n_steps is 0"),
    ],
)
def test_mistakes_are_answered_with_what_where_and_the_next_step(said, mistake, message):
    assert message in said[mistake]


def test_direct_encoder_gives_the_image_to_every_step_without_a_copy():
    x = torch.rand(2, 1, 3, 3)
    x_seq = SpikeEncoder("direct", n_steps=4)(x)
    assert x_seq.shape == (4, 2, 1, 3, 3)
    assert x_seq.data_ptr() == x.data_ptr()
    assert all(torch.equal(step, x) for step in x_seq)


def test_event_encoder_passes_frames_through():
    x = torch.rand(4, 2, 2, 3, 3)
    assert SpikeEncoder("event", n_steps=4)(x) is x


def test_decoders_on_two_steps():
    y = torch.stack([torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)])
    sigmoid = lambda value: torch.tensor(value).sigmoid().item()  # noqa: E731
    expected = {"mean": 1.0, "sum_sigmoid": sigmoid(2.0), "mean_sigmoid": sigmoid(1.0), "last": 2.0}
    assert {mode: SpikeDecoder(mode)(y).item() for mode in expected} == expected
    assert SpikeDecoder("event")(y) is y


@settings(deadline=None, max_examples=20)
@given(n_steps=st.integers(1, 4), n_batch=st.integers(0, 3), last=st.booleans())
def test_merged_time_equals_a_loop_over_steps(n_steps, n_batch, last):
    conv = torch.nn.Conv2d(2, 3, 3, padding=1).double()
    x = torch.randn(n_steps * n_batch, 2, 4, 4, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    y = merge_time(conv, x.view(n_steps, n_batch, 2, 4, 4))
    expected = torch.stack([conv(step) for step in x.view(n_steps, n_batch, 2, 4, 4)])
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_merged_time_keeps_channels_last_without_copies():
    x = torch.randn(8, 4, 5, 5).to(memory_format=torch.channels_last).view(2, 4, 4, 5, 5)
    seen = []
    y = merge_time(lambda z: seen.append(z) or z, x)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert seen[0].data_ptr() == x.data_ptr()
    assert y.data_ptr() == x.data_ptr()
    assert y.stride() == x.stride()


def test_constant_sequence_is_computed_once_and_has_the_gradient_of_all_steps():
    shapes = []
    linear = torch.nn.Linear(3, 2)
    image = torch.randn(5, 3, requires_grad=True)
    y = merge_time(lambda z: shapes.append(z.shape) or linear(z), image.expand(4, 5, 3))
    assert shapes == [(5, 3)]
    assert y.shape == (4, 5, 2)
    assert torch.equal(y, linear(image).expand(4, 5, 2))
    y.sum().backward()
    torch.testing.assert_close(image.grad, 4 * linear.weight.sum(0).expand(5, 3))


def test_version_starts_with_the_interface_version():
    assert tcvq_neurons.__version__.startswith(tcvq_neurons.INTERFACE_VERSION + ".")


def test_copies_of_a_network_share_nothing():
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), LIF())
    before = sum(LAUNCHES.values())
    copy.deepcopy(net)(torch.randn(4, 2, 3))
    assert sum(LAUNCHES.values()) == before + 1
