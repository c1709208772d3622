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
    "ainsworth2023": Reference(
        "S. K. Ainsworth, J. Hayase, S. Srinivasa",
        2023,
        "Git Re-Basin: merging models modulo permutation symmetries",
        "ICLR",
        "https://arxiv.org/abs/2209.04836",
    ),
    "jordan2023": Reference(
        "K. Jordan, H. Sedghi, O. Saukh, R. Entezari, B. Neyshabur",
        2023,
        "REPAIR: REnormalizing Permuted Activations for Interpolation Repair",
        "ICLR",
        "https://arxiv.org/abs/2211.08403",
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
    "golub2010": Reference(
        "G. H. Golub, G. Meurant",
        2010,
        "Matrices, moments and quadrature with applications",
        "Princeton University Press",
        "https://doi.org/10.1515/9781400833887",
    ),
    "ghorbani2019": Reference(
        "B. Ghorbani, S. Krishnan, Y. Xiao",
        2019,
        "An investigation into neural net optimization via Hessian eigenvalue density",
        "ICML",
        "https://arxiv.org/abs/1901.10159",
    ),
    "meyer2021": Reference(
        "R. A. Meyer, C. Musco, C. Musco, D. P. Woodruff",
        2021,
        "Hutch++: optimal stochastic trace estimation",
        "SIAM Symposium on Simplicity in Algorithms (SOSA)",
        "https://arxiv.org/abs/2010.09649",
    ),
    "epperly2024": Reference(
        "E. N. Epperly, J. A. Tropp, R. J. Webber",
        2024,
        "XTrace: making the most of every sample in stochastic trace estimation",
        "SIAM Journal on Matrix Analysis and Applications 45(1), 1-23",
        "https://arxiv.org/abs/2301.07825",
    ),
    "schraudolph2002": Reference(
        "N. N. Schraudolph",
        2002,
        "Fast curvature matrix-vector products for second-order gradient descent",
        "Neural Computation 14(7), 1723-1738",
        "https://doi.org/10.1162/08997660260028683",
    ),
    "martens2020": Reference(
        "J. Martens",
        2020,
        "New insights and perspectives on the natural gradient method",
        "Journal of Machine Learning Research 21(146), 1-76",
        "https://arxiv.org/abs/1412.1193",
    ),
    "andriushchenko2023": Reference(
        "M. Andriushchenko, F. Croce, M. Müller, M. Hein, N. Flammarion",
        2023,
        "A modern look at the relationship between sharpness and generalization",
        "ICML",
        "https://arxiv.org/abs/2302.07011",
    ),
}
