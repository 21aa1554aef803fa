"""Evaluation: from predictions to scores, each with its interval over other possible images."""
