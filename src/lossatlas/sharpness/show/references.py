"""The works that only sharpness cites, by the keys that its measures name."""

from __future__ import annotations

from lossatlas.results.blocks import Reference

REFERENCES = {
    "dinh2017": Reference(
        "L. Dinh, R. Pascanu, S. Bengio, Y. Bengio",
        2017,
        "Sharp minima can generalize for deep nets",
        "ICML",
        "https://arxiv.org/abs/1703.04933",
    ),
    "foret2021": Reference(
        "P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur",
        2021,
        "Sharpness-aware minimization for efficiently improving generalization",
        "ICLR",
        "https://arxiv.org/abs/2010.01412",
    ),
    "kwon2021": Reference(
        "J. Kwon, J. Kim, H. Park, I. K. Choi",
        2021,
        "ASAM: adaptive sharpness-aware minimization for scale-invariant learning of deep neural networks",
        "ICML",
        "https://arxiv.org/abs/2102.11600",
    ),
    "jiang2020": Reference(
        "Y. Jiang, B. Neyshabur, H. Mobahi, D. Krishnan, S. Bengio",
        2020,
        "Fantastic generalization measures and where to find them",
        "ICLR",
        "https://arxiv.org/abs/1912.02178",
    ),
    "boettcher2022": Reference(
        "L. Böttcher, G. Wheeler",
        2022,
        "Visualizing high-dimensional loss landscapes with Hessian directions",
        "arXiv:2208.13219",
        "https://arxiv.org/abs/2208.13219",
    ),
    "maddox2020": Reference(
        "W. J. Maddox, G. Benton, A. G. Wilson",
        2020,
        "Rethinking parameter counting in deep models: effective dimensionality revisited",
        "arXiv:2003.02139",
        "https://arxiv.org/abs/2003.02139",
    ),
    "petzka2021": Reference(
        "H. Petzka, M. Kamp, L. Adilova, C. Sminchisescu, M. Boley",
        2021,
        "Relative flatness and generalization",
        "NeurIPS",
        "https://arxiv.org/abs/2001.00939",
    ),
    "liang2019": Reference(
        "T. Liang, T. Poggio, A. Rakhlin, J. Stokes",
        2019,
        "Fisher-Rao metric, geometry, and complexity of neural networks",
        "AISTATS",
        "https://arxiv.org/abs/1711.01530",
    ),
    "kalra2026": Reference(
        "D. S. Kalra, J.-C. Gagnon-Audet, A. Gromov, I. Mediratta, K. Niu, A. H. Miller, M. Shvartsman",
        2026,
        "A scalable measure of loss landscape curvature for analyzing the training dynamics of LLMs",
        "arXiv:2601.16979",
        "https://arxiv.org/abs/2601.16979",
    ),
    "lau2023": Reference(
        "E. Lau, Z. Furman, G. Wang, D. Murfet, S. Wei",
        2023,
        "The local learning coefficient: a singularity-aware complexity measure",
        "arXiv:2308.12108",
        "https://arxiv.org/abs/2308.12108",
    ),
    "dasilva2025": Reference(
        "M. F. da Silva, F. Dangel, S. Oore",
        2025,
        "Hide & seek: transformer symmetries obscure sharpness & Riemannian geometry finds it",
        "ICML",
        "https://arxiv.org/abs/2505.05409",
    ),
    "vehtari2021": Reference(
        "A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner",
        2021,
        "Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC",
        "Bayesian Analysis",
        "https://arxiv.org/abs/1903.08008",
    ),
    "kunin2021": Reference(
        "D. Kunin, J. Sagastuy-Brena, S. Ganguli, D. L. K. Yamins, H. Tanaka",
        2021,
        "Neural mechanics: symmetry and broken conservation laws in deep learning dynamics",
        "ICLR",
        "https://arxiv.org/abs/2012.04728",
    ),
}
