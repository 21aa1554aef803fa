"""A datasheet says what is recorded about answers and images, not what the plan intended."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mlcroissant as mlc
from sqlalchemy import insert, select, update

from tests.curate.places import LABELS, PLAN, project_of, say
from tests.curate.test_label_studio import annotation, choice, export
from tests.curate.test_release import agreed, rows_of, sums_match
from uniemox.data.source import open_data
from uniemox.labels import CAER
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import agree_to
from uniemox_curate.annotate.answer_import import import_label_studio
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.decisions import Change, append
from uniemox_curate.plan import AnswerForm, CollectionPlan
from uniemox_curate.project import Project
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.documents import source_options
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split
from uniemox_curate.release.takedown import take_down

RATIOS = {"train": 0.6, "val": 0.2, "test": 0.2}
FORM = AnswerForm(several=True, intensity=True, affect=True, consent="I take part of my own free will.")
ASKING = replace(PLAN, answer=FORM)


def asking(folder: Path, plan: CollectionPlan = ASKING) -> Project:
    """A project of 12 images whose pages ask for ratings, several labels and consent."""
    return project_of(folder / "p", [LABELS[i % 2] for i in range(12)], plan, looks=True)


def import_answers(project: Project, folder: Path, people: Sequence[int], labels: Sequence[str]) -> None:
    """Import an answer of each person to each image from Label Studio."""
    tasks = [[annotation(choice(labels[i % len(labels)]), who=who) for who in people] for i in range(12)]
    assert import_label_studio(project, export(folder, *tasks)).new == 12 * len(people)


def labelling_of(project: Project, folder: Path, *, is_split: bool = False) -> str:
    """Release a project, and return the section of its datasheet about answers."""
    if not is_split:
        split(project, verdicts(project), RATIOS, schemes=1)
    release(project, folder / "out", ReleaseConfig(name="x"))
    return section_of(folder / "out", "Labelling")


def section_of(release_folder: Path, title: str) -> str:
    return (release_folder / "README.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_nobody_saw_the_questions_of_the_plan_if_all_answers_were_imported(tmp_path: Path) -> None:
    project = asking(tmp_path)
    import_answers(project, tmp_path, (1, 2), LABELS)
    text = labelling_of(project, tmp_path)
    assert "24 answers of 2 annotators" in text
    assert "24 answers were imported from Label Studio" in text
    assert "How long the answers took is not recorded." in text
    assert "It is not recorded that an annotator agreed to it" in text
    for claim in ("random order", "search words", "rated", "Ratings", "ratings.csv", "several labels", "curate serve"):
        assert claim not in text, claim
    assert not (tmp_path / "out" / "ratings.csv").exists()


def test_answers_of_pages_and_of_label_studio_are_counted_apart(tmp_path: Path) -> None:
    """Ada agreed to the consent text, and Ben did after his answers. A takedown removes an image from the counts."""
    project = asking(tmp_path)
    say(project, Ada="af" * 6, Ben="af" * 6)
    import_answers(project, tmp_path, (7,), LABELS)
    for person, at in ((1, -1.0), (2, 9.0)):
        agree_to(project, person)
        with project.store.write() as connection:
            connection.execute(update(t.consents).where(t.consents.c.person_id == person).values(at=at))
    with project.store.write() as connection:
        for row in project.rows(select(t.answers).where(t.answers.c.id <= 12)):
            content = {"labels": [row.label, *({*LABELS} - {row.label})], "valence": 7}
            connection.execute(insert(t.details).values(answer_id=row.id, content=json.dumps(content)))
    text = labelling_of(project, tmp_path)
    for sentence in (
        "24 answers were given on the pages of `uniemox curate serve`, which show each annotator the images",
        "12 answers were imported from Label Studio",
        "The median time for an answer was 1.5 s (recorded for 24 answers).",
        "12 answers have several labels",
        "Ratings (means in `ratings.csv`): valence from 1 to 9 in 12 answers.",
        "Of the 3 annotators, 1 agreed to it before their first answer; for the others, no such consent is recorded.",
    ):
        assert sentence in text, sentence
    assert "arousal" not in text
    take_down(project, project.rows(select(t.images.c.sha256))[0].sha256, because="asked")
    text = section_of(tmp_path / "out", "Labelling")
    assert "33 answers of 3 annotators" in text
    assert "22 answers were given on the pages" in text
    assert "valence from 1 to 9 in 11 answers." in text


def test_authors_in_several_splits_are_reported(tmp_path: Path) -> None:
    """As after an author was corrected. The makers' label does not mean that annotators disagreed."""
    project = agreed(tmp_path)
    with project.store.write() as connection:
        connection.execute(update(t.candidates).where(t.candidates.c.picture_id <= 2).values(author="Jane"))
    split(project, verdicts(project), RATIOS, schemes=1)
    release(project, tmp_path / "out", ReleaseConfig(name="x", licence="CC0-1.0"))
    assert json.loads((tmp_path / "out" / "croissant.json").read_text())["license"] == ["CC0-1.0", "by 2.0"]
    assert "All images of one author or page are in one split." in section_of(tmp_path / "out", "Cleaning")
    with project.store.write() as connection:
        connection.execute(update(t.candidates).values(author="Jane"))
        append(connection, actor="owner", step="judge", note="", changes=[Change(1, "verdict", "fear")])
    text = labelling_of(project, tmp_path, is_split=True)
    assert "The makers decided the label of 1 image, whatever the answers are" in text
    assert "did not agree" not in text
    assert "consent" not in text
    assert "1 author or page has images in several splits." in section_of(tmp_path / "out", "Cleaning")


