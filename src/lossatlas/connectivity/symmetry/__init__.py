"""Which hidden units of a network may change places: found in its graph, or written by hand."""
