"""From predictions to scores, each with what other pictures could have made of it."""
