"""What the benchmarks share: the machine, the problems, the contenders, the clock."""
