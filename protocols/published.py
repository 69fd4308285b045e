"""Figures published for MedCLIPSeg and the methods it was compared with: numbers only, and what they are of.

Koleilat et al. 2026 (arXiv 2602.20423) and the authors' project page. All are percentages, of one training run with
seed 666 over the backbone unimedclip, scored after the last epoch with 30 draws and the original prompts. DSC is the
mean Dice over test images. NSD is not the distance between boundaries: the released evaluation counts every pixel of
a mask as surface, so it is to be compared with our `nsd_released`, and not with `nsd`.
"""

OURS = "MedCLIPSeg"

AVERAGED = ("BUSI", "BTMRI", "ISIC", "Kvasir", "Covid19", "EUS")
"""The data sets over which the figures of DATA_EFFICIENCY are averaged; single ones are not published."""

DATA_EFFICIENCY: dict[str, dict[int, tuple[float, float]]] = {
    method: dict(zip((10, 25, 50, 100), pairs, strict=True))
    for method, pairs in {
        "UNet": ((60.95, 64.43), (62.74, 66.16), (71.61, 75.14), (78.49, 82.07)),
        "UNet++": ((63.72, 67.08), (65.86, 69.21), (73.15, 76.31), (78.44, 81.79)),
        "DeepLabv3": ((61.32, 64.84), (65.39, 69.10), (68.58, 72.57), (73.28, 77.42)),
        "Attention U-Net": ((62.78, 66.25), (64.97, 68.53), (71.34, 74.96), (76.30, 79.77)),
        "nnU-Net": ((73.45, 77.37), (76.73, 80.66), (78.86, 82.68), (81.40, 85.08)),
        "Swin-UNet": ((53.04, 57.91), (54.69, 59.24), (55.89, 61.25), (65.03, 69.32)),
        "TransUNet": ((52.69, 56.38), (55.25, 58.95), (55.22, 59.30), (67.22, 71.15)),
        "LViT": ((66.51, 68.80), (75.66, 78.12), (78.88, 81.34), (83.35, 85.89)),
        "Ariadne's Thread": ((61.34, 62.75), (63.09, 64.51), (65.65, 66.92), (70.07, 71.49)),
        "EoMT-CLIP": ((74.07, 77.41), (76.29, 79.84), (79.19, 82.78), (82.93, 86.35)),
        "CLIPSeg": ((74.66, 77.75), (78.31, 81.34), (79.63, 82.58), (84.87, 87.74)),
        "DenseCLIP": ((67.84, 70.33), (70.23, 72.70), (72.09, 74.45), (74.19, 76.89)),
        "ZegCLIP": ((61.25, 63.72), (72.46, 75.01), (76.21, 78.80), (78.98, 81.69)),
        "SAN": ((74.13, 76.97), (76.13, 78.91), (78.80, 81.52), (81.62, 84.35)),
        "MaPLe": ((66.27, 68.75), (71.53, 73.95), (74.60, 77.12), (74.60, 77.10)),
        "MaPLe + decoder": ((74.81, 77.90), (79.64, 82.60), (82.81, 85.80), (84.94, 87.91)),
        "VLSM-Adapter": ((74.47, 77.50), (77.63, 80.53), (80.83, 83.77), (83.85, 86.72)),
        "CausalCLIPSeg": ((71.19, 73.74), (75.42, 78.00), (78.60, 81.22), (81.34, 84.20)),
        "CAT-Seg": ((78.76, 81.50), (81.12, 83.92), (83.32, 85.61), (85.90, 88.31)),
        OURS: ((81.10, 83.94), (85.08, 87.85), (87.18, 89.95), (88.66, 91.35)),
    }.items()
}
"""Method → percentage of the training images → (DSC, NSD), averaged over AVERAGED."""

TARGETS: dict[str, tuple[str, ...]] = {
    "BUSI": ("BUSBRA", "BUSUC", "BUID", "UDIAT"),
    "Kvasir": ("ColonDB", "ClinicDB", "CVC300", "BKAI"),
    "BTMRI": ("BRISC",),
    "ISIC": ("UWaterlooSkinCancer",),
}
"""Source → the data sets on which a model trained on it is tested out of distribution."""

