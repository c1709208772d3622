"""Which loop evaluates a region's points: a step is tried on some of the data, and kept if it is faster and agrees."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lossatlas.errors import InputError, LossAtlasError
from lossatlas.evaluation.points.loops import REWRITES, Loop, OnThreads, PlainLoop, PreparedLoop
from lossatlas.evaluation.points.plans import Findings, Outcome, Plan, Trial
from lossatlas.evaluation.points.tracing import Trace
from lossatlas.model.data.batches import Batches
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.loss.samples import Sample, samples_of
from lossatlas.model.points import Points, Weights

AGREEMENT = {torch.float32: 1e-6, torch.float64: 1e-12}  # relative, of every mean
ONE_THREAD = "one thread"
_TRIAL = (256, 1024)  # examples on which a step is tried, at least and at most
_MOMENT = 0.02  # seconds of the plain loop: what a timing should take to mean something
_LEAST = 8  # examples in a batch
_ROUNDS = 3  # timings of each, in turn; the least counts
_GAIN = 0.98  # of the time before: what a step must reach to be kept
_SHARE = 0.05  # of the plain loop's whole time: what trials may take
_WORTH = 0.1  # seconds: where the plain loop needs less in all, nothing is tried


@dataclass(frozen=True)
class Evaluator:
    """``evaluator(weights)``: the samples of loss and metrics at theta(weights), by the loop of its plan."""

    loop: Loop
    plan: Plan
    batch_weights: Sequence[float]
    findings: Findings = field(default_factory=Findings)

    def __call__(self, weights: Weights) -> dict[str, Sample]:
        return samples_of(self.loop(weights), self.batch_weights)

    @property
    def seen(self) -> tuple[str, ...]:
        """The findings, a sentence each."""
        return self.findings.lines()

    @property
    def threads(self) -> str:
        """How many of PyTorch's threads a point takes."""
        available = torch.get_num_threads()
        return f"threads: {self.plan.threads or available} of {available}"

    def deviation(self, reference: Sequence[dict[str, Sample]], probes: Sequence[Weights]) -> float:
        """The largest relative difference of a mean; infinite where the quantities are of another kind."""
        worst = 0.0
        for one, probe in zip(reference, probes, strict=True):
            for name, sample in self(probe).items():
                same = sample.over == one[name].over
                worst = max(worst, _relative(sample.mean, one[name].mean) if same else float("inf"))
        return worst


