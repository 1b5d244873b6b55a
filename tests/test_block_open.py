"""Opening: guessing formats, names, the policy on files that an image names, loops, depth, nothing left open."""

import os

import pytest

from e2kdisk.aio import AutoEngine, Scheduler
from e2kdisk.block import OpenOptions, OpenPolicy, open_disk
from e2kdisk.block.formats import PROBE_SIZE, guess_format
from e2kdisk.errors import E2kDiskError, ImageError, UnsupportedFeature, UsageError


@pytest.fixture(autouse=True)
def nothing_stays_open():
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def refusal(*args, **options):
    with pytest.raises(E2kDiskError) as caught:
        open_disk(*args, **options).close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- formats and names ----------------------------------------------------------------------------


def test_a_format_is_guessed_from_the_first_bytes(make_image, qemu_io):
    for format in ("raw", "qcow2"):
        image = make_image("1M", format=format)
        qemu_io(image, "write -P 7 64k 512", format=format)
        with open_disk(image) as disk:
            assert disk.size == 1 << 20
            assert disk.pread(65536, 512) == b"\x07" * 512


def test_the_given_format_wins_over_the_guess(make_image):
    image = make_image("1M")
    with open_disk(image, format="raw") as disk:
        assert disk.pread(0, 4) == b"QFI\xfb"
        assert disk.size == image.stat().st_size
    raw = make_image("1M", format="raw")
    assert refusal(raw, format="vmdk") == "unknown image format 'vmdk'; known are qcow2, raw"


@pytest.mark.parametrize("format", ["vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels"])
def test_a_foreign_format_is_named_not_taken_for_raw(make_image, format):
    image = make_image("4M", format=format, **({"subformat": "dynamic"} if format == "vpc" else {}))
    with pytest.raises(UnsupportedFeature, match=f"looks like a {format} image, .* format=raw gives its bytes"):
        open_disk(image)
    open_disk(image, format="raw").close()


def test_an_empty_and_a_tiny_file_are_raw(tmp_path):
    for content in (b"", b"abc"):
        (tmp_path / "file").write_bytes(content)
        with open_disk(tmp_path / "file", read_only=True) as disk:
            assert disk.size == len(content)
            assert disk.pread(0, len(content)) == content
    assert guess_format(b"") == "raw"
    assert guess_format(bytes(PROBE_SIZE)) == "raw"


def test_protocols_are_refused_by_name(tmp_path, monkeypatch):
    assert refusal("nbd://localhost/x") == (
        "nbd://localhost/x: protocol 'nbd' is not supported; a file of this name is ./nbd://localhost/x"
    )
    assert refusal('json:{"driver":"raw"}').endswith("protocol 'json' is not supported; only plain file names are")
    assert refusal("") == "file name: is empty"
    assert refusal("file:") == "file name: is empty"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").write_bytes(bytes(512))
    for name in ("./a:b", "file:a:b", tmp_path / "a:b", os.path.join(tmp_path, "a:b")):
        open_disk(name, format="raw").close()
    (tmp_path / "plain").write_bytes(bytes(512))
    with open_disk("file:plain", format="raw") as disk:
        assert disk.name == "plain"


def test_wrong_options_are_refused_before_anything_is_opened(make_image):
    image = make_image("1M")
    assert "unknown I/O engine 'fast'; known are auto, threads" in refusal(image, engine="fast")
    assert "unknown option 'l3_cache_size'; known for this format: l2_cache_size" in refusal(image, l3_cache_size=1)
    engine = AutoEngine(Scheduler())
    with pytest.raises(UsageError, match="another scheduler"):
        open_disk(image, engine=engine, scheduler=Scheduler())


def test_an_engine_that_was_given_stays_open(make_image):
    engine = AutoEngine(Scheduler())
    disks = [open_disk(make_image("1M"), engine=engine) for _ in range(2)]
    for disk in disks:
        disk.pwrite(0, b"x")
        disk.close()
    assert engine.scheduler.run(engine.call(lambda: 5)) == 5
    engine.close()


# -- backing files --------------------------------------------------------------------------------


def fill(qemu_io, image, pattern, format="qcow2"):
    qemu_io(image, f"write -P {pattern} 0 64k", format=format)


