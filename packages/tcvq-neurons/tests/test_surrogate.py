"""The surrogates: on paper, against finite differences, and the same bits from torch, C and numba."""

import ctypes
import math
import shutil
import subprocess
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from tcvq_neurons.exponential import C_HELPERS, exp_negative
from tcvq_neurons.interface import CompiledSurrogate, Surrogate
from tcvq_neurons.surrogate import (
    SURROGATES,
    ATan,
    QuadraticGate,
    Rectangle,
    Sigmoid,
    SuperSpike,
    Triangle,
    build_surrogate,
    register_surrogate,
)

BUILT_IN = (QuadraticGate, ATan, Sigmoid, Triangle, Rectangle, SuperSpike)
EXAMPLES = [cls() for cls in BUILT_IN] + [
    QuadraticGate(1.7),
    ATan(0.3),
    Sigmoid(1.1),
    Triangle(0.7, 0.3),
    Rectangle(0.6),
    SuperSpike(3.3),
]
INF, NAN = float("inf"), float("nan")


def value(surrogate, u):
    return surrogate(torch.tensor(u, dtype=torch.float64)).item()


def test_values_on_paper():
    assert value(QuadraticGate(2.0), 0.25) == 1.0  # 2 - 4 / 4
    assert value(QuadraticGate(2.0), -0.75) == 0.0
    assert value(ATan(2.0), 0.0) == 1.0
    assert value(ATan(2.0), 1 / math.pi) == pytest.approx(0.5)  # 1 / (1 + 1^2)
    assert value(Sigmoid(4.0), 0.0) == 1.0  # alpha / 4
    assert value(Sigmoid(1.0), math.log(3)) == pytest.approx(3 / 16)  # 3/4 * 1/4
    assert value(Triangle(0.3, 2.0), -1.0) == pytest.approx(0.15)
    assert value(Rectangle(2.0), 0.9) == 0.5
    assert value(Rectangle(2.0), 1.0) == 0.0
    assert value(SuperSpike(10.0), -0.1) == 0.25  # 1 / 2^2


@pytest.mark.parametrize("surrogate", EXAMPLES, ids=repr)
def test_derivative_is_that_of_the_primitive(surrogate):
    u, eps = torch.linspace(-1, 1, 402, dtype=torch.float64), 1e-6  # no point on an edge
    slope = (surrogate.primitive(u + eps) - surrogate.primitive(u - eps)) / (2 * eps)
    torch.testing.assert_close(surrogate(u), slope, rtol=0, atol=1e-4 * value(surrogate, 0.0))
    assert torch.equal(surrogate(-u), surrogate(u))


@pytest.mark.parametrize("surrogate", EXAMPLES, ids=repr)
def test_integral_is_the_height_of_the_primitive(surrogate):
    heights = {Triangle: lambda s: s.gamma * s.width, SuperSpike: lambda s: 2 / s.beta}
    height = heights.get(type(surrogate), lambda s: 1.0)(surrogate)
    low, high = surrogate.primitive(torch.tensor([-1e9, 1e9], dtype=torch.float64))
    assert (high - low).item() == pytest.approx(height)
    u = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    low, high = surrogate.primitive(u[[0, -1]])
    assert torch.trapezoid(surrogate(u), u).item() == pytest.approx((high - low).item(), rel=2e-4)


@pytest.mark.parametrize("surrogate", EXAMPLES, ids=repr)
def test_nan_stays_nan_and_far_away_the_derivative_is_small(surrogate):
    for dtype in (torch.float32, torch.float64):
        at_nan, *far = surrogate(torch.tensor([NAN, 1e30, -1e30, INF, -INF], dtype=dtype)).tolist()
        assert math.isnan(at_nan)
        assert max(far) < 1e-30


def special_values(surrogate):
    """Every hard case for float32: signed zeros, edges and their neighbours, denormals, infinities, random bits."""
    edges = np.float32(
        [1, *surrogate.constants(), *(1 / np.float64(surrogate.constants())), 87 / surrogate.constants()[0]]
    )
    edges = np.concatenate([edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(INF))])
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 1 << 16, dtype=np.uint32).view(np.float32)
    rest = np.float32([0, 1e-45, 1e-38, 3e38, INF, NAN])
    return np.concatenate([edges, rest, -edges, -rest, bits, rng.standard_normal(1 << 16, dtype=np.float32)])


def assert_same_bits(actual, expected):
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(actual), nan)
    assert np.array_equal(actual[~nan].view(np.uint32), expected[~nan].view(np.uint32))


def kernel_constants(surrogate):
    return tuple(map(np.float32, (*surrogate.constants(), 0, 0)))[:3]