class Tuner:
    """Chooses an evaluator for ``points``, about ``count`` of them, by what it measures at the ``probes``."""

    def __init__(
        self, function: FunctionalModel, batches: Batches, points: Points, probes: Sequence[Weights], count: int
    ) -> None:
        self.function, self.batches, self.points, self.probes, self.count = function, batches, points, probes, count
        self.agreement = AGREEMENT.get(function.point.dtype)
        self.findings = Findings()
        self.rejected: set[str] = set()
        self.traces: dict[Any, Trace] = {}

    def choose(self) -> Evaluator:
        """The fastest evaluator that was found; the plain loop where none is, with the reason in its findings."""
        plain = self.follow(Plan())
        reason = self._obstacle()
        if reason is None:
            reference, point = self._timed(plain)
            if self.count * point < _WORTH:
                reason = "so few points repay no preparation"
        if reason is None:
            try:
                return self._best(reference, point)
            except Exception as error:  # a user's model may fail in any way in a form that it was not written for
                reason = _shortened(error, 200)
        try:
            plain = self._plain_on_one_thread(plain)
        except Exception as error:  # as above
            self._note(Trial(ONE_THREAD, Outcome.FAILED, error=_shortened(error, 80)))
        return replace(plain, findings=replace(self.findings, fallback=reason))

    def follow(self, plan: Plan, count: int | None = None) -> Evaluator:
        """The evaluator of a plan that was made before, on all data or on about the first ``count`` examples."""
        loop: Loop = PlainLoop(self.function, self.batches, self.points)
        weights: Sequence[float] = self.batches.weights
        if plan.prepared:
            batches, weights = self._cut(plan.batch_size, count)
            loop = PreparedLoop(self.function, batches, self.points, plan.rewrites, self.traces)
        return Evaluator(loop if plan.threads is None else OnThreads(loop, plan.threads), plan, weights)

    def verified(self, plan: Plan) -> Evaluator:
        """The evaluator of a plan that was made for another run, if it agrees with the plain loop here."""
        plain = self.follow(Plan())
        if not plan.prepared:
            return self.follow(plan)
        if reason := self._obstacle():
            raise InputError(f"The plan {str(plan)!r} cannot be followed here, since {reason}: use fast=True.")
        evaluator = self.follow(plan)
        deviation = evaluator.deviation([plain(probe) for probe in self.probes], self.probes)
        if not deviation <= (self.agreement or 0.0):
            raise InputError(f"The plan {str(plan)!r} deviates from the plain loop by {deviation:.0e}: use fast=True.")
        return evaluator

    def _obstacle(self) -> str | None:
        if self.function.recomputes:
            return "BatchNorm statistics are recomputed at every point"
        if self.function.moved is not None:
            return "buffers move with the point"
        if self.function.differentiates:
            return "model or loss differentiate while they are evaluated"
        if self.batches.kept() is None:
            return "the data are not kept in memory"
        return None if self.agreement else f"the parameters are {self.function.point.dtype}"

    def _timed(self, plain: Evaluator) -> tuple[list[dict[str, Sample]], float]:
        """The plain loop's samples at the probes, and its seconds a point."""
        started = self._clock()
        reference = [plain(probe) for probe in self.probes]
        return reference, (self._clock() - started) / len(self.probes)

    def _best(self, reference: Sequence[dict[str, Sample]], point: float) -> Evaluator:
        """The best of what is tried, verified on all data; ``point`` is the plain loop's seconds a point."""
        self.deadline = time.perf_counter() + _SHARE * self.count * point
        self.trial = min(max(int(self.batches.n_examples * _MOMENT / point), _TRIAL[0]), _TRIAL[1])
        best = self.follow(Plan(prepared=True), self.trial)
        self.reference = [best(self.probes[-1])]
        best = self._sized(self._rewritten(best))
        if best.plan.batch_size is not None:  # what a step saves depends on what batches leave in the caches: once more
            best = self._sized(self._rewritten(best))
        best = self._on_one_thread(best)
        chosen = self.follow(best.plan)
        deviation = chosen.deviation(reference, self.probes)
        if not self._agrees(deviation):
            raise LossAtlasError(f"the prepared loop deviates from it by {deviation:.0e}")
        return replace(chosen, findings=replace(self.findings, deviation=deviation))

    def _agrees(self, deviation: float) -> bool:
        return self.agreement is not None and deviation <= self.agreement

    def _rewritten(self, best: Evaluator) -> Evaluator:
        for name in REWRITES:
            if name not in best.plan.rewrites:
                best = self._better(best, replace(best.plan, rewrites=(*best.plan.rewrites, name)), name)
        return best

    def _on_one_thread(self, best: Evaluator) -> Evaluator:
        """One thread where that is faster, as small batches and busy machines make it; other batches may suit it."""
        if not self._has_threads():
            return best
        alone = self._better(best, replace(best.plan, threads=1), ONE_THREAD)
        return alone if alone is best else self._sized(alone)

    def _plain_on_one_thread(self, plain: Evaluator) -> Evaluator:
        """The plain loop on one thread, where it agrees and the trial repays itself."""
        if not self._has_threads() or self.count * _SHARE < 2 * _ROUNDS + 1 or self.agreement is None:
            return plain
        alone, probe = self.follow(Plan(threads=1)), self.probes[-1:]
        return self._compared(alone, plain, ONE_THREAD, alone.deviation([plain(probe[0])], probe))

    def _has_threads(self) -> bool:
        return self.function.point.device.type == "cpu" and torch.get_num_threads() > 1

    def _sized(self, best: Evaluator) -> Evaluator:
        """Batches twice as large as long as that is faster, or else half as large."""
        if next(iter(self.reference[0].values())).over != "examples" or self.batches.recut(1, 1) is None:
            return best
        larger = self._scaled(best, 2.0)
        return larger if larger is not best else self._scaled(best, 0.5)

    def _scaled(self, best: Evaluator, factor: float) -> Evaluator:
        """Batches ``factor`` times as large, again and again, as long as that is faster."""
        while True:
            size = int((best.plan.batch_size or self.batches.sizes[0]) * factor)
            if not _LEAST <= size <= min(self.trial, self.batches.n_examples):
                return best
            before, best = best, self._better(best, replace(best.plan, batch_size=size), f"batches of {size}")
            if best is before:
                return best

    def _better(self, best: Evaluator, plan: Plan, name: str) -> Evaluator:
        """The evaluator of ``plan`` where it is faster than ``best`` and agrees, else ``best``."""
        if name in self.rejected:
            return best
        if time.perf_counter() > self.deadline:
            self._note_untried(name)
            return best
        try:
            if name in REWRITES and isinstance(best.loop, PreparedLoop) and not best.loop.offers(name):
                return best
            other = self.follow(plan, self.trial)
            deviation = other.deviation(self.reference, self.probes[-1:])
        except Exception as error:  # whatever an operation raises on a tensor that it was not made for
            self.rejected.add(name)
            self._note(Trial(name, Outcome.FAILED, error=_shortened(error, 80)))
            return best
        return self._compared(other, best, name, deviation)

    def _compared(self, other: Evaluator, best: Evaluator, name: str, deviation: float) -> Evaluator:
        ratio = self._ratio(other, best)
        if not self._agrees(deviation):
            self.rejected.add(name)
        outcome = Outcome.KEPT if name not in self.rejected and ratio < _GAIN else Outcome.LEFT
        self._note(Trial(name, outcome, 1 / ratio, deviation))
        return other if outcome is Outcome.KEPT else best

    def _note(self, trial: Trial) -> None:
        self.findings = replace(self.findings, trials=(*self.findings.trials, trial))

    def _note_untried(self, name: str) -> None:
        self.findings = replace(self.findings, untried=tuple(dict.fromkeys([*self.findings.untried, name])))

    def _ratio(self, other: Evaluator, best: Evaluator) -> float:
        """Seconds of the one to seconds of the other, timed in turn."""
        least = [float("inf"), float("inf")]
        for _ in range(_ROUNDS):
            for i, evaluator in enumerate((other, best)):
                started = self._clock()
                evaluator.loop(self.probes[-1])
                least[i] = min(least[i], self._clock() - started)
        return least[0] / least[1]

    def _clock(self) -> float:
        """Seconds, once a GPU has done what it was given."""
        if self.function.point.device.type == "cuda":
            torch.cuda.synchronize(self.function.point.device)
        return time.perf_counter()

    def _cut(self, size: int | None, count: int | None) -> tuple[list[Any], Sequence[float]]:
        """Batches of ``size`` and their weights: of all examples, or of about the first ``count``."""
        if size is not None or count is not None:
            batches = self.batches.recut(size or self.batches.sizes[0], count)
            if batches is not None:
                return batches, list(map(self.batches.weigh, batches))
            if size is not None:
                raise InputError("These batches cannot be cut anew: the plan belongs to other data.")
        return self._first(count)

    def _first(self, count: int | None) -> tuple[list[Any], Sequence[float]]:
        """The first batches as they were given, with ``count`` examples or more."""
        kept = self.batches.kept()
        assert kept is not None
        total, m = 0, 0
        while m < len(kept) and (count is None or total < count):
            total, m = total + self.batches.sizes[m], m + 1
        return kept[:m], self.batches.weights[:m]


def _shortened(error: Exception, length: int) -> str:
    return " ".join(str(error).split())[:length]


def _relative(a: float, b: float) -> float:
    if a == b or (a != a and b != b):
        return 0.0
    return abs(a - b) / abs(b) if b else float("inf")
