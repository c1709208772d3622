"""Numbers that others published, next to those of the same quantities here."""
