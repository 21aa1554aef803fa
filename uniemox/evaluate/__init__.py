"""From predictions to scores, each with what other images could have made of it."""
