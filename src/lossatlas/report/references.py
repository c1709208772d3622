"""The works that a report may cite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    authors: str
    year: int
    title: str
    where: str
    url: str


BIBLIOGRAPHY = {
    "li2018": Reference(
        "H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein",
        2018,
        "Visualizing the loss landscape of neural nets",
        "NeurIPS",
        "https://arxiv.org/abs/1712.09913",
    ),
    "garipov2018": Reference(
        "T. Garipov, P. Izmailov, D. Podoprikhin, D. Vetrov, A. G. Wilson",
        2018,
        "Loss surfaces, mode connectivity, and fast ensembling of DNNs",
        "NeurIPS",
        "https://arxiv.org/abs/1802.10026",
    ),
    "keskar2017": Reference(
        "N. S. Keskar, D. Mudigere, J. Nocedal, M. Smelyanskiy, P. T. P. Tang",
        2017,
        "On large-batch training for deep learning: generalization gap and sharp minima",
        "ICLR",
        "https://arxiv.org/abs/1609.04836",
    ),
    "gabdullin2024": Reference(
        "N. Gabdullin",
        2024,
        "Investigating generalization capabilities of neural networks by means of loss landscapes and Hessian analysis",
        "arXiv:2412.10146",
        "https://arxiv.org/abs/2412.10146",
    ),
    "entezari2022": Reference(
        "R. Entezari, H. Sedghi, O. Saukh, B. Neyshabur",
        2022,
        "The role of permutation invariance in linear mode connectivity of neural networks",
        "ICLR",
        "https://arxiv.org/abs/2110.06296",
    ),
    "frankle2020": Reference(
        "J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin",
        2020,
        "Linear mode connectivity and the lottery ticket hypothesis",
        "ICML",
        "https://arxiv.org/abs/1912.05671",
    ),
    "draxler2018": Reference(
        "F. Draxler, K. Veschgini, M. Salmhofer, F. A. Hamprecht",
        2018,
        "Essentially no barriers in neural network energy landscape",
        "ICML",
        "https://arxiv.org/abs/1803.00885",
    ),
    "antognini2018": Reference(
        "J. Antognini, J. Sohl-Dickstein",
        2018,
        "PCA of high dimensional random walks with comparison to neural network training",
        "NeurIPS",
        "https://arxiv.org/abs/1806.08805",
    ),
    "pearlmutter1994": Reference(
        "B. A. Pearlmutter",
        1994,
        "Fast exact multiplication by the Hessian",
        "Neural Computation 6(1), 147-160",
        "https://doi.org/10.1162/neco.1994.6.1.147",
    ),
    "lanczos1950": Reference(
        "C. Lanczos",
        1950,
        "An iteration method for the solution of the eigenvalue problem of linear differential and integral operators",
        "Journal of Research of the National Bureau of Standards 45(4), 255-282",
        "https://doi.org/10.6028/jres.045.026",
    ),
    "andriushchenko2023": Reference(
        "M. Andriushchenko, F. Croce, M. Müller, M. Hein, N. Flammarion",
        2023,
        "A modern look at the relationship between sharpness and generalization",
        "ICML",
        "https://arxiv.org/abs/2302.07011",
    ),
}
