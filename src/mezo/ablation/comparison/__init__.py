"""What the scores of a study amount to: comparisons, intervals, quantities."""
