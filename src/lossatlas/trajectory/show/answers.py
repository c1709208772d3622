"""What a training and its trajectory say: whom a report is about, and which trajectory training took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from lossatlas.results.blocks import Answer
from lossatlas.results.captions import MOST, few, joined, listed, sentence
from lossatlas.results.claim import Claim, Verdict
from lossatlas.results.groups import distinct
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent
from lossatlas.trajectory.show import generalisation
from lossatlas.trajectory.show.claims import beyond_random_walk, random_signs, shares_of_two
from lossatlas.trajectory.show.numbers import at_the_end, medians, off_plane, spelt
from lossatlas.trajectory.show.reading import known, one_each, whom

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

Datasets = Sequence["xr.Dataset"]

QUALITIES = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")  # what tells best how a training went
WORDS = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six"}
NAMELESS = "data"  # of an objective whose data were given no name
BEYOND = {
    Verdict.SUPPORTED: "more than with",
    Verdict.CONTRADICTED: "less than with",
    Verdict.UNDECIDED: "not told apart from those with",
}


def of_histories(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """Who was trained on what and how well; then what geometry says about generalisation."""
    histories = one_each(datasets)
    yield Answer(
        sentence=_course(histories),
        short=f"{_subject(histories)}{_training(histories, catalogue)}, {_reached(histories)}.",
        finding=_finding(histories),
        quantity="",
        limit="Of one run of training each: another seed gives another network.",
        opening=True,
    )
    yield from generalisation.answers(datasets, catalogue)


def _subject(histories: Datasets) -> str:
    """As in "Networks A and B (SimpleCNN, 71,754 parameters)"."""
    names = [Provenance.of(history).network for history in histories]
    model, size = distinct(histories, "model"), distinct(histories, "n_parameters", lambda n: f"{int(n):,}")
    told = ", ".join(part for part in (model, f"{size} parameters" if size else "") if part)
    who = "The network" if len(names) == 1 else f"{WORDS.get(len(names), str(len(names)))} networks"
    if None not in names and len(names) < 4:
        who = f"Network{'s' if len(names) > 1 else ''} {listed([str(name) for name in names])}"
    return f"{who} ({told})" if told and ";" not in told else who


def _training(histories: Datasets, catalogue: Catalogue) -> str:
    """On what, and from which weights: ", trained on digits from independent initialisations"."""
    on = _data(histories, catalogue)
    return f", trained{f' on {on}' if on else ''}{_initialisations(histories)}"


def _data(histories: Datasets, catalogue: Catalogue) -> str:
    """What the data of the same networks' results are called, without "train" or "test"; else the histories' own."""
    networks = {history.attrs.get("network") for history in histories} - {None}
    others = [d for d in catalogue if d.attrs.get("network") in networks and d.attrs["kind"] != "history"]
    named = {Provenance.of(dataset).short_data for dataset in others} - {NAMELESS}
    sets = {name.removesuffix(" train").removesuffix(" test") for name in named}
    return sets.pop() if len(sets) == 1 else distinct(histories, "data").replace(";", " and")


def _initialisations(histories: Datasets) -> str:
    """From which weights, as far as it was recorded."""
    weights, seeds = ([history.attrs.get(key) for history in histories] for key in ("initial weights", "seed"))
    if len(histories) < 2 or None in weights or len(set(weights)) < len(weights):
        return ""
    independent = None not in seeds and len(set(seeds)) == len(seeds)
    return f" from {'independent' if independent else 'different'} initialisations"


def _quality(histories: Datasets) -> str:
    """The first quality that all histories have; empty where they share none."""
    return next((q for q in QUALITIES if all(known(history, q, "epoch") for history in histories)), "")


def _reached(histories: Datasets) -> str:
    """How well: "reach test accuracies of 98.70 ± 0.49 and 98.33 ± 0.55 %"."""
    quality, one = _quality(histories), len(histories) == 1
    if not quality:
        return f"{'was' if one else 'were'} recorded over {_steps(histories)} steps"
    verb, name = ("reaches a" if one else "reach"), spelt(quality)
    if len(histories) > 2:
        ordered = sorted(histories, key=lambda history: float(history[quality][-1]))
        ends = [at_the_end(ordered[k], quality) for k in (0, -1)]
        return f"reach a {name} between {ends[0]} and {ends[1]}"
    plural = name if one else name.replace("accuracy", "accuracies").replace("loss", "losses")
    texts = [at_the_end(history, quality) for history in histories]
    if all(text.endswith(" %") for text in texts):
        return f"{verb} {plural} of {listed([text.removesuffix(' %') for text in texts])} %"
    return f"{verb} {plural} of {listed(texts)}"


def _steps(histories: Datasets) -> str:
    return listed(list(dict.fromkeys(f"{history.sizes['step']:,}" for history in histories)))


def _course(histories: Datasets) -> str:
    """The losses after the last epoch, or what the mini-batches showed."""
    names = [name for name in ("train_loss", "test_loss") if all(known(h, name, "epoch") for h in histories)]
    called = whom(histories)
    if names:
        settings = joined(
            sentence(histories, "optimizer", "{},"),
            sentence(histories, "learning_rate", "learning rate {},", lambda rate: number(float(rate), 3)),
            sentence(histories, "batch_size", "batches of {}"),
        ).rstrip(",")
        epochs = distinct([history.assign_attrs(epochs=history.sizes["epoch"]) for history in histories], "epochs")
        parts = [_of_each(histories, name, called) for name in names]
        length = "1 epoch" if epochs == "1" else f"{epochs} epochs"
        return f"After {length}{f' ({settings})' if settings else ''} {', and '.join(parts)}."
    fell = [
        f"from {number(medians(history, 'loss')[0], 3)} to {number(medians(history, 'loss')[1], 3)} ({label})"
        for history, label in zip(histories, called, strict=True)
        if known(history, "loss", "step")
    ]
    if fell:
        return f"Between the first and the last tenth of the steps the median loss of a mini-batch went {listed(fell)}."
    return f"Nothing but {_steps(histories)} steps was recorded of the training."


def _of_each(histories: Datasets, name: str, names: Sequence[str]) -> str:
    if len(histories) == 1:
        return f"the {spelt(name)} is {at_the_end(histories[0], name)}"
    pairs = list(zip(histories, names, strict=True))
    ordered = pairs if len(pairs) <= MOST else sorted(pairs, key=lambda pair: float(pair[0][name][-1]))
    return f"the {spelt(name)} is {few([f'{at_the_end(history, name)} ({who})' for history, who in ordered])}"


def _finding(histories: Datasets) -> str:
    """For a table, where no claim decides: "test accuracy 98.70 ± 0.49 % (A)"."""
    quality = _quality(histories)
    if not quality or len(histories) > 2:
        return _reached(histories)
    ends = [f"{at_the_end(h, quality)}{f' ({name})' if (name := h.attrs.get('network')) else ''}" for h in histories]
    return f"{spelt(quality)} {listed(ends)}"


def of_trajectories(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """How much of each trajectory two components show, beside what they would show of a random walk."""
    shown = [dataset for dataset in datasets if math.isfinite(shares_of_two(dataset)[0])]
    if not shown:
        return
    claims = [beyond_random_walk(dataset) for dataset in shown]
    weakest = min(claims, key=lambda claim: -math.inf if math.isnan(claim.interval[0]) else claim.interval[0])
    yield Answer(
        sentence=_of_several(shown, claims) if len(shown) > 2 else joined(*_of_each_trajectory(shown, claims)),
        short=f"Two components show {_short(shown, weakest.verdict)}.",
        claim=weakest,
        finding="two components show more than a random walk's",
        quantity="share of the variance beyond the null's",
        limit="Principal components make any random walk look low-dimensional and curved, and the plane hides what "
        "lies off it.",
    )


def _of_each_trajectory(datasets: Datasets, claims: Sequence[Claim]) -> Iterator[str]:
    for dataset, claim, who in zip(datasets, claims, whom(datasets), strict=True):
        yield (
            f"Two principal components hold {percent(shares_of_two(dataset)[0])} of the variance of the trajectory of "
            f"{who}, {_against_random_signs(dataset, claim.verdict)}."
        )
    if len(datasets) == 1:
        yield _off(datasets[0])


def _of_several(datasets: Datasets, claims: Sequence[Claim]) -> str:
    shares = [shares_of_two(dataset)[0] for dataset in datasets]
    more = sum(claim.verdict is Verdict.SUPPORTED for claim in claims)
    return (
        f"Two principal components hold between {percent(min(shares))} and {percent(max(shares))} of the variance of "
        f"{len(shares)} trajectories, in {more} of them more than with random signs of the steps."
    )


def _against_random_signs(dataset: xr.Dataset, verdict: Verdict) -> str:
    (median, p), walk = random_signs(dataset), percent(shares_of_two(dataset)[1])
    if math.isnan(median):
        return f"where those of an isotropic random walk would hold {walk}"
    signs = f"random signs of its steps ({percent(median)}, p = {number(p, 2)})"
    return f"{BEYOND[verdict]} {signs}; those of an isotropic random walk would hold {walk}"


def _short(datasets: Datasets, verdict: Verdict) -> str:
    """As in "97.1 % of A's trajectory, more than with random signs of the steps (92.0 %)"."""
    if len(datasets) > 2:
        every = sorted(shares_of_two(dataset)[0] for dataset in datasets)
        return f"{percent(every[0])} to {percent(every[-1])} of {len(every)} trajectories"
    shown, nulls = zip(*((shares_of_two(d), random_signs(d)[0]) for d in datasets), strict=True)
    whose = listed([f"{network}'s" for d in datasets if (network := d.attrs.get("network"))]) or "the"
    told = f"{_percents(share for share, _ in shown)} of {whose} trajector{'y' if len(shown) == 1 else 'ies'}"
    if any(math.isnan(null) for null in nulls):
        return f"{told}, beside {percent(shown[0][1])} of a random walk"
    against = BEYOND[verdict] if len(datasets) == 1 else "beside those with"
    return f"{told}, {against} random signs of the steps ({_percents(nulls)})"


def _percents(shares: Iterable[float]) -> str:
    """As in "97.1 and 96.4 %"."""
    return f"{listed([percent(share).removesuffix(' %') for share in shares])} %"


def _off(dataset: xr.Dataset) -> str:
    distance, share, step = off_plane(dataset)
    if math.isnan(share):
        return ""
    return (
        f"The snapshot farthest off their plane, at step {step:g}, lies {number(distance, 3)} away from it, "
        f"{percent(share)} of the greatest distance from the end."
    )
