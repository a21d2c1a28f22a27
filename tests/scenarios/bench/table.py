"""Print the figures of two systems side by side, with their ratio."""

from collections.abc import Mapping
from statistics import median

#: The figures of all rounds, by the name of a measurement and the system.
Figures = dict[tuple[str, str], list[float]]


def print_table(figures: Figures, titles: Mapping[str, str], *, width: int) -> None:
    """Print the medians over the rounds, and the median of the rounds' ratios.

    `titles` are those of the two systems, and `width` is that of the names of measurements.
    """
    print("".join([" " * width, *(f" {title:>10}" for title in titles.values()), f" {'ratio':>8}"]))
    for name in dict.fromkeys(name for name, _ in figures):
        left, right = (figures[name, system] for system in titles)
        ratio = median(b / a for a, b in zip(left, right, strict=True))
        print(f"{name:{width}} {median(left):10.2f} {median(right):10.2f} {ratio:8.2f}")
