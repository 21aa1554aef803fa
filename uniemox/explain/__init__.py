"""From a prediction to its evidence: which parts of the picture speak for an answer."""
