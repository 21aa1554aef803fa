"""From a sample to the model's input: patches, masks."""
