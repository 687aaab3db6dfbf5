"""What a report says about samples: headline numbers beside their yardsticks, and the nearest training images."""

import torch
from jaxtyping import Float
from torch import Tensor

from .comparison import as_saved
from .fidelity import nearest
from .figures import event_strips, reconstruction_grid
from .report import Headline, Picture, Section
from .samples import ClassAgreement, Memorisation, SampleEvaluation

N_NEIGHBOURS, N_RECORDINGS = 16, 6


def sample_headlines(evaluation: SampleEvaluation) -> list[Headline]:
    """Return distance, precision, recall and class agreement, each with the value of real images beside it."""
    fidelity, codec = evaluation.fidelity, evaluation.codec
    floor = f"real against real {fidelity.fd_noise_floor:.2f}" + (f", codec {codec.fd:.2f}" if codec else "")
    overlap = [
        ("precision", fidelity.precision, fidelity.precision_ceiling),
        ("recall", fidelity.recall, fidelity.recall_ceiling),
    ]
    return [
        Headline(
            label=f"{fidelity.fingerprint['metric']}, n = {fidelity.n}",
            value=fidelity.fd,
            reference=floor,
            better="lower",
        ),
        *(
            Headline(label=label, value=value, reference=f"real against real {ceiling:.2f}", better="higher")
            for label, value, ceiling in overlap
        ),
        *_agreement_headline(evaluation.agreement),
    ]


def _agreement_headline(agreement: ClassAgreement | None) -> list[Headline]:
    """Return the class agreement as a headline, or nothing where it was not measured."""
    if agreement is None:
        return []
    reference = "" if agreement.real is None else f"real images {100 * agreement.real:.1f} %"
    value = 100 * agreement.overall
    return [Headline(label="class agreement", value=value, digits=1, unit="%", reference=reference, better="higher")]


def nearest_section(
    samples: Float[Tensor, "N *shape"], train: Float[Tensor, "M *shape"], memorisation: Memorisation | None = None
) -> Section:
    """Show samples from all over the set above their nearest training images, recordings step by step.

    Args:
        samples: Generated images, or recordings ``(N, T, 2, H, W)``, in [-1, 1].
        train: Training data in [-1, 1].
        memorisation: Distances to state under the picture.
    """
    shown, kind = (N_RECORDINGS, "recording") if samples.ndim == 5 else (N_NEIGHBOURS, "image")
    chosen = samples[:: max(1, len(samples) // shown)][:shown].clamp(-1, 1).to(train.device)
    twins = train[nearest(chosen, train.float())[1]]
    names = ("sample", "nearest")
    if samples.ndim == 5:
        pairs = torch.stack([chosen, twins], dim=1).flatten(0, 1)
        data = event_strips((pairs + 1) / 2, row_labels=names * len(chosen))
    else:
        data = reconstruction_grid(as_saved(chosen), twins, names=names, scale=3)
    picture = Picture(
        name="nearest",
        data=data,
        alt=f"Samples above their nearest training {kind}s",
        caption="" if memorisation is None else _memorisation_text(memorisation, kind),
    )
    text = f"Samples above, the training {kind} nearest in pixels below: a model that copies shows pairs of equals."
    return Section(title=f"Nearest training {kind}s", text=text, pictures=[picture])


def _memorisation_text(memory: Memorisation, kind: str) -> str:
    return (
        f"Median distance to the nearest of {memory.n_train:,} training {kind}s, as root-mean-square pixel difference: "
        f"samples {memory.sample_distance:.3f}, held-out {kind}s {memory.held_out_distance:.3f}. "
        f"Samples nearer than 99 % of held-out {kind}s: {100 * memory.copies:.1f} %."
    )
