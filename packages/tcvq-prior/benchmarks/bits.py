"""Bits per code of the spiking prior, the softmax GPT and per-step priors, at equal parameters and equal time.

    python bits.py RUN --seconds 80 --threads 2
    python bits.py RUN --latents z_train.safetensors z_test.safetensors   # adds the per-step priors

RUN is a folder that ``tcvq run`` made. All models see the same grids in the same order, with the same stem, code
features, optimizer and schedule over time, each kind with the learning rates that were best for it of those tried
(``--rates 4e-3:0.04`` gives all the same: of AdamW, and of Muon for the matrices of the blocks); they train in turns of
a few steps within one process, so that what else runs on the machine disturbs all alike. ``--clock cpu`` counts
processor time per thread instead of the time on the wall, for machines that are shared. The latents come from
``tools/dump_latents.py``; a per-step (vanilla) codebook of as many codes is fitted to them by k-means, and its prior
has T times the tokens.
"""

import argparse
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_data import read_artifact, read_codes
from tcvq_prior import PriorConfig, Stage2Config, build_prior
from tcvq_prior.training import learning_rate_factor, parameter_groups

TURN = 4  # steps of a model before it is the next one's turn
SCHEDULE = Stage2Config(batch_size=64, optimizer="muon", schedule="cosine", warmup_steps=50, max_steps=1_000_000)
COMMON = {"n_layer": 3, "n_head": 2, "width": 128, "class_everywhere": True, "neighbourhood": 2}
NEAR = {"distance_weights": True, "surrogate_alpha": 1.4}
MODELS: dict[str, dict[str, object]] = {
    "spiking, 1 step": {"n_steps": 1},
    "spiking, 1 step, distances": {"n_steps": 1, **NEAR},
    "spiking, 2 steps": {"n_steps": 2},
    "spiking, 2 steps, distances": {"n_steps": 2, **NEAR},
    "spiking, 1 step, normalised, rotary": {"n_steps": 1, "attention_norm": "position", "rotary": True},
    "GPT": {"kind": "gpt"},
    "GPT, rotary": {"kind": "gpt", "rotary": True},
}
PER_STEP: dict[str, dict[str, object]] = {
    "per step, joint": {"per_step": "joint", "n_steps": 1, "neighbourhood": 1},  # and 9 sites of the step before
    "per step, independent": {"per_step": "independent", "n_steps": 1},
}


RATES = {"spiking": (8e-3, 0.04), "gpt": (4e-3, 0.04)}  # peak learning rates of AdamW and Muon


@dataclass(frozen=True, kw_only=True, slots=True)
class Grids:
    """Codes of both splits and a description of each code."""

    train: Int[Tensor, "S H W"]
    train_labels: Int[Tensor, " S"]
    test: Int[Tensor, "S H W"]
    test_labels: Int[Tensor, " S"]
    n_embed: int
    features: Float[Tensor, "K F"]
    n_code_steps: int = 1


def from_run(run: Path) -> Grids:
    """Read the codes of a run, and the entries of its codebook as features."""
    train, test = (read_codes(run / f"codes_{split}") for split in ("train", "test"))
    entries = read_artifact(run / "vqvae.safetensors", schema="tcvq.vqvae/1").tensors["codebook.codebook"]
    return Grids(
        train=train.indices,
        train_labels=train.labels,
        test=test.indices,
        test_labels=test.labels,
        n_embed=train.n_embed,
        features=entries.flatten(1),
    )


