"""Experiment: does a strong published start gain from the full objective, and more than from distillation alone?"""
