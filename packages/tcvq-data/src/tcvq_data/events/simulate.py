"""Simulated saccades: event recordings like N-MNIST's from any still image, with no camera and no download."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8

from tcvq_data.events.saccades import CORNERS, LEG_US
from tcvq_data.events.stream import EventStream

SIMULATED = "simulated saccades, not the N-MNIST recording"
SIMULATOR_VERSION = 1  # part of every cache key: raise it when the same image and seed give other events
_SIGN = np.array([-1.0, 1.0])  # OFF, ON
_N_LEGS = len(CORNERS) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SaccadeConfig:
    """Everything beside image and seed that determines a simulated recording.

    Attributes:
        margin: How many pixels the sensor is larger than the image, along both axes.
        blur: σ of the optics in pixels.
        offset: ε added to light in [0, 1] before the logarithm; the photoreceptor's dark level.
        threshold: Mean change of log light per event.
        threshold_std: Its spread over pixels and polarities.
        threshold_min: Its lower end.
        noise_hz: Events per pixel and second that no light causes.
        latency_us: Mean of the exponential delay of each event, in microseconds.
        steps_per_leg: Times per saccade at which light is computed; between them its logarithm is linear.
    """

    margin: int = 6  # 28 + 6 = 34, N-MNIST's sensor
    blur: float = 0.6
    offset: float = 0.2
    threshold: float = 0.3
    threshold_std: float = 0.03
    threshold_min: float = 0.05
    noise_hz: float = 1.0
    latency_us: float = 1000.0
    steps_per_leg: int = 30

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A value is out of range.
        """
        for name in ("blur", "offset", "threshold", "threshold_min", "steps_per_leg"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} of the simulated saccades must be positive")
        for name in ("margin", "threshold_std", "noise_hz", "latency_us"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} of the simulated saccades must not be negative")


def simulate_saccades(
    image: UInt8[np.ndarray, "H W"], *, seed: int | tuple[int, ...], config: SaccadeConfig | None = None
) -> EventStream:
    """Show a still image to a simulated event camera that makes N-MNIST's three saccades.

    The image is a grid of squares of constant light I in [0, 1] before black, blurred by the optics and moved along
    `CORNERS`, each leg with the bell-shaped speed of real saccades, s(u) = 10u³ - 15u⁴ + 6u⁵ (minimum jerk, Flash and
    Hogan 1985). Each pixel of the sensor holds a reference R of its log light L = ln(I + ε). Whenever L has moved from
    R by a threshold C, which differs per pixel and polarity, an event is sent and R moves by C. Noise and latency are
    added.

    Args:
        image: Grey values.
        seed: Any whole numbers that are not negative, such as (data set's seed, split's number, image's number), so
            that a recording depends on no other.
        config: Parameters; None takes the defaults, whose statistics are near `statistics.NMNIST_RECORDING`.

    Returns:
        Events sorted by time, from 0 to about 315 ms, on a sensor of (H + margin, W + margin).
    """
    config = config or SaccadeConfig()
    rng = np.random.default_rng(seed)
    rows, columns = (_optics(n, axis, config) for n, axis in ((image.shape[0], 1), (image.shape[1], 0)))
    light = rows @ (image / 255) @ columns.transpose(0, 2, 1)
    log_light = np.log(np.maximum(light, 0) + config.offset)
    height, width = light.shape[1:]
    spread = rng.normal(config.threshold, config.threshold_std, (2, height, width))
    fired = _crossings(log_light, np.maximum(spread, config.threshold_min), LEG_US / config.steps_per_leg)
    duration = _N_LEGS * LEG_US
    n_noise = rng.poisson(config.noise_hz * height * width * duration * 1e-6)
    noise = rng.random((4, n_noise)) * np.array([[width], [height], [duration], [2]])
    x, y, t, p = (np.concatenate([real, extra]) for real, extra in zip(fired, noise, strict=True))
    t = t + rng.exponential(config.latency_us, len(t))
    events = EventStream.from_arrays(*(a.astype(np.int64) for a in (x, y, t, p)), height=height, width=width)
    return events.select(np.argsort(events.t, kind="stable"))


@lru_cache(maxsize=8)
def _optics(n_pixels: int, axis: int, config: SaccadeConfig) -> Float64[np.ndarray, "step sensor pixel"]:
    """Return the share of each image pixel's light in each sensor pixel, along one axis, at every step of the path.

    A unit square blurred by a Gaussian: Φ((r + ½)/σ) - Φ((r - ½)/σ), with r from the square's centre to the pixel's.
    The middle of the path puts the image in the middle of the sensor.
    """
    n_sensor = n_pixels + config.margin
    u = np.arange(config.steps_per_leg) / config.steps_per_leg
    s = 10 * u**3 - 15 * u**4 + 6 * u**5
    legs = [a + (b - a) * s for a, b in zip(CORNERS[:-1, axis], CORNERS[1:, axis], strict=True)]
    path = np.concatenate([*legs, CORNERS[-1:, axis]])
    centre = config.margin / 2 - (CORNERS[:, axis].max() + CORNERS[:, axis].min()) / 2
    r = np.arange(n_sensor)[:, None] - np.arange(n_pixels) - centre - path[:, None, None]
    r_upper, r_lower = (torch.from_numpy((r + half) / config.blur) for half in (0.5, -0.5))
    return (torch.special.ndtr(r_upper) - torch.special.ndtr(r_lower)).numpy()


def _crossings(
    log_light: Float[np.ndarray, "step H W"], threshold: Float[np.ndarray, "2 H W"], step_us: float
) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"], Float64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
    """Return x, y, t (µs) and p of all threshold crossings, with log light linear within a step.

    In a step from (t₀, L₀) to (t₀ + Δt, L₁), pixel and polarity (sign ±) fire n = ⌊max(±(L₁ - R), 0)/C⌋ times, the k-th
    at t₀ + f·Δt with f = (R ± kC - L₀)/(L₁ - L₀) cut to [0, 1]; then R ← R ± nC.
    """
    n_steps = len(log_light) - 1
    reference = np.empty((n_steps, *log_light.shape[1:]))
    n = np.empty((n_steps, *threshold.shape), np.int64)
    sign = _SIGN[:, None, None]
    r = log_light[0].copy()
    for i in range(n_steps):
        reference[i] = r
        n[i] = np.floor(np.maximum(sign * (log_light[i + 1] - r), 0) / threshold)
        r += (sign * n[i] * threshold).sum(0)
    per_cell = n.ravel()
    step, p, y, x = np.unravel_index(np.repeat(np.arange(n.size), per_cell), n.shape)
    k = np.arange(len(step)) - np.repeat(np.cumsum(per_cell) - per_cell, per_cell) + 1
    before, after = log_light[step, y, x], log_light[step + 1, y, x]
    level = reference[step, y, x] + _SIGN[p] * k * threshold[p, y, x]
    change = np.where(after == before, 1.0, after - before)
    return x, y, (step + np.clip((level - before) / change, 0, 1)) * step_us, p
