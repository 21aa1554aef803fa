"""From a sample to the model's input: views, patches, masks."""
