"""People in an image: boxes, detectors, crops. Does not import torch and knows no data sets."""
