"""The quick look of `check`: it passes only images that the engine passes, and says the same of them."""

import random
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from e2kdisk.block.open import open_disk
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.check import check
from e2kdisk.tools.img.sound import Sound, look
from tests.engine_lab import new_image, put
from tests.qcow2_model import open_image
from tests.test_engine_check import BREAKS, Broken, compressed_is_copied
from tests.test_engine_mutants import mutated
from tests.test_img_start import command

FACTS = (
    *("clean", "corruptions", "leaks", "corruptions_fixed", "leaks_fixed", "image_end"),
    *("total_clusters", "allocated_clusters", "fragmented_clusters", "compressed_clusters"),
)


@cache
def plain(cluster_size: int, version: int, refcount_bits: int) -> bytes:
    """An image whose clusters lie in several runs."""
    size = 300 * cluster_size + 512
    file = new_image(size, cluster_size=cluster_size, version=version, refcount_bits=refcount_bits)
    image = open_image(file)
    for first, count in ((100, 90), (0, 70), (200, 20), (90, 5)):
        put(image, first * cluster_size, b"\1" * (count * cluster_size))
    if version == 3:
        image.scheduler.run(image.write_zeroes(110 * cluster_size, 8 * cluster_size))
    image.scheduler.run(image.close())
    return bytes(file.data)


IMAGES = [(512, 3, 16), (512, 2, 16), (4096, 3, 1), (4096, 3, 64), (65536, 3, 16)]


def agrees(path: Path) -> bool:
    """Whether the look passes an image; then the engine must say the same."""
    sound = look(str(path), force_share=False)
    if sound is None:
        return False
    found = check(path)
    assert [getattr(sound, name) for name in FACTS] == [getattr(found, name) for name in FACTS]
    assert list(sound.problems) == found.problems == []
    with open_disk(path, read_only=True) as disk:  # what the engine does first
        assert disk.size >= 0
    return True


@pytest.mark.parametrize("image", IMAGES)
def test_the_look_passes_an_image_in_order_and_says_what_the_engine_says(
    tmp_path: Path, image: tuple[int, int, int]
) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(plain(*image))
    assert agrees(path)


def look_at_mutants(path: Path, seeds: range) -> None:
    passed = 0
    for seed in seeds:
        path.write_bytes(mutated(plain(*IMAGES[seed % 4]), random.Random(seed)))
        try:
            passed += agrees(path)
        except BaseException as error:
            error.add_note(f"mutant {seed}")
            raise
    assert 0.1 < passed / len(seeds) < 0.9, "both answers occur"


def test_the_look_passes_no_mutated_image_that_the_engine_would_not(tmp_path: Path) -> None:
    look_at_mutants(tmp_path / "disk.qcow2", range(400))


@pytest.mark.slow
def test_the_look_passes_none_of_many_mutated_images_that_the_engine_would_not(tmp_path: Path) -> None:
    look_at_mutants(tmp_path / "disk.qcow2", range(400, 8000))


@pytest.mark.parametrize("damage", [damage for damage in BREAKS if damage is not compressed_is_copied])
def test_the_look_leaves_damage_to_the_engine(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "disk.qcow2"
    image = Broken(kinds="none")
    path.write_bytes(image.data)
    assert agrees(path)
    damage(image)
    path.write_bytes(image.data)
    assert agrees(path) == check(path).clean


def test_a_structure_that_data_share_is_no_sound_one_even_if_it_is_counted_twice(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    image = Broken(kinds="none")
    old = image.data_cluster()
    block = image.refblock >> image.header.cluster_bits
    image.set64(image.entries()[0], image.refblock)  # without COPIED
    image.refcount(block, 2)
    image.refcount(old, 0)
    path.write_bytes(image.data)
    assert check(path).corruptions
    assert look(str(path), force_share=False) is None


@pytest.mark.parametrize("what", ["dirty", "backing", "snapshot"])
def test_the_look_leaves_special_images_to_the_engine(tmp_path: Path, what: str) -> None:
    path = tmp_path / "disk.qcow2"
    image = Broken(kinds="all" if what == "snapshot" else "none")
    if what == "dirty":
        image.data[79] |= layout.INCOMPAT_DIRTY
    elif what == "backing":
        file = new_image(1 << 20, backing_file="base", backing_format="raw")
        image.data = bytearray(file.data)
    path.write_bytes(image.data)
    assert look(str(path), force_share=False) is None


def test_the_look_does_not_pass_an_image_that_somebody_writes(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(plain(*IMAGES[0]))
    with open_disk(path):
        assert look(str(path), force_share=False) is None
        assert isinstance(look(str(path), force_share=True), Sound)
        with pytest.raises(ImageError):
            check(path)


def test_check_of_a_sound_image_imports_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(plain(*IMAGES[4]))
    done = subprocess.run(
        [*command("qemu-img", "-X", "importtime"), "check", str(path)], capture_output=True, check=True
    )
    loaded = set(re.findall(r"\|\s*([\w.]+)$", done.stderr.decode(), re.MULTILINE))
    heavy = {"argparse", "asyncio", "dataclasses", "json", "logging", "numpy", "re", "threading", "typing"}
    assert "e2kdisk.tools.img.sound" in loaded
    assert not loaded & heavy
    assert b"No errors were found on the image." in done.stdout


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_the_other_check_command_says_of_a_sound_image_what_the_engine_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: tuple[str, ...]
) -> None:
    from e2kdisk.tools import check as check_command
    from e2kdisk.tools.img import sound

    path = tmp_path / "disk.qcow2"
    path.write_bytes(plain(*IMAGES[1]))
    assert check_command.main([str(path), *option]) == 0
    quick = capsys.readouterr().out
    monkeypatch.setattr(sound, "look", lambda *_, **__: None)
    assert check_command.main([str(path), *option]) == 0
    assert capsys.readouterr().out == quick
