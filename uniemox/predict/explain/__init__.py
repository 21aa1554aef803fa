"""From a prediction to its evidence: which parts of the image speak for an answer."""
