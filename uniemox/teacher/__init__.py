"""Frozen teachers: what Ω (images) and Λ (texts) come from."""

from uniemox.teacher.clip import ClipTeacher
from uniemox.teacher.fitted import FittedTeacher
from uniemox.teacher.image_towers import OnnxImageTower, TimmImageTower
from uniemox.teacher.opening import open_teacher
from uniemox.teacher.protocol import ImageTower, PairedTeacher, Teacher, TextTower
from uniemox.teacher.stored import StoredTeacher, save_features
from uniemox.teacher.text_cache import TextCachedTeacher

__all__ = [
    "ClipTeacher",
    "FittedTeacher",
    "ImageTower",
    "OnnxImageTower",
    "PairedTeacher",
    "StoredTeacher",
    "Teacher",
    "TextCachedTeacher",
    "TextTower",
    "TimmImageTower",
    "open_teacher",
    "save_features",
]
