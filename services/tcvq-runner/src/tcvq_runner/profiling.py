"""Where the time of training goes: a trace of a few steps for a viewer, and one screen that sums it up."""

import os
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.profiler import ProfilerActivity, profile

from tcvq_data import write_text

SKIPPED = 3  # steps before the profiled ones: caches and memory pools fill, the codebook is initialised
PROFILED = 5
_ROWS = 14


class ProfileSteps(lightning.Callback):
    """Profiles a few steps of a stage; writes ``STAGE.json``, a trace in Chrome's format, and ``STAGE.txt``."""

    def __init__(self, folder: Path, stage: str, max_steps: int) -> None:
        """Plan what is profiled.

        Args:
            folder: Where the files go; made when there is something to write.
            stage: Names them.
            max_steps: Steps that the stage takes; of a short one the later half is profiled.
        """
        self._folder, self._stage = folder, stage
        self._first = min(SKIPPED, max_steps // 2)
        self._steps = 0
        self._seen = 0
        self._profile: profile | None = None
        self._started = 0.0

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin at the first profiled step."""
        if self._seen == self._first and self._profile is None:
            activities = [ProfilerActivity.CPU]
            if pl_module.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own remarks
            self._profile = profile(activities=activities, profile_memory=True)
            self._profile.start()
            self._started = time.perf_counter()
        self._seen += 1

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write both files after the last profiled step."""
        if self._profile is None:
            return
        self._steps += 1
        if self._steps == PROFILED:
            self._write()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Write both files of a stage that ended before."""
        self._write()

    def _write(self) -> None:
        if self._profile is None or not self._steps:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._started
        self._profile.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        trace = self._folder / f"{self._stage}.json"
        self._profile.export_chrome_trace(str(trace))
        text = summary(self._profile, stage=self._stage, steps=self._steps, seconds=seconds, trace=trace)
        write_text(self._folder / f"{self._stage}.txt", text)
        self._profile, self._steps, self._seen = None, 0, self._first + 1


def summary(profiled: profile, *, stage: str, steps: int, seconds: float, trace: Path) -> str:
    """Return one screen: time per step, and the operators that take most of it.

    Args:
        profiled: A profiler that has stopped.
        stage: What was profiled.
        steps: Steps that it saw.
        seconds: Time that they took, profiler included.
        trace: File of the trace.
    """
    events = profiled.key_averages()
    on_device = any(event.self_device_time_total for event in events)
    clock = "self_device_time_total" if on_device else "self_cpu_time_total"
    ranked = sorted(events, key=lambda event: getattr(event, clock), reverse=True)
    total = sum(getattr(event, clock) for event in events) or 1.0
    lines = [
        f"{stage}: {steps} steps in {seconds:.2f} s, {seconds / steps * 1e3:.0f} ms each with the profiler running",
        f"{'operator':<52}{'share':>7}{'ms/step':>10}{'calls/step':>12}{'MB/call':>10}",
    ]
    for event in ranked[:_ROWS]:
        ms, calls = getattr(event, clock) / 1e3 / steps, event.count / steps
        megabytes = max(event.self_cpu_memory_usage, event.self_device_memory_usage) / max(event.count, 1) / 1e6
        share = getattr(event, clock) / total
        lines.append(f"{event.key[:50]:<52}{share:>7.1%}{ms:>10.2f}{calls:>12.1f}{megabytes:>10.2f}")
    lines.append(f"time is {'of the device' if on_device else 'of the CPU'}, without what an operator calls in turn")
    lines.append(f"trace: {trace} (open it in chrome://tracing or ui.perfetto.dev)")
    return "\n".join(lines) + "\n"