C_FILE = """
#include <math.h>
#include <string.h>
#define __device__
#define __forceinline__ inline
static int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
static float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
"""
C_LOOP = """
extern "C" void %s(const float *us, float *out, long n, float k0, float k1, float k2) {
    for (long i = 0; i < n; i++) { float u = us[i]; out[i] = %s; }
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The C expressions of all surrogates, compiled."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: install g++ to compare the C expressions")
    folder = tmp_path_factory.mktemp("surrogates")
    loops = [C_LOOP % (cls.__name__, cls.c_expression) for cls in BUILT_IN]
    (folder / "s.cpp").write_text(C_FILE + C_HELPERS + "".join(loops))
    command = [compiler, "-O2", "-ffp-contract=off", "-Wall", "-Wno-unused-function", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "s.cpp", "-o", "s.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "s.so"))


@pytest.mark.parametrize("surrogate", EXAMPLES, ids=repr)
def test_c_expression_gives_the_bits_of_torch(compiled, surrogate):
    u = special_values(surrogate)
    actual = np.empty_like(u)
    function = getattr(compiled, type(surrogate).__name__)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (u, actual)]
    function(*pointers, ctypes.c_long(u.size), *map(ctypes.c_float, kernel_constants(surrogate)))
    assert_same_bits(actual, surrogate(torch.from_numpy(u)).numpy())


@pytest.mark.parametrize("cls", BUILT_IN)
def test_numba_form_gives_the_bits_of_torch(numba_backend, cls):
    from numba import njit

    from tcvq_neurons.backends import numba_kernels

    slope = numba_kernels._slope

    @njit(error_model="numpy")
    def run(u, out, constants):
        for i in range(u.size):
            out[i] = slope(u[i], constants)

    for surrogate in (each for each in EXAMPLES if type(each) is cls):
        u = special_values(surrogate)
        actual = np.empty_like(u)
        run(u, actual, getattr(numba_kernels, cls.__name__)(*kernel_constants(surrogate)))
        assert_same_bits(actual, surrogate(torch.from_numpy(u)).numpy())


def test_portable_exponential_is_within_two_units_in_the_last_place():
    z = -torch.rand(1 << 18) * 87
    exact = z.double().exp()
    ulp = torch.from_numpy(np.spacing(exact.float().numpy())).double()
    assert ((exp_negative(z).double() - exact).abs() / ulp).max() < 2
    assert exp_negative(torch.tensor([0.0, -87.5, -INF])).tolist() == [1.0, 0.0, 0.0]
    assert exp_negative(torch.tensor(-87.0)).item() > torch.finfo(torch.float32).smallest_normal
    assert torch.equal(exp_negative(z.double()), exact)


def test_every_built_in_surrogate_can_be_compiled_and_named():
    assert {name: SURROGATES[name] for name in (cls.__name__ for cls in BUILT_IN)} == {c.__name__: c for c in BUILT_IN}
    for surrogate in EXAMPLES:
        assert isinstance(surrogate, Surrogate)
        assert isinstance(surrogate, CompiledSurrogate)
        assert len(surrogate.constants()) <= 3
    assert build_surrogate("Triangle", [0.5, 2.0]) == Triangle(gamma=0.5, width=2.0)
    assert build_surrogate("ATan", [3.0]) is build_surrogate("ATan", (3.0,))


@register_surrogate
@dataclass(frozen=True)
class Cosine:
    """A user's own."""

    width: float = 1.0
    title: ClassVar[str] = "not a field"

    def __call__(self, u):
        return torch.where(u.abs() > self.width, 0.0, 1 + torch.cos(math.pi / self.width * u))


def test_registered_class_is_rebuilt_from_its_name():
    assert build_surrogate("Cosine", [0.5]) == Cosine(0.5)
    assert register_surrogate(Cosine) is Cosine  # again, as a notebook does


class Flat:
    def __call__(self, u):
        return torch.ones_like(u)


def test_what_cannot_be_named_is_refused():
    class Plain(Flat): ...

    @dataclass
    class Thawed(Flat):
        width: float = 1.0

    @dataclass(frozen=True)
    class Worded(Flat):
        shape: str = "round"

    @dataclass(frozen=True)
    class Sigmoid(Flat):
        alpha: float = 1.0

    for cls in (Plain, Thawed):
        with pytest.raises(TypeError, match=rf"{cls.__name__} is no frozen dataclass; put @dataclass\(frozen=True\)"):
            register_surrogate(cls)
    with pytest.raises(TypeError, match=r"Worded\.shape"):
        register_surrogate(Worded)
    with pytest.raises(ValueError, match=r"Sigmoid is registered already, by tcvq_neurons\.surrogate"):
        register_surrogate(Sigmoid)
    assert not {"Plain", "Thawed", "Worded"} & set(SURROGATES)
    with pytest.raises(ValueError, match="surrogate is 'Step'; registered are QuadraticGate, ATan"):
        build_surrogate("Step", [])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ATan(0.0), r"ATan\.alpha is 0"),
        (lambda: Triangle(width=-1.0), r"Triangle\.width is -1"),
        (lambda: Triangle(gamma=NAN), r"Triangle\.gamma is nan"),
        (lambda: SuperSpike(INF), r"SuperSpike\.beta is inf"),
    ],
)
def test_constants_without_meaning_are_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()
