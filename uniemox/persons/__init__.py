"""From an image to the people in it: boxes, detectors, crops. Needs no torch and knows no data set."""
