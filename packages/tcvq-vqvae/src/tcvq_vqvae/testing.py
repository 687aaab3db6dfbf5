"""Conformance kit: what every `ImageTokenizer` must do."""

import torch
from jaxtyping import Float
from torch import Tensor

from tcvq_vqvae.interface import ImageTokenizer


def check_tokenizer(tokenizer: ImageTokenizer, x: Float[Tensor, "*batch C H W"]) -> None:
    """Check round trip, shapes and statelessness of a tokenizer in evaluation mode.

    Args:
        tokenizer: The implementation under test.
        x: A small batch of images that it accepts.

    Raises:
        AssertionError: Naming the first promise that does not hold.
    """
    with torch.no_grad():
        quantized = tokenizer.encode(x)
        x_hat = tokenizer.decode(quantized.z_q)
        assert x_hat.shape == x.shape, f"decode returned {tuple(x_hat.shape)} for images of {tuple(x.shape)}"
        assert torch.equal(tokenizer.decode_indices(quantized.indices), x_hat), "decode_indices differs from decode"
        assert torch.equal(tokenizer.encode(x).indices, quantized.indices), "a second encode gave other indices"
        one = x[:, :1] if x.dim() == 5 else x[:1]
        tokenizer.encode(one)
        assert torch.equal(tokenizer.encode(x).indices, quantized.indices), "another batch size changed the result"
