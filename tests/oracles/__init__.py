"""What the tests compare with: plain PyTorch, dense float64 matrices, finite differences, closed forms."""
