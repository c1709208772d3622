"""The later passes over a source of batches: the same as the first, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lossatlas.errors import DataError
from lossatlas.model.data.fingerprints import digest
from lossatlas.model.data.randomness import preserved_rng
from lossatlas.model.data.sources import FIXED, batches_of

_END = object()


class Passes:
    """A source that must give, at each pass, the batches of its first one, which ``digests`` are of.

    The first whole pass is compared with that one while it is used; later ones only by their number of batches. A
    list holds the batches themselves and is not compared.
    """

    def __init__(self, source: Iterable[Any], digests: Sequence[str]) -> None:
        self._source, self._digests = source, list(digests)
        self._compared = isinstance(source, list)

    def require_second(self) -> None:
        """Read the source once more; ``DataError`` where it gives other batches."""
        if self._compared:
            return
        again = [digest(batch) for batch in itertools.islice(batches_of(self._source), len(self._digests) + 1)]
        self._compared = again == self._digests
        if not self._compared:
            differing = sum(a != b for a, b in zip(self._digests, again, strict=False))
            raise _changing(
                f"its second pass ({differing} of {len(self._digests)} batches differ, "
                f"{len(again)} batches the second time)"
            )

    def __iter__(self) -> Iterator[Any]:
        source = batches_of(self._source)
        for index in itertools.count():
            with preserved_rng():  # around each step and never across a yield, where the caller may draw
                batch = next(source, _END)
            self._require_same(batch, index)
            if batch is _END:
                self._compared = True
                return
            yield batch

    def _require_same(self, batch: Any, index: int) -> None:
        count, ended = len(self._digests), batch is _END
        if ended != (index >= count):
            raise _changing(f"a later pass ({'fewer' if ended else 'more'} batches than {count})")
        if not self._compared and not ended and digest(batch) != self._digests[index]:
            raise _changing(f"a later pass (batch {index + 1} of {count} differs)")


def _changing(at: str) -> DataError:
    return DataError(f"The loader gives other data at {at}, so the loss would be another function each time: {FIXED}.")
