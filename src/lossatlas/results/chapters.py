"""The questions that a report answers, in the order in which it asks them. A kind names the one that it belongs to."""

TRAINING = "How was the network trained?"
LANDSCAPE = "What does the loss look like around it?"
TRAJECTORY = "Which trajectory did training take?"
CURVATURE = "How curved is the loss?"
CONNECTIVITY = "Are the networks connected?"
ROBUSTNESS = "How robust is the network?"
COMPARISON = "How do the numbers compare with published ones?"

ORDER = (TRAINING, LANDSCAPE, TRAJECTORY, CURVATURE, CONNECTIVITY, ROBUSTNESS, COMPARISON)


def place(chapter: str) -> tuple[int, str]:
    """Where a chapter stands: questions that are not listed here come last, by their text."""
    return (ORDER.index(chapter) if chapter in ORDER else len(ORDER)), chapter
