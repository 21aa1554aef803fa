"""The next step: the same in all commands and pages, and stale splits and releases are named."""

import json
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from tests.curate.conftest import ADDRESS, Browser
from tests.curate.places import number_of, project_of, say, take_back
from tests.data.tree import says
from uniemox.errors import DataError
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import invite
from uniemox_curate.annotate.agree import agree
from uniemox_curate.annotate.answers import AnswerIn, save_answers
from uniemox_curate.annotate.web import create_app
from uniemox_curate.cli.curate import curate
from uniemox_curate.collect.screen import screen
from uniemox_curate.decisions import Change, append, leave_out, undo
from uniemox_curate.project import SKIP, Project, create_project
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release as write_release
from uniemox_curate.release.splitting import split as draw_split
from uniemox_curate.release.takedown import take_down
from uniemox_curate.status import status

# Labels of the search words.
SEARCHED = ("awe", "fear") * 10
ALL_RIGHT = "af" * 10


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Twenty screened images."""
    return project_of(tmp_path / "p", SEARCHED, looks=True)


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command, and return the next step that it prints."""
    curate([str(argument) for argument in arguments], exit_on_error=False, result_action="return_none")
    printed = capsys.readouterr()
    [line] = [line for line in (printed.out + printed.err).splitlines() if line.startswith("next: ")]
    return line.removeprefix("next: ")


def split(capsys: pytest.CaptureFixture[str], project: Project, *options: object) -> str:
    return command(capsys, "split", project.folder, "--schemes", 1, "--ratio", "60/20/20", *options)


def release(capsys: pytest.CaptureFixture[str], project: Project, *options: object) -> str:
    return command(capsys, "release", project.folder, project.folder.parent / "out", "--name", "A b", *options)


def answer_again(project: Project, name: str, labels: dict[int, str]) -> None:
    """Replace answers of a person to some images."""
    with project.store.write() as connection:
        person = connection.scalar(select(t.people.c.id).where(t.people.c.name == name))
        for image, label in labels.items():
            query = select(t.tasks.c.id).where(t.tasks.c.person_id == person, t.tasks.c.picture_id == image)
            new_answer = AnswerIn(id=f"again-{name}-{image}", task=connection.scalar(query), label=label, seconds=1.0)
            save_answers(connection, [(person, new_answer)])


def judge(project: Project, labels: dict[int, str]) -> int | None:
    """Decide about images as the owner, and return the number of the step."""
    with project.store.write() as connection:
        changes = [Change(image, "verdict", label) for image, label in labels.items()]
        return append(connection, actor="owner", step="by hand", note="", changes=changes)


@pytest.fixture
def released(project: Project, capsys: pytest.CaptureFixture[str]) -> Project:
    """A project with a release of sixteen images; on four, the annotators disagree."""
    say(project, ada=ALL_RIGHT, ben="fafa" + ALL_RIGHT[4:])
    command(capsys, "agree", project.folder)
    split(capsys, project)
    assert release(capsys, project).startswith("nothing must be done; 4 images without agreement")
    return project