def test_options_that_read_a_release_depend_on_the_labels_with_images() -> None:
    """CAER-S's labels are felt by themselves, but two of them are not recognised."""
    plan = CollectionPlan(keywords=dict.fromkeys(CAER.labels, ()), kind="felt")
    classes = {label: {"train": 1} for label in CAER.labels}
    assert source_options(plan, {"classes": classes}) == ""
    assert source_options(plan, {"classes": classes}, "pictures") == "?root=pictures"
    few = {label: {"train": int(label in CAER.labels[:2])} for label in CAER.labels}
    assert source_options(plan, {"classes": few}, "pictures") == "?root=pictures&kind=felt"


def test_a_takedown_keeps_the_form_of_a_release_of_an_older_version(tmp_path: Path) -> None:
    """Its record does not say how answers were given, and the paths of its tables begin below the images' folder."""
    project = asking(tmp_path)
    say(project, Ada="af" * 6, Ben="af" * 6)
    for person in (1, 2):
        agree_to(project, person)
    with project.store.write() as connection:
        connection.execute(update(t.consents).values(at=0.0))
    assert "All annotators agreed to it before their first answer." in labelling_of(project, tmp_path)
    with project.store.write() as connection:
        [record] = connection.execute(select(t.release_records)).all()
        content = {k: v for k, v in json.loads(record.content).items() if k not in ("consenting", "image_root")}
        connection.execute(update(t.release_records).values(content=json.dumps(content)))
        for row in connection.execute(select(t.released_images)).all():
            image = json.loads(row.content)
            image["answers"] = [answer[:3] for answer in image["answers"]]
            same = t.released_images.c.picture_id == row.picture_id
            connection.execute(update(t.released_images).where(same).values(content=json.dumps(image)))
    done = take_down(project, project.rows(select(t.images.c.sha256))[0].sha256, because="asked")
    assert done.problems == ()
    out = tmp_path / "out"
    text = section_of(out, "Labelling")
    assert "For 22 answers, the origin is not recorded." in text
    assert "It is not recorded which annotators agreed to it." in text
    assert len(open_data(f"csv:{out / 'labels.csv'}?root=pictures")) == 11
    assert "`csv:labels.csv?root=pictures`" in (out / "README.md").read_text()
    assert rows_of(out / "answers.csv")[0]["path"].partition("/")[0] in RATIOS
    assert sums_match(out)
    records = list(mlc.Dataset(jsonld=out / "croissant.json").records("pictures"))
    assert len(records) == 11
    assert {record["pictures/label"] for record in records} == {b"awe", b"fear"}
