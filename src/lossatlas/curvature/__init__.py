"""The Hessian as an operator, and what Krylov methods say of its spectrum."""
