"""Export of classifiers to files for other programs."""
