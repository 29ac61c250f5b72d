"""Several commands at one store, at once."""

from pathlib import Path

from tests.fault.store_faults import assert_sound, command, make_image, names, run


def test_clone_commands_at_once(tmp_path: Path) -> None:
    home = tmp_path / "store"
    image = make_image(tmp_path / "base.img")
    # The very first commands race to make the store, too.
    first = [command(home, "template", "import", str(image), "--name", "tiny") for _ in range(4)]
    assert [process.wait() for process in first] == [0, 0, 0, 0]
    assert_sound(home)
    processes = [
        command(home, "clone", "tiny", f"set{number}", "--count", "200") for number in range(6)
    ]
    assert [process.wait() for process in processes] == [0] * 6
    assert len(names(home)) == 1200
    assert_sound(home)


def test_the_same_names_at_once_go_to_one(tmp_path: Path) -> None:
    home = tmp_path / "store"
    image = make_image(tmp_path / "base.img")
    assert run(home, "template", "import", str(image), "--name", "tiny").returncode == 0
    processes = [command(home, "clone", "tiny", "web", "--count", "500") for _ in range(4)]
    assert sorted(process.wait() for process in processes) == [0, 4, 4, 4]
    assert len(names(home)) == 500
    assert_sound(home)


def test_clones_and_removal_at_once(tmp_path: Path) -> None:
    home = tmp_path / "store"
    image = make_image(tmp_path / "base.img")
    assert run(home, "template", "import", str(image), "--name", "tiny").returncode == 0
    assert run(home, "clone", "tiny", "old", "--count", "500").returncode == 0
    removing = [command(home, "rm", f"old-{n}*") for n in range(5)]
    making = [command(home, "clone", "tiny", f"new{n}", "--count", "100") for n in range(3)]
    assert [process.wait() for process in making] == [0, 0, 0]
    assert [process.wait() for process in removing] == [0] * 5
    left = names(home)
    assert [name for name in left if name.startswith("old")] == ["old-500"]
    assert len(left) == 301
    assert_sound(home)
