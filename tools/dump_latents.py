"""Write the latents of a trained run, what its codebook quantizes, to a file for `benchmarks/variants.py` and others.

    python tools/dump_latents.py RUN z.safetensors [--split train] [--limit 2000]

RUN is a folder that ``tcvq run`` made, or its ``vqvae.safetensors``. The file holds ``z`` (T, S, D, h, w), float32, for
the first S images of the split in their fixed order; its metadata names the VQ-VAE by its hash.
"""

import argparse
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from tcvq_data import DataOptions, open_dataset
from tcvq_vqvae import LoadedVQVAE, load_vqvae

BATCH = 200


@torch.no_grad()
def latents(loaded: LoadedVQVAE, split: str, limit: int | None) -> Float[Tensor, "T S D h w"]:
    """Encode the images that the VQ-VAE was trained on."""
    source = open_dataset(str(loaded.meta["dataset"]), split, DataOptions(limit=limit))
    images = [source[i].image for i in range(len(source))]
    time_first = images[0].ndim == 4  # event frames (T, C, H, W) stack behind their time axis
    parts = [
        loaded.model.latents(torch.stack(images[start : start + BATCH], dim=1 if time_first else 0))
        for start in range(0, len(images), BATCH)
    ]
    return torch.cat(parts, dim=1)


def main() -> None:
    """Encode and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder, or a vqvae.safetensors")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--limit", type=int, help="number of images; all by default")
    args = parser.parse_args()
    loaded = load_vqvae(args.run / "vqvae.safetensors" if args.run.is_dir() else args.run)
    z = latents(loaded, args.split, args.limit)
    save_file({"z": z.contiguous()}, args.out, metadata={"vqvae_sha256": loaded.sha256, "split": args.split})
    print(f"{args.out}: {z.shape[1]} images, latents (T, S, D, h, w) = {tuple(z.shape)}")


if __name__ == "__main__":
    main()
