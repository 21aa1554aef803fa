"""Images in text are read or refused, and no message repeats a photograph."""

import base64
import json
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.drawn import draw_image, jpeg_of
from tests.images import draw, save
from tests.predict.networks import as_prediction
from uniemox.errors import ImageError
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor

JPEG = jpeg_of(draw_image(3, (90, 60)))
TEXT = base64.b64encode(JPEG).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/jpeg;base64,{TEXT}",
        f"DATA:image/jpg;charset=utf-8;BASE64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"  data:image/jpeg;base64,{TEXT}\n",
        "data:image/jpeg;base64," + "\r\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)),
        f"data:image/jpeg;base64,{base64.urlsafe_b64encode(JPEG).decode().rstrip('=')}",
        f"data:image/jpeg;base64,{quote(TEXT, safe='')}",
        f"data:image/jpeg,{quote(JPEG)}",
    ],
)
def test_data_urls_are_read(predictor: Predictor, text: str) -> None:
    expected = as_prediction(predictor.predict(JPEG))
    prediction = as_prediction(predictor.predict(text))
    assert prediction.to_dict() == expected.to_dict()
    assert prediction.path is None
    assert prediction.plot().size == expected.plot().size
    [in_a_list] = predictor.predict_many([text])
    assert isinstance(in_a_list, Prediction)
    assert in_a_list.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"data:image/jpeg;base64,{TEXT[:-8]}*{TEXT[-8:]}", "base64 of this data URL is damaged"),
        (f"data:image/jpeg;base64,{TEXT[:3000]}", "cut off or corrupt"),
        ("data:image/jpeg;base64,", "the file is empty"),
        (f"data:text/html;base64,{base64.b64encode(b'<p>' * 1000).decode()}", "not an image of a known format"),
        (TEXT, "put data:image/jpeg;base64, in front of it"),
        (base64.b64encode(save(draw(), "PNG")).decode(), "put data:image/jpeg;base64, in front of it"),
        (base64.b64encode(save(draw(400, 300), "TIFF")).decode(), "put data:image/jpeg;base64, in front of it"),
        ("photos/" * 500 + "a.jpg", "can't be read"),
        ("x" * 100_000, "can't be read"),
        ("https://example.com/a.jpg?" + "x" * 3000, "can't be read|not fetched"),
        # With rawpy installed, the file itself is looked for.
        ("photos/" * 500 + "a.nef", "NEF|can't be read"),
        ("photos/" * 500 + "a.mp4", "a video"),
    ],
    ids=range(12),
)
def test_no_message_repeats_more_than_200_characters(predictor: Predictor, text: str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as raised:
        predictor.predict(text)
    trace = "".join(traceback.format_exception(raised.value))
    [failed] = predictor.predict_many([text])
    assert isinstance(failed, Failure)
    assert failed.error == str(raised.value)
    messages = [str(raised.value), trace, repr(failed.error)]
    if len(text) > 4096 or text.startswith("data:"):
        messages.append(json.dumps(failed.to_dict()))
    excerpts = [text[i : i + 201] for i in range(0, len(text) - 201, 50)]
    assert not [part for part in excerpts for message_text in messages if part in message_text]
    assert len(str(raised.value)) < 600


def test_an_existing_file_named_like_a_data_url_is_read(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data:a,b.jpg").write_bytes(JPEG)
    assert as_prediction(predictor.predict("data:a,b.jpg")).path == "data:a,b.jpg"
