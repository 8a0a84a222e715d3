"""Labels and classes."""

import math


def sort_classes(labels: set[str]) -> list[str]:
    """Sort labels as numbers if all of them are numbers, else as text."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return sorted(labels)
    if any(map(math.isnan, numbers.values())):  # NaN has no place in an order
        return sorted(labels)
    return sorted(labels, key=lambda label: (numbers[label], label))