_DOMAIN_COLUMNS = (
    *("BUSI", "BUSBRA", "BUSUC", "BUID", "UDIAT", "Kvasir", "ColonDB", "ClinicDB", "BTMRI", "BRISC", "ISIC"),
    "UWaterlooSkinCancer",
)

DOMAIN: dict[str, dict[str, float]] = {
    method: dict(zip(_DOMAIN_COLUMNS, values, strict=True))
    for method, values in {
        "LViT": (75.32, 59.41, 67.95, 53.51, 65.60, 85.29, 60.01, 75.27, 81.41, 71.86, 91.21, 58.87),
        "CLIPSeg": (80.95, 63.66, 75.03, 68.43, 56.67, 81.98, 59.93, 71.49, 86.33, 77.61, 90.55, 80.19),
        "DenseCLIP": (71.85, 53.34, 70.97, 63.53, 54.93, 79.32, 56.38, 68.08, 70.30, 34.12, 89.29, 53.39),
        "ZegCLIP": (72.08, 61.08, 73.57, 71.75, 52.41, 78.46, 53.46, 69.75, 76.65, 66.31, 81.45, 38.60),
        "SAN": (77.99, 64.37, 74.15, 58.13, 61.98, 83.16, 61.82, 74.46, 85.27, 71.60, 91.39, 82.51),
        "MaPLe": (66.37, 50.08, 71.52, 70.77, 57.81, 76.12, 48.09, 59.64, 75.40, 45.19, 88.31, 69.12),
        "MaPLe + decoder": (80.49, 55.89, 64.96, 60.66, 59.44, 83.46, 61.53, 71.20, 85.08, 71.46, 90.10, 81.83),
        "VLSM-Adapter": (80.90, 68.48, 82.37, 75.26, 69.16, 85.89, 63.51, 76.09, 85.03, 68.92, 91.30, 82.17),
        "CausalCLIPSeg": (76.11, 55.87, 69.12, 64.49, 48.90, 78.77, 41.65, 57.54, 81.71, 53.96, 89.47, 48.73),
        "CAT-Seg": (81.83, 70.94, 81.48, 73.37, 70.30, 86.43, 68.49, 70.35, 84.86, 76.28, 91.27, 82.02),
        OURS: (85.72, 75.06, 84.37, 78.99, 74.64, 90.15, 71.90, 80.80, 88.03, 80.92, 92.54, 83.53),
    }.items()
}
"""Method → test set → DSC after training on all of its source. CVC300 and BKAI are not published."""

DOMAIN_MEANS: dict[str, tuple[float, float, float]] = {
    "LViT": (83.31, 64.99, 73.02),
    "CLIPSeg": (84.95, 69.22, 76.28),
    "DenseCLIP": (77.69, 58.11, 66.49),
    "ZegCLIP": (77.16, 61.33, 68.34),
    "SAN": (84.45, 69.87, 76.47),
    "MaPLe": (76.55, 59.30, 66.83),
    "MaPLe + decoder": (84.78, 66.85, 74.76),
    "VLSM-Adapter": (85.78, 73.28, 79.04),
    "CausalCLIPSeg": (81.52, 53.86, 64.86),
    "CAT-Seg": (86.10, 74.57, 79.92),
    OURS: (89.11, 79.02, 83.76),
}
"""Method → mean DSC over the four sources (ID), over their targets (OOD), and the harmonic mean of the two."""

PROMPT_DESIGNS: dict[str, tuple[float, float, float]] = {
    "original": DOMAIN_MEANS[OURS],
    "contradictory": (68.60, 63.21, 65.79),
    "missing_location": (86.98, 77.75, 82.11),
    "overdescriptive": (82.93, 74.49, 78.48),
    "underdescriptive": (66.91, 49.38, 56.82),
}
"""Design of the test prompts → ID, OOD and harmonic mean of MedCLIPSeg, as in DOMAIN_MEANS."""

_KNOWN = {name.lower(): name for name in (*AVERAGED, *TARGETS, *(t for targets in TARGETS.values() for t in targets))}


def canonical(name: str) -> str:
    """The published spelling of a data set's name, or the name itself; upper and lower case do not matter."""
    return _KNOWN.get(name.lower(), name)


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 if either is."""
    return 2 * a * b / (a + b) if a and b else 0.0
