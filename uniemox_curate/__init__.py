"""Building an emotion data set as Emo8 was built: collect, screen, annotate, agree, split, release."""
