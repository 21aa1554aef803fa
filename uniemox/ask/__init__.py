"""Questions to multimodal models about pictures of a data set (tables VIII and IX of the paper)."""
