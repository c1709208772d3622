"""What is seen of a figure."""

from __future__ import annotations

import numpy as np
from browser.chromium import Browser


def drawn(browser: Browser, name: str) -> str:
    """The selector of a figure, scrolled to and drawn."""
    figure = f"#figure-{name}"
    browser.run(f"document.querySelector('{figure}').scrollIntoView({{behavior: 'instant'}})")
    browser.wait(f"document.querySelector('{figure}.drawn')")
    return figure


def is_blank(browser: Browser, selector: str) -> bool:
    """Whether there is nothing but a ground and hardly any ink on it."""
    colours = np.round(browser.pixels(selector) * 255).astype(int) @ (1, 256, 65536)
    _, counts = np.unique(colours, return_counts=True)
    return bool(counts.max() > 0.985 * colours.size)
