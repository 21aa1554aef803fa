"""Questions to multimodal models about images of a data set (tables VIII and IX of the paper)."""
