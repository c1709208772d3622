"""Many points of one objective, each at the least cost: the measure as a program, rewritten step by step."""
