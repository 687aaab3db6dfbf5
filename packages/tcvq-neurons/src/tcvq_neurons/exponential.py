"""One exponential for every backend: the same float32 roundings in torch, in C and in numba.

torch's vectorised exp, libm's and CUDA's differ by units in the last place. This one is made of sums, products and bit
shifts only, so it gives the same bits everywhere: ``z = n ln 2 + r`` with ``|r| <= ln 2 / 2`` (Cody and Waite, with
``ln 2`` split in two), the Taylor polynomial of degree 7 in ``r`` (its remainder ``r^8 / 8!`` is below half a unit in
the last place), and the exponent bits of ``2^n``. Its numba form is in `tcvq_neurons.backends.numba_kernels`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LOG2_E = 1.44269502
ROUND = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the sum
LN2_HIGH = 0.693359375  # 355 / 512: its product with n is exact
LN2_LOW = -2.12194442e-4
TAYLOR = (1.98412701e-4, 1.38888892e-3, 8.33333377e-3, 4.16666679e-2, 0.166666672, 0.5, 1.0, 1.0)  # 1 / 7! ... 1 / 0!
LOWEST = -87.0  # exp of anything lower is 0: it would not be a normal float32 any more

C_HELPERS = """
__device__ __forceinline__ float tcvq_exp(float z) {
    float t = z * 1.44269502f + 12582912.0f;
    float n = t - 12582912.0f;
    float r = (z - n * 0.693359375f) - n * -2.12194442e-4f;
    float p = 1.98412701e-4f * r + 1.38888892e-3f;
    p = p * r + 8.33333377e-3f;
    p = p * r + 4.16666679e-2f;
    p = p * r + 0.166666672f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    float power = __int_as_float((int)(((unsigned)__float_as_int(t) + 127u) << 23));
    return z < -87.0f ? 0.0f : p * power;
}
"""
"""CUDA C functions that a surrogate's ``c_expression`` may call besides ``fabsf``."""


def exp_negative(z: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Return ``exp(z)`` for ``z <= 0``, the same bits on every backend for float32; NaN stays NaN.

    Args:
        z: Exponent; of any other dtype than float32 it goes to `torch.exp`.
    """
    if z.dtype != torch.float32:
        return z.exp()
    t = z * LOG2_E + ROUND
    n = t - ROUND
    r = (z - n * LN2_HIGH) - n * LN2_LOW
    p = torch.full_like(r, TAYLOR[0])
    for coefficient in TAYLOR[1:]:
        p = p * r + coefficient
    power = ((t.view(torch.int32) + 127) << 23).view(torch.float32)
    return torch.where(z < LOWEST, 0.0, p * power)