def per_step_codes(latents: list[Path], of: Grids) -> Grids:
    """Fit a codebook shared by all steps to the latents, and lay the grids of an image one below the other."""
    from safetensors.torch import load_file

    from tcvq_codebook import VanillaCodebook

    z_train, z_test = (load_file(path)["z"] for path in latents)
    codebook = VanillaCodebook(of.n_embed, z_train.shape[2], init="kmeans")
    codebook.initialize(z_train[:, :: max(1, z_train.shape[1] // 2000)])
    codebook.eval()
    indices = []
    for z in (z_train, z_test):
        steps = torch.cat([codebook.encode(part) for part in z.split(500, dim=1)], dim=1)  # (T, S, h, w)
        indices.append(steps.transpose(0, 1).flatten(1, 2))
    return Grids(
        train=indices[0],
        train_labels=of.train_labels[: len(indices[0])],
        test=indices[1],
        test_labels=of.test_labels[: len(indices[1])],
        n_embed=of.n_embed,
        features=codebook.codebook.detach(),
        n_code_steps=len(z_train),
    )


@dataclass(kw_only=True)
class Arm:
    """One model in training: ``spent`` of ``seconds`` are gone."""

    name: str
    config: PriorConfig
    grids: Grids
    seconds: float
    seed: int
    cpu: bool
    bf16: bool
    rates: tuple[float, float]
    spent: float = 0.0
    steps: int = 0
    recent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Build model and optimizers."""
        torch.manual_seed(self.seed)
        self.model = build_prior(self.config, self.grids.features)
        groups = parameter_groups(self.model, self.model.blocks)
        decay = SCHEDULE.weight_decay
        muon = torch.optim.Muon(groups.hidden, lr=self.rates[1], weight_decay=decay)
        others = [{"params": groups.linear, "weight_decay": decay}, {"params": groups.rest, "weight_decay": 0.0}]
        adamw = torch.optim.AdamW(others, lr=self.rates[0], betas=SCHEDULE.betas)
        self.optimizers = [muon, adamw]
        self.peaks = [(group, group["lr"]) for one in self.optimizers for group in one.param_groups]
        self.order = torch.Generator().manual_seed(self.seed)
        self.queue = torch.zeros(0, dtype=torch.long)

    def now(self) -> float:
        """Return the clock: the wall's, or that of the processor by thread."""
        return time.process_time() / torch.get_num_threads() if self.cpu else time.perf_counter()

    def step(self) -> None:
        """Train on the next batch; the learning rate falls with the time that is spent."""
        size = SCHEDULE.batch_size
        if len(self.queue) < size:
            self.queue = torch.randperm(len(self.grids.train), generator=self.order)
        rows, self.queue = self.queue[:size], self.queue[size:]
        begin = self.now()
        warm = learning_rate_factor(SCHEDULE, self.steps, SCHEDULE.max_steps or 1)
        factor = warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self.spent / self.seconds)))
        for group, peak in self.peaks:
            group["lr"] = peak * factor
        loss = self.loss(self.grids.train[rows], self.grids.train_labels[rows])
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), SCHEDULE.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.recent = [*self.recent[-49:], loss.item() / math.log(2)]
        self.spent += self.now() - begin
        self.steps += 1

    def loss(self, indices: Int[Tensor, "B H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        """Cross-entropy of every code given those before, in nats."""
        tokens = indices.flatten(1).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16 and self.model.training):
            logits = self.model(tokens[:, :-1], labels if self.config.n_classes else None)
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())

    @torch.no_grad()
    def validation(self, limit: int) -> float:
        """Bits per code of the first test grids, in float32."""
        self.model.eval()
        test, labels = self.grids.test[:limit], self.grids.test_labels[:limit]
        total = sum(self.loss(i, y).item() * len(i) for i, y in zip(test.split(100), labels.split(100), strict=True))
        self.model.train()
        return total / len(test) / math.log(2)


def arms(args: argparse.Namespace, seed: int) -> list[Arm]:
    """Build all models of one round."""
    codes = from_run(args.run)
    chosen = [(name, options, codes) for name, options in MODELS.items()]
    if args.latents:
        steps = per_step_codes(args.latents, codes)
        chosen += [(name, {**options, "n_code_steps": steps.n_code_steps}, steps) for name, options in PER_STEP.items()]
    kept = [(name, options, grids) for name, options, grids in chosen if not args.only or name in args.only]
    return [
        Arm(
            name=name,
            config=PriorConfig(
                **{**COMMON, **options},
                n_embed=grids.n_embed,
                n_classes=int(grids.train_labels.max()) + 1,
                grid=tuple(grids.train.shape[1:]),
                code_features=grids.features.shape[1],
            ),
            grids=grids,
            seconds=args.seconds,
            seed=seed,
            cpu=args.clock == "cpu",
            bf16=args.bf16,
            rates=args.rates or RATES[str(options.get("kind", "spiking"))],
        )
        for name, options, grids in kept
    ]


def rates(text: str) -> tuple[float, float]:
    """Read ``adamw:muon``."""
    adamw, muon = (float(part) for part in text.split(":"))
    return adamw, muon


def main() -> None:
    """Train in turns and print a row per model and seed as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--latents", type=Path, nargs=2, help="of both splits, from tools/dump_latents.py")
    parser.add_argument("--seconds", type=float, default=80.0, help="training time of each model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--rates", type=rates, metavar="ADAMW:MUON", help="peak learning rates of all models")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--only", nargs="+", choices=[*MODELS, *PER_STEP])
    parser.add_argument("--grids", type=int, default=2000, help="test grids of the validation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| model | seed | parameters | seconds | steps | ms/step | train | validation | bits/image |", flush=True)
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for seed in range(args.seeds):
        running = arms(args, seed)
        while running:
            for arm in list(running):
                for _ in range(TURN):
                    arm.step()
                if arm.spent >= arm.seconds:
                    running.remove(arm)
                    report(arm, arm.validation(args.grids))


def report(arm: Arm, bits: float) -> None:
    """Print one row."""
    parameters = sum(p.numel() for p in arm.model.parameters())
    train = sum(arm.recent) / len(arm.recent)
    print(
        f"| {arm.name} | {arm.seed} | {parameters:,} | {arm.spent:.0f} | {arm.steps} | "
        f"{1e3 * arm.spent / arm.steps:.0f} | {train:.3f} | {bits:.3f} | {bits * arm.config.n_tokens:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
