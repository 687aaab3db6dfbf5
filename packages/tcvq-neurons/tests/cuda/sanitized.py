"""Run under the sanitizers' runtime by `test_sanitizers.py`: the launcher over kernels that check every access.

Argument: the library. Nothing is compared here; a wrong access ends the process, as the last one of all must.
"""

import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tcvq_neurons.config import LIFConfig

package = ModuleType("cuda_tests")
package.__path__ = [str(Path(__file__).parent)]
sys.modules["cuda_tests"] = package

from cuda_tests.conftest import OnDevice  # noqa: E402
from cuda_tests.fake_cupy import Machine  # noqa: E402
from cuda_tests.oracle import actual, inputs  # noqa: E402
from cuda_tests.shim import ONE_TOO_MANY, RuntimeLibrary  # noqa: E402

CASES = [
    *itertools.product((torch.float32, torch.float16, torch.bfloat16), (1, 4), (0, 1, 7, 8, 257)),
    *itertools.product((torch.float32,), (17,), (1, 8, 257)),
    (torch.float32, 4, 20_000),
]


def main(library):
    """Run every dtype and shape; sizes are exact, so that one element too many is seen."""
    kernel = OnDevice("cpu")
    with pytest.MonkeyPatch.context() as patch:
        Machine(RuntimeLibrary(Path(library))).install(patch)
        for (dtype, n_steps, n_site), gate, state in itertools.product(CASES, (True, False), (True, False)):
            given = inputs(n_steps, n_site, dtype=dtype, with_v0=state, with_grad_v=state)
            actual(kernel, given, LIFConfig(), gate=gate)
        x = inputs(8, 256).x
        for each in (x[::2], x[:1].expand(4, 256), x.view(-1)[1:1025].view(4, 256), x.as_strided((4, 256), (3, 1))):
            actual(kernel, inputs(4, 256)._replace(x=each), LIFConfig(), gate=True)
        on_16_bytes = torch.zeros(260)[4:]  # and not on 32
        actual(kernel, inputs(4, 256, dtype=torch.float16)._replace(v0=on_16_bytes), LIFConfig(), gate=True)
        kernel.trace(x[:4], None, LIFConfig(), gate=False, of="h")
    print("clean", flush=True)
    with pytest.MonkeyPatch.context() as patch:
        Machine(RuntimeLibrary(Path(library), ONE_TOO_MANY)).install(patch)
        kernel.forward(torch.zeros(1, 5), None, LIFConfig(), gate=False, need_v=False)
    print("not noticed")


if __name__ == "__main__":
    main(sys.argv[1])
