"""From a picture to the people in it: boxes, detectors, crops. Needs no torch and knows no data set."""