def test_after_new_answers_agree_then_split_then_release_is_next(
    released: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = released.folder
    answer_again(released, "ben", {1: "awe", 2: "fear"})
    now_kept = "the rule keeps 18 images now instead of 16"
    state = status(released, str(folder))
    assert (state.next.command, state.next.reason) == (f"uniemox curate agree {folder}", "2 answers came later")
    assert state.sentences["split"].endswith(f"; stale: {now_kept}")
    assert state.sentences["release"].endswith(f"/out (stale: {now_kept})")
    again = f"uniemox curate split {folder} --ratio 60/20/20 --schemes 1"
    assert command(capsys, "agree", folder) == f"{again} (the split is stale: {now_kept})"
    again = f"uniemox curate release {folder} {folder.parent / 'out'} --name 'A b' (the release is stale: {now_kept})"
    assert split(capsys, released) == again
    assert "stale" not in status(released).sentences["split"]
    assert release(capsys, released).startswith("nothing must be done; 2 images")


def test_the_same_number_of_images_with_other_labels_is_stale(released: Project) -> None:
    batch = judge(released, {5: "fear"})
    assert batch is not None
    state = status(released)
    assert state.progress.agree.kept == 16
    assert "not the same images and labels" in state.progress.split.change
    assert "not the same images and labels" in state.progress.release.change
    take_back(released.store, batch)
    assert status(released).next.command.startswith("nothing must be done")


def test_another_split_makes_the_release_stale(released: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the release is stale: the split was drawn again" in split(capsys, released, "--seed", 1)
    assert split(capsys, released, "--seed", 0).startswith("nothing must be done")  # the same one as before


def test_another_rule_makes_the_release_stale(released: Project, capsys: pytest.CaptureFixture[str]) -> None:
    say(released, eve="afaf")
    assert command(capsys, "agree", released.folder, "--rule", "majority").startswith("nothing must be done")
    following = split(capsys, released, "--rule", "majority")
    assert "the release is stale: the rule keeps 20 images now instead of 16" in following
    assert "nothing, all is done" in release(capsys, released)


def test_another_rule_that_keeps_the_same_images_makes_the_release_stale(
    released: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The datasheet names the rule."""
    assert release(capsys, released, "--rule", "majority").startswith("nothing must be done")
    change = "the split was drawn by the rule soft, and the release by majority"
    assert f"(the release is stale: {change})" in split(capsys, released, "--rule", "soft")
    assert release(capsys, released).startswith("nothing must be done")
    write_release(released, released.folder.parent / "out", ReleaseConfig(name="A b", rule="majority"))
    assert status(released).next.command.startswith("nothing must be done")


def test_later_answers_make_a_release_of_shares_stale(released: Project, capsys: pytest.CaptureFixture[str]) -> None:
    split(capsys, released, "--rule", "soft")
    release(capsys, released)
    say(released, eve="xxxxa")
    assert status(released).progress.split.change == ""
    assert status(released).progress.release.change == "1 answer came later"


@pytest.mark.thorough
@pytest.mark.parametrize("min_answers", [2, 3])
def test_leaving_an_annotator_out_makes_a_release_that_depends_on_answers_stale(
    released: Project, capsys: pytest.CaptureFixture[str], min_answers: int
) -> None:
    """All labels stay the same, but the shares change, or images lack an answer."""
    say(released, cem="xxxx" + ("fafa" if min_answers == 2 else "afaf"), eve="aaaaxxxx" + ALL_RIGHT[8:])
    if min_answers == 2:
        split(capsys, released, "--rule", "soft")
        release(capsys, released)
    else:
        config = ReleaseConfig(name="A b", min_answers=3)
        write_release(released, released.folder.parent / "out", config)
    number_of(released, "Ida")
    assert status(released).progress.release.change == ""
    left_out = []
    for name in ("Ida", "cem"):
        with released.store.write() as connection:
            left_out.append(leave_out(connection, name, actor="owner"))
        change = "the answers of other annotators count now" if name == "cem" else ""
        assert status(released).progress.release.change == change
    take_back(released.store, left_out[-1])
    assert status(released).progress.release.change == ""


def test_a_takedown_makes_nothing_stale(released: Project) -> None:
    take_down(released, "https://pictures.example/5.jpg", because="asked")
    take_down(released, "https://pictures.example/5.jpg", because="asked again")
    state = status(released)
    assert state.progress.agree.kept == 15
    assert (state.progress.collect.failed, state.progress.collect.taken_down) == (0, 1)
    different = state.progress.collect.different_images
    assert f"{different - 1} different images" in state.sentences["collect"]
    assert state.sentences["split"].endswith("; 1 of them taken down since, and not released")
    assert state.next.command.startswith("nothing must be done")
    judge(released, {6: "awe"})
    assert status(released).progress.split.change


def test_a_takedown_of_images_that_were_judged_after_the_release_makes_nothing_stale(released: Project) -> None:
    """Image 1 was not kept when the split was drawn, image 5 under another label."""
    judge(released, {1: "awe", 5: "fear"})
    assert status(released).progress.split.change == "the rule keeps 17 images now instead of 16"
    for image in (1, 5):
        take_down(released, f"https://pictures.example/{image}.jpg", because="asked")
    state = status(released)
    assert state.progress.agree.kept == 15
    assert state.next.command.startswith("nothing must be done")
    progress = state.progress
    assert (progress.agree.change, progress.split.change, progress.release.change) == ("", "", "")


def test_the_undo_of_a_takedown_makes_only_the_release_stale(released: Project) -> None:
    take_down(released, "https://pictures.example/5.jpg", because="asked")
    [batch, *_] = [row["id"] for row in status(released).history]
    undo = take_back(released.store, batch)
    progress = status(released).progress
    assert (progress.agree.change, progress.split.change) == ("", "")
    assert progress.release.change == "the rule keeps 16 images now instead of 15"
    take_back(released.store, undo)
    assert status(released).next.command.startswith("nothing must be done")


def test_a_split_without_an_image_is_stale_when_its_takedown_is_undone(
    released: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    take_down(released, "https://pictures.example/5.jpg", because="asked")
    [batch, *_] = [row["id"] for row in status(released).history]
    split(capsys, released)
    take_back(released.store, batch)
    assert status(released).progress.split.change == "the rule keeps 16 images now instead of 15"


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["split", "release", "agreement"])
def test_older_versions_recorded_no_images(released: Project, name: str) -> None:
    saved = released.store.setting(name)
    older = {key: value for key, value in saved.items() if key not in ("kept", "rule", "newest_answer")}
    released.store.set(name, None if name == "release" else older)
    assert status(released).next.command.startswith("nothing must be done")
    take_down(released, "https://pictures.example/5.jpg", because="asked")
    assert status(released).next.command.startswith("nothing must be done")
    judge(released, {1: "awe", 2: "fear"})
    state = status(released)
    assert state.progress.split.change.startswith("the rule keeps 17 images now instead of")
    assert state.progress.release.change.startswith("the rule keeps 17 images now instead of 15")


def test_a_release_of_an_older_version_without_a_record_opens(released: Project) -> None:
    with released.store.write() as connection:
        for table in (t.released_images, t.release_records):
            connection.execute(table.delete())
        connection.execute(update(t.releases).values(options=json.dumps({"name": "Old"})))
    released.store.set("release", None)
    answer_again(released, "ben", {1: "awe"})
    state = status(released)
    assert state.progress.release.change == "the rule keeps 17 images now instead of 16"
    judge(released, {2: "fear"})
    assert status(released).next.command == "uniemox curate agree p"


@pytest.mark.parametrize(("rule", "reason"), [("both", "annotators disagree"), ("majority", "no majority")])
def test_status_judge_and_agree_count_the_same_images_without_agreement(
    project: Project, capsys: pytest.CaptureFixture[str], rule: str, reason: str
) -> None:
    """The three annotators differ on six images, of which four have a majority."""
    say(project, ada=ALL_RIGHT, ben="fafafa" + ALL_RIGHT[6:], eve="afaf" + "nn" + ALL_RIGHT[6:])
    project.store.set("rule", rule)
    curate(["agree", str(project.folder), "--json"], exit_on_error=False, result_action="return_none")
    reasons = json.loads(capsys.readouterr().out)["reasons"]
    count = {"both": 6, "majority": 2}[rule]
    assert reasons[reason] == count
    with TestClient(create_app(project, [ADDRESS]), base_url=ADDRESS) as client:
        owner = Browser(client, invite(project, "owner", "owner"))
        disputed = owner.get("/api/disputed").json()
        assert (disputed["count"], len(disputed["pictures"]), disputed["rule"]) == (count, count, rule)
        state = owner.get("/api/status").json()
    assert state["steps"]["agree"]["disputed"] == count
    assert f"rule {rule}: {20 - count} kept, {count} without agreement; 0 judged" in state["told"]["agree"]


def test_agree_by_another_rule_says_which_one_status_uses(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    say(project, ada=ALL_RIGHT, ben=ALL_RIGHT)
    curate(["agree", str(project.folder), "--rule", "soft"], exit_on_error=False, result_action="return_none")
    said = " ".join(capsys.readouterr().err.split())
    assert "status, /judge and the next step count by the rule both; to use soft from now on: uniemox curate" in said
    assert "--rule soft" in said


def test_all_commands_name_the_same_next_step_after_half_of_the_answers(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    say(project, ada=ALL_RIGHT, ben=ALL_RIGHT[:10])
    reason = "10 images need further answers; two annotators must answer each"
    following = f"uniemox curate serve {project.folder} ({reason})"
    for step in ("screen", "status", "agree"):
        assert command(capsys, step, project.folder) == following
    assert split(capsys, project) == following
    assert release(capsys, project) == following
    with TestClient(create_app(project, [ADDRESS]), base_url=ADDRESS) as client:
        state = Browser(client, invite(project, "owner", "owner")).get("/api/status").json()
    assert (state["next"], state["why"]) == ("uniemox curate serve p", reason)


def test_skipped_images_do_not_wait_for_the_same_annotators(project: Project) -> None:
    say(project, {"a": "awe", "f": "fear", "s": SKIP}, ada=ALL_RIGHT, ben="s" + ALL_RIGHT[1:])
    assert status(project).next.command == "uniemox curate agree p"


def test_leaving_an_annotator_out_asks_for_another_one(project: Project) -> None:
    say(project, ada=ALL_RIGHT, ben=ALL_RIGHT)
    with project.store.write() as connection:
        leave_out(connection, "ben", actor="owner")
    assert status(project).next.command == "uniemox curate invite p NAME"
    number_of(project, "Eve")
    assert status(project).next.command == "uniemox curate serve p"


def test_a_first_split_of_few_images_compares_no_schemes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """100 schemes would fail, because val has less than two images in some of them."""
    say(project, ada=ALL_RIGHT, ben=ALL_RIGHT[:4] + "n" * 16)
    following = command(capsys, "agree", project.folder)
    assert following.startswith(f"uniemox curate split {project.folder} --schemes 1 (")
    arguments = following.partition(" (")[0].split()[2:]
    assert command(capsys, *arguments).startswith("uniemox curate release ")


def test_release_before_a_split_names_the_command_that_draws_one(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    say(project, ada=ALL_RIGHT, ben=ALL_RIGHT)
    following = command(capsys, "agree", project.folder)
    assert "--schemes 1" in following
    with pytest.raises(DataError, match=says(f"no splits; draw them: {following}")):
        release(capsys, project)
    content = {"splits": {"train": ["0" * 64]}}
    (project.folder / "splits.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=says(f"no kept image has a split; draw them: {following}")):
        release(capsys, project)


@pytest.mark.parametrize(("ben", "following"), [("fa" * 10, "serve p"), ("n" * 20, "serve p"), ("", "")])
def test_a_project_without_kept_images_is_not_sent_to_split(project: Project, ben: str, following: str) -> None:
    say(project, ada=ALL_RIGHT if ben else "n" * 20, ben=ben or "n" * 20)
    agree(project)
    state = status(project)
    assert state.next.command == f"uniemox curate {following or 'collect p --source SOURCE'}"
    assert "the rule both keeps no image" in state.next.reason


def test_an_imported_label_makes_agree_the_next_step(released: Project, capsys: pytest.CaptureFixture[str]) -> None:
    [image] = released.rows(select(t.images.c.sha256).where(t.images.c.id == 1))
    result = {"from_name": "emotion", "type": "choices", "value": {"choices": ["awe"]}}
    annotation = {"completed_by": {"email": "eve@example.org"}, "result": [result]}
    tasks = released.folder.parent / "tasks.json"
    tasks.write_text(json.dumps([{"data": {"sha256": image.sha256}, "annotations": [annotation]}]))
    assert command(capsys, "import", released.folder, tasks).startswith("uniemox curate agree ")


def test_a_changed_search_word_is_noticed_although_counts_are_kept(
    released: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule of the paper also depends on the search word, which collect may correct."""
    monkeypatch.setattr("uniemox_curate.counters.MIN_STORED", 1)
    status(released)
    with released.store.write() as connection:
        connection.execute(update(t.candidates).where(t.candidates.c.picture_id == 5).values(label="fear"))
    assert status(released).progress.agree.kept == 15


def test_nobody_is_invited_to_label_nothing(project: Project) -> None:
    with project.store.write() as connection:
        number = connection.scalar(select(func.max(t.batches.c.id)))  # of the screen
        undo(connection, number, actor="owner")
    state = status(project)
    assert state.next.command == "uniemox curate screen p"
    assert state.next.reason == "20 images have no decision: those of a screen were undone"
    screen(project)
    assert (status(project).progress.screen.kept, status(project).progress.screen.to_look_at) == (20, 0)
    with project.store.write() as connection:
        changes = [Change(image, "screen", "drop", "in a benchmark: fi") for image in range(1, len(SEARCHED) + 1)]
        append(connection, actor="", step="screen", note="", changes=changes)
    state = status(project)
    assert state.next.command == "uniemox curate collect p --source SOURCE"
    assert "no image is left (in a benchmark 20)" in state.next.reason


def test_images_that_were_taken_down_need_no_decision(project: Project) -> None:
    images = [row.sha256 for row in project.rows(select(t.images.c.sha256))]
    take_down(project, images[0], because="asked")
    with project.store.write() as connection:
        undo(connection, connection.scalar(select(func.min(t.batches.c.id))), actor="owner")
    state = status(project)
    assert state.next.command == "uniemox curate screen p"
    assert state.next.reason == "19 images have no decision: those of a screen were undone"
    screen(project)
    assert status(project).progress.screen.kept == 19
    for digest in images[1:]:
        take_down(project, digest, because="asked")
    state = status(project)
    assert state.next.command == "uniemox curate collect p --source SOURCE"
    assert "no image is left (taken down 20)" in state.next.reason


def test_agree_by_another_rule_keeps_the_options_of_the_split(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    say(project, ada=ALL_RIGHT, ben=ALL_RIGHT)
    split(capsys, project)
    curate(["agree", str(project.folder), "--rule", "soft"], exit_on_error=False, result_action="return_none")
    said = " ".join(capsys.readouterr().err.split())
    assert "--ratio 60/20/20 --schemes 1 --rule soft" in said


def test_errors_of_early_steps_lead_to_the_next_step(tmp_path: Path) -> None:
    """A step that needs kept images or answers named another one that needs them too."""
    project = create_project(tmp_path / "p")
    with pytest.raises(DataError, match=says("no image has two answers yet; uniemox curate status", "next step")):
        agree(project)
    with pytest.raises(DataError, match=says("no image is kept; uniemox curate status", "next step")):
        draw_split(project, {}, {"train": 0.8, "val": 0.1, "test": 0.1})
    assert status(project).next.command == "uniemox curate collect p --source folder:IMAGES"