def test_a_backing_file_is_found_relative_to_the_image_that_names_it(make_image, qemu_io, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    base = make_image("1M", name="sub/base.raw", format="raw")
    fill(qemu_io, base, 5, "raw")
    middle = make_image(name="middle.qcow2", backing="sub/base.raw", backing_format="raw")
    top = make_image(name="top.qcow2", backing="middle.qcow2")
    monkeypatch.chdir("/")
    for name in (top, middle, os.path.relpath(top, "/")):
        with open_disk(name) as disk:
            assert disk.pread(0, 512) == b"\x05" * 512


def test_the_user_may_replace_or_leave_out_the_backing_file(make_image, qemu_io, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    one, two = make_image("1M", name="one.qcow2"), make_image("1M", name="elsewhere/two.qcow2")
    fill(qemu_io, one, 1)
    fill(qemu_io, two, 2)
    top = make_image(name="top.qcow2", backing="one.qcow2")
    empty = make_image("1M", name="empty.qcow2", backing="top.qcow2")
    one.rename(tmp_path / "gone")
    with open_disk(top, backing=two) as disk:
        assert disk.pread(0, 1) == b"\2"
    with open_disk(top, backing=OpenOptions(str(two), "raw")) as disk:
        assert disk.pread(0, 4) == b"QFI\xfb"
    with open_disk(top, no_backing=True) as disk:
        assert disk.pread(0, 1) == b"\0"
    with open_disk(empty, backing=OpenOptions(str(top), backing=OpenOptions(str(two)))) as disk:
        assert disk.pread(0, 1) == b"\2"


def test_an_error_in_the_chain_names_the_chain(make_image, tmp_path):
    base = make_image("1M", name="base.qcow2")
    make_image(name="middle.qcow2", backing="base.qcow2")
    top = make_image(name="top.qcow2", backing="middle.qcow2")
    base.unlink()
    chain = f"{tmp_path}/middle.qcow2 -> {tmp_path}/base.qcow2"
    assert refusal(top) == f"{top}: backing file {chain}: cannot be opened: No such file or directory"
    base.write_bytes(b"KDMV" + bytes(512))
    with pytest.raises(ImageError, match=r"top.*backing file .*middle.* -> .*base"):
        open_disk(top)


def test_the_default_policy_keeps_to_the_directory_of_the_image(make_image, tmp_path):
    (tmp_path / "images").mkdir()
    outside = make_image("1M", name="outside.qcow2")
    for stored in (outside, "../outside.qcow2", "link/outside.qcow2"):
        if not (tmp_path / "images/link").exists():
            (tmp_path / "images/link").symlink_to(tmp_path)
        top = make_image("1M", name="images/top.qcow2", backing=stored)
        said = refusal(top)
        assert said.startswith(f"{top}: backing file: ")
        assert f"lies outside {tmp_path}/images; OpenPolicy(trees=['{tmp_path}']) or OpenPolicy.permissive()" in said
        for policy in (OpenPolicy.permissive(), OpenPolicy(trees=(str(tmp_path),))):
            open_disk(top, policy=policy).close()
    inside = make_image("1M", name="images/inside.qcow2", backing=tmp_path / "images/top.qcow2")
    assert "lies outside" in refusal(inside)
    assert "OpenPolicy(implicit=True) would allow it" in refusal(inside, policy=OpenPolicy.deny())


def test_a_directory_whose_name_only_begins_alike_is_outside(make_image, tmp_path):
    for name in ("images", "images-secret"):
        (tmp_path / name).mkdir()
    make_image("1M", name="images-secret/base.qcow2")
    top = make_image("1M", name="images/top.qcow2", backing="../images-secret/base.qcow2")
    assert "lies outside" in refusal(top)


@pytest.mark.parametrize("stored", ["nbd://localhost/export", 'json:{"driver":"file","filename":"base"}', "ssh:x"])
def test_an_image_can_name_no_protocol(make_image, qemu_img, tmp_path, stored):
    top = make_image("1M", name="top.qcow2")
    qemu_img("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", stored, top)
    for policy in (None, OpenPolicy.permissive()):
        assert f"top.qcow2: backing file: {stored}: protocol" in refusal(top, policy=policy)
    open_disk(top, no_backing=True).close()


def test_an_image_cannot_make_us_open_a_device_or_a_fifo(make_image, qemu_img, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    top = make_image("1M", name="top.qcow2")
    for stored in ("fifo", "/dev/zero"):
        qemu_img("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", stored, top)
        assert "neither a regular file nor a block device" in refusal(top, policy=OpenPolicy.permissive())


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_loop_of_backing_files_is_found_under_any_name(make_image, qemu_img, tmp_path, length, read_only):
    images = [make_image("1M", name=f"image{number}.qcow2") for number in range(length)]
    (tmp_path / "alias.qcow2").symlink_to(images[0])
    for image, behind in zip(images, [*(other.name for other in images[1:]), "alias.qcow2"], strict=True):
        qemu_img("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", behind, image)
    said = refusal(images[0], read_only=read_only)
    assert said.endswith(f"alias.qcow2: a loop: this is {images[0]} again")


def test_a_chain_may_be_200_images_long_and_no_longer(make_image, qemu_io, tmp_path):
    make_image("64k", name="image000.qcow2", cluster_size=512)
    overlay = make_image(name="image001.qcow2", cluster_size=512, backing="image000.qcow2").read_bytes()
    for number in range(2, 201):
        behind = b"image%03d.qcow2" % (number - 1)
        (tmp_path / f"image{number:03}.qcow2").write_bytes(overlay.replace(b"image000.qcow2", behind))
    qemu_io(tmp_path / "image000.qcow2", "write -P 9 512 512")
    with open_disk(tmp_path / "image199.qcow2") as disk:
        assert disk.pread(0, 1536) == bytes(512) + b"\x09" * 512 + bytes(512)
        disk.pwrite(520, b"copied up")
        assert disk.pread(519, 11) == b"\x09copied up\x09"
    said = refusal(tmp_path / "image200.qcow2")
    assert said.endswith("more than 200 images in the chain")
    assert len(said) < 1000
