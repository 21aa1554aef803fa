"""`uniemox search`: similarity, emotion and mood through an index in the folder."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import uniemox
from tests.drawn import draw_image
from tests.insight.photos import FLAGS_BLANK_ONLY, few_images_model, stored
from tests.runs import uniemox_here
from uniemox.errors import ConfigError, DataError
from uniemox.insight.index import Index, update_index
from uniemox.insight.index_file import INDEX
from uniemox.insight.mood import Condition
from uniemox.insight.search import Query, matches_text, search, search_folder, value_text
from uniemox.predict.opening import load


@pytest.mark.thorough
def test_the_command_finds_an_image_by_its_copy_and_follows_the_folder(photos: Path, tmp_path: Path) -> None:
    draw_image(3).save(tmp_path / "copy.png")
    words = ("search", photos, "--model", "small", "--like", tmp_path / "copy.png", "--unfamiliar", "--json")
    done = uniemox_here(*words, "--out", tmp_path / "found.html")
    assert done.returncode == 3, done.stderr
    assert "1 of 7 images could not be read\n" in done.stderr
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(hits) == 6
    assert hits[0]["path"] == str(photos / "inner" / "3.png")
    assert hits[0]["score"] > 0.999 > hits[1]["score"]
    page = (tmp_path / "found.html").read_text()
    # The score is a cosine, not a share in percent.
    assert "similarity 1.00" in page
    assert "similarity: cosine" in page
    assert "<dt>model</dt><dd>small</dd>" in page
    links = re.findall(r'<a href="([^"]*)"', page)
    expected = [tmp_path / "copy.png", *(Path(hit["path"]) for hit in hits)]
    assert [(tmp_path / unquote(link)).resolve() for link in links] == expected
    (photos / "inner" / "3.png").unlink()
    draw_image(9).save(photos / "9.png")
    again = uniemox_here(*words)
    # The broken image was tried again with the new one.
    assert "1 of 7 images could not be read" in again.stderr
    paths = {Path(json.loads(line)["path"]).name for line in again.stdout.splitlines()}
    assert paths == {"0.png", "1.png", "2.png", "4.png", "5.png", "9.png"}


def test_paths_begin_with_the_folder_as_it_was_given(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    results = search_folder(load("small"), Path("photos"), Query(mood="valence>1", unfamiliar=True))
    assert {hit.path for hit in results.hits} == {f"photos/{'inner/' * (i % 2)}{i}.png" for i in range(6)}


@pytest.mark.thorough
def test_unreadable_images_are_named_as_the_folder_once_and_then_counted(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    # A broken link is tried again in every call.
    (photos / "gone.jpg").symlink_to("nowhere")
    words = ("search", "photos", "--model", "small", "--emotion", "awe")
    first = uniemox_here(*words)
    assert [line.split(":")[0] for line in first.stderr.splitlines()[:2]] == ["photos/broken.jpg", "photos/gone.jpg"]
    listing = f"grep '\"error\"' {stored(photos)} lists them"
    again = uniemox_here(*words)
    (photos / "gone.jpg").unlink()
    # This call tries no image again.
    last = uniemox_here(*words)
    assert [done.returncode for done in (first, again, last)] == [3, 3, 3]
    assert f"2 of 8 images could not be read; {listing}" in again.stderr
    assert f"1 of 7 images could not be read; {listing}" in last.stderr
    assert "broken.jpg" not in again.stderr + last.stderr
    (photos / "new.jpg").write_bytes(b"no image")
    (photos / "broken.jpg").unlink()
    assert uniemox_here(*words).stderr.startswith("photos/new.jpg: not an image")


def test_the_image_that_is_searched_for_is_no_hit(photos: Path) -> None:
    query = Query(like=photos / "inner" / "3.png", unfamiliar=True)
    results = search_folder(load("small"), photos, query)
    assert {Path(hit.path).name for hit in results.hits} == {"0.png", "1.png", "2.png", "4.png", "5.png"}


@pytest.mark.thorough
def test_the_searched_folder_is_a_query_and_its_only_image_finds_nothing(photos: Path) -> None:
    predictor = load("small")
    results = search_folder(predictor, photos, Query(like=photos, unfamiliar=True), report=list[str]().append)
    assert len(results.hits) == 6
    assert results.query_note == "the query has all searched images, so none is left out: the most typical come first"
    shutil.copytree(photos / "inner", photos.parent / "alone")
    for name in ("1.png", "5.png"):
        (photos.parent / "alone" / name).unlink()
    only = photos.parent / "alone" / "3.png"
    nothing = search_folder(predictor, only.parent, Query(like=only, unfamiliar=True))
    assert (nothing.hits, nothing.query_note) == ((), "1 image was left out: it is the query")


def test_a_folder_as_query_means_the_mean_of_its_images(photos: Path) -> None:
    predictor = load("small")
    inner = predictor.embed(str(photos / "inner")).mean(axis=0)
    results = search_folder(predictor, photos, Query(like=photos / "inner", unfamiliar=True))
    assert {Path(hit.path).name for hit in results.hits} == {"0.png", "2.png", "4.png"}
    assert results.query_note == "3 images were left out: they are the query"
    for hit in results.hits:
        features = predictor.embed(hit.path)[0]
        cosine = features @ inner / np.linalg.norm(features) / np.linalg.norm(inner)
        assert hit.score == pytest.approx(cosine, abs=2e-3)


def test_a_condition_on_faces_makes_another_index_with_faces(photos: Path) -> None:
    predictor = load("small", faces="find")
    results = search_folder(predictor, photos, Query(mood="faces>=0 people<1", unfamiliar=True))
    assert len(results.hits) == 6
    assert results.hits[0].values["faces"] == 0
    assert '"faces": []' in stored(photos).read_text()
    with pytest.raises(ConfigError, match=r'load\(faces="find"\)'):
        search_folder(load("small"), photos, Query(mood="faces>0"))


def test_a_pattern_that_names_several_images_is_refused(photos: Path) -> None:
    done = uniemox_here("search", photos, "--like", photos / "0.png", photos / "2.png")
    assert done.returncode == 2
    assert f"give one folder and one image; {photos / '2.png'} is extra" in done.stderr.replace("\n", "")


FOUR = Index(
    np.array(["a", "b", "c", "d"]),
    ("awe", "valence", "arousal", "people"),
    np.array([[0.1, 8, 3, 0], [0.7, 7.5, 6, 2], [0.2, 3, 2, 0], [0.9, 8, 2, 1]], np.float32),
    np.array([False, False, False, True]),
    np.eye(4, 128, dtype=np.int8),
)


def paths_of(**query: object) -> list[str]:
    return [hit.path for hit in search(FOUR, Query(**query)).hits]  # type: ignore[arg-type]


def test_conditions_narrow_and_the_first_one_orders() -> None:
    assert paths_of(emotion="awe") == ["b", "c", "a"]
    assert paths_of(emotion="awe", mood="valence>7", count=1) == ["b"]
    assert paths_of(mood="arousal<=3 valence >= 3") == ["c", "a"]
    assert paths_of(mood="people>=1") == ["b"]
    assert search(FOUR, Query(mood="valence>7 arousal<4")).hits[0].values == {
        "awe": pytest.approx(0.1),
        "valence": 8.0,
        "arousal": 3.0,
        "people": 0.0,
    }
    assert paths_of(mood="valence>8.5") == []


def test_an_emotion_is_spelled_in_any_case_and_an_unknown_one_names_the_model(photos: Path) -> None:
    predictor = load("small")
    expected = search_folder(predictor, photos, Query(emotion="awe", unfamiliar=True))
    assert search_folder(predictor, photos, Query(emotion="Awe ", unfamiliar=True)) == expected
    found = search_folder(predictor, photos, Query(mood="valence>1 awe>0.01", unfamiliar=True))
    assert search_folder(predictor, photos, Query(mood="Valence > 1, AWE > 0.01", unfamiliar=True)) == found
    with pytest.raises(ConfigError, match=r"small has no label 'calm'; choose one of amusement, .*, or give a mood"):
        search_folder(predictor, photos, Query(emotion="calm"))
    with pytest.raises(DataError, match=r"0\.png is a file; give the folder of the images"):
        search_folder(predictor, photos / "0.png", Query(emotion="awe"))


def test_all_matches_are_counted_and_values_compare_as_they_are_shown() -> None:
    results = search(FOUR, Query(emotion="awe", count=2))
    assert (len(results.hits), results.matches, results.searched) == (2, 3, 4)
    assert matches_text(results) == "2 of 3 matching images"
    assert matches_text(search(FOUR, Query(mood="people>=1"))) == "1 matching image"
    # 4.998 is shown as 5.00.
    [below, at] = Condition("arousal", "<", 5.0).holds(np.array([4.994, 4.998], np.float32))
    assert (below, at) == (True, False)


def test_a_broken_image_in_a_folder_to_compare_with_is_reported(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "inner", tmp_path / "query")
    (tmp_path / "query" / "cut.jpg").write_bytes(b"\xff\xd8")
    notes: list[str] = []
    results = search_folder(load("small"), photos, Query(like=tmp_path / "query", unfamiliar=True), report=notes.append)
    assert len(results.hits) == 6
    assert [note for note in notes if "cut.jpg" in note and note.endswith("left out of the query")] == notes


def test_guesses_are_left_out_and_counted_unless_they_are_asked_for() -> None:
    results = search(FOUR, Query(emotion="awe"))
    assert results.guesses == 1
    assert results.guesses_note == (
        "1 further image matches, but with predictions that are guesses (d would be number 1)"
    )
    # Below the last result, it would not be shown anyway.
    assert search(FOUR, Query(mood="valence>1", count=1)).first_guess == ""
    everything = search(FOUR, Query(emotion="awe", unfamiliar=True))
    assert [(hit.path, hit.is_unfamiliar) for hit in everything.hits][:2] == [("d", True), ("b", False)]
    assert everything.guesses == 0


def test_a_mood_selects_images_that_satisfy_all_conditions() -> None:
    assert paths_of(mood="awe>60% people=2") == ["b"]
    assert paths_of(mood="people=0 valence<9") == ["a", "c"]
    with pytest.raises(ConfigError, match="hardly any value is equal; write valence>7 or valence<7"):
        search(FOUR, Query(mood="valence=7"))


def test_all_values_that_a_search_asks_for_are_shown(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    words = ("search", "photos", "--model", "small", "--unfamiliar", "--mood", "valence>1 people>=0 awe > 0%")
    lines = uniemox_here(*words, "--out", "found.html").stdout.splitlines()
    heading = [cell.strip() for cell in lines[1].strip("┃").split("┃")]
    assert heading == ["image", "valence", "people", "awe"]
    hits = [json.loads(line) for line in uniemox_here(*words, "--json").stdout.splitlines()]
    cells = [cell.strip() for cell in lines[3].strip("│").split("│")]
    best = hits[0]
    valence = f"{best['valence']:.2f}{' (a guess)' * best['is_unfamiliar']}"
    assert cells == [best["path"], valence, str(int(best["people"])), f"{best['awe']:.2f}"]
    other = [word.replace("people", "People").replace("awe", "Awe") for word in words]
    assert uniemox_here(*other).stdout.splitlines() == lines
    page = (photos.parent / "found.html").read_text()
    words = re.sub("<[^>]*>", "", page)
    assert f"valence {best['valence']:.2f} people {best['people']:.0f} awe {best['awe']:.2f}" in words
    assert "<dd>valence&gt;1, people&gt;=0, awe&gt;0</dd>" in page


def test_a_value_at_the_end_of_the_scale_is_marked() -> None:
    assert value_text("valence", 9.0) == "9.00 (end of the scale)"
    assert value_text("arousal", 1.0) == "1.00 (end of the scale)"
    assert (value_text("awe", 1.0), value_text("people", 9.0), value_text("valence", 8.99)) == ("1.00", "9", "8.99")


@pytest.mark.parametrize(
    ("mood", "values"), [("awe>50", "0 to 1"), ("valence>9.5", "1 to 9"), ("people<-1", "0 or more")]
)
def test_a_limit_that_no_value_reaches_is_refused(mood: str, values: str) -> None:
    with pytest.raises(ConfigError, match=f"has values from {values}"):
        search(FOUR, Query(mood=mood))


def test_an_unknown_name_lists_the_columns_that_the_index_has(photos: Path) -> None:
    predictor = load("small", finder=None)
    columns = update_index(predictor, photos).columns
    assert "people" not in columns
    with pytest.raises(ConfigError) as caught:
        search_folder(predictor, photos, Query(mood="is_colourless>0"))
    message = str(caught.value)
    assert "it is a field of predict's answers, but not of the index" in message
    assert message.endswith(f"; choose one of {', '.join(columns)}")


def test_an_unknown_name_lists_the_columns() -> None:
    with pytest.raises(ConfigError, match="no 'joy'; choose one of awe, valence, arousal"):
        search(FOUR, Query(emotion="joy"))
    with pytest.raises(ConfigError, match="give a criterion"):
        Query()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("valence", r"few\.onnx does not predict valence; use a model that does, such as the package's own"),
        ("arousal", r"few\.onnx does not predict arousal; .* fit ratings of your own \(uniemox calibrate --ratings\)"),
        ("familiarity", r"few\.onnx has no familiarity: the model can't compare images with its training images"),
        ("people", "needs a predictor with a finder"),
        ("faces", r'load\(faces="find"\)'),
        ("joy", r"few\.onnx has no label 'joy'; choose one of happy, sad$"),
    ],
)
def test_a_value_that_only_other_models_predict_is_refused_with_the_true_reason(
    photos: Path, name: str, reason: str
) -> None:
    predictor = load(few_images_model(photos.parent, held_out=0), finder=None)
    with pytest.raises(ConfigError, match=reason) as caught:
        search_folder(predictor, photos, Query(mood=f"{name}>1"))
    assert "not of the index" not in str(caught.value)


def test_the_example_of_an_unknown_emotion_is_one_that_the_model_can_answer(photos: Path) -> None:
    predictor = load(few_images_model(photos.parent), finder=None)
    with pytest.raises(
        ConfigError, match=r"no label 'joy'; choose one of happy, sad, or give a mood, such as 'happy>0.5'"
    ):
        search_folder(predictor, photos, Query(emotion="joy"))


def test_a_model_that_flags_only_blank_images_says_so_in_the_terminal_and_on_the_page(
    photos: Path, tmp_path: Path
) -> None:
    model = few_images_model(tmp_path)
    words = ("search", photos, "--model", model, "--emotion", "happy", "--out", tmp_path / "found.html")
    assert FLAGS_BLANK_ONLY in uniemox_here(*words).stderr
    # Also if nothing has to be predicted.
    assert FLAGS_BLANK_ONLY in uniemox_here(*words, "--json").stderr
    assert FLAGS_BLANK_ONLY in (tmp_path / "found.html").read_text()
    with pytest.warns(UserWarning, match=FLAGS_BLANK_ONLY):
        uniemox.search(photos, emotion="happy", predictor=load(model))


def test_an_overwritten_image_is_predicted_again(photos: Path) -> None:
    predictor = load("small", finder=None)
    query = Query(mood="valence>=1", unfamiliar=True)
    before = {hit.path: hit.values for hit in search_folder(predictor, photos, query).hits}
    draw_image(77).save(photos / "0.png")
    (photos / "2.png").write_bytes(b"no image")
    answered = list[int]()
    results = search_folder(predictor, photos, query, watch=lambda answers: answered.append(len(list(answers))))
    after = {hit.path: hit.values for hit in results.hits}
    assert answered == [3]  # these two, and the one that never could be read
    assert before.keys() - after.keys() == {str(photos / "2.png")}
    assert [path for path in after if after[path] != before[path]] == [str(photos / "0.png")]


@pytest.mark.parametrize("name", ["nope", "empty"])
def test_a_missing_or_empty_folder_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"{name}: "):
        search_folder(load("small"), tmp_path / name, Query(emotion="awe"))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("query", "out", "reason"),
    [
        (Query(emotion="hapiness"), None, "no label 'hapiness'"),
        (Query(emotion="valence"), None, "no label 'valence'"),
        (Query(mood="valence>12"), None, "values from 1 to 9"),
        (Query(mood="joyful>0.5"), None, "small has no label 'joyful'; choose one of amusement"),
        (Query(mood="valense=7"), None, r"no label 'valense' \(did you mean 'valence'\?\); choose one of"),
        (Query(mood="aw>0.5"), None, r"no label 'aw' \(did you mean 'awe'\?\)"),
        (Query(mood="Awe>50"), None, "the mood awe>50: awe has values from 0 to 1; 50 % is 0.5"),
        (Query(mood="persons>0"), None, "the index has no 'persons'; it is called people there; choose one of"),
        (Query(mood="Persons>0"), None, "the index has no 'persons'; it is called people there; choose one of"),
        (Query(mood="people_feel=0"), None, "it is a field of predict's answers, but not of the index"),
        (Query(mood="dominance>3"), None, "small does not predict dominance; use a model that has learned it"),
        (Query(emotion="awe"), "photos/0.png", r"ends in \.html"),
    ],
)
def test_mistakes_are_reported_before_anything_is_predicted(
    photos: Path, query: Query, out: str | None, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        search_folder(load("small"), photos, query, out=None if out is None else photos.parent / out)
    assert not (photos / INDEX).exists()
