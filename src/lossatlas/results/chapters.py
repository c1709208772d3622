"""The questions that a report answers, in the order in which it asks them. A kind names the one that it belongs to."""

LANDSCAPE = "How does the loss look around the minimum?"
CURVATURE = "How sharp is it, and in which directions?"
TRAJECTORY = "Which trajectory did training take?"
CONNECTIVITY = "Are independently trained minima connected?"
ROBUSTNESS = "How robust is the solution?"
GENERALISATION = "What does geometry say about generalisation?"
COMPARISON = "How do the numbers compare with published ones?"

ORDER = (LANDSCAPE, CURVATURE, TRAJECTORY, CONNECTIVITY, ROBUSTNESS, GENERALISATION, COMPARISON)


def place(chapter: str) -> tuple[int, str]:
    """Where a chapter stands: questions that are not listed here come last, by their text."""
    return (ORDER.index(chapter) if chapter in ORDER else len(ORDER)), chapter
