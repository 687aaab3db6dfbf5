"""Spiking autoregressive prior over grids of code indices, with exact constant-memory sampling."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from tcvq_prior.attention import attend
from tcvq_prior.cache import AttentionCache
from tcvq_prior.checkpoint import LoadedPrior, load_prior, save_prior
from tcvq_prior.choosing import Choice, filter_logits
from tcvq_prior.config import PriorConfig
from tcvq_prior.interface import INTERFACE_VERSION, Cache, CacheChoice, CacheKind, CodePrior
from tcvq_prior.memory import fitting_micro_batch
from tcvq_prior.reference import from_reference
from tcvq_prior.sampling import Drawn, Growing, draw_grids, sample_grids
from tcvq_prior.scoring import score
from tcvq_prior.training import Stage2Config
from tcvq_prior.transformer import CodeTransformer, GPTPrior, SpikingPrior, build_prior

if TYPE_CHECKING:
    from tcvq_prior.lit import LitPrior

__version__ = version("tcvq-prior")

__all__ = [
    "INTERFACE_VERSION",
    "AttentionCache",
    "Cache",
    "CacheChoice",
    "CacheKind",
    "Choice",
    "CodePrior",
    "CodeTransformer",
    "Drawn",
    "GPTPrior",
    "Growing",
    "LitPrior",
    "LoadedPrior",
    "PriorConfig",
    "SpikingPrior",
    "Stage2Config",
    "attend",
    "build_prior",
    "draw_grids",
    "filter_logits",
    "fitting_micro_batch",
    "from_reference",
    "load_prior",
    "sample_grids",
    "save_prior",
    "score",
]


def __getattr__(name: str) -> object:
    """Import Lightning only when the training module is asked for."""
    if name == "LitPrior":
        from tcvq_prior.lit import LitPrior

        return LitPrior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
