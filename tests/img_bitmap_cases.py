"""Command lines about bitmaps for qemu-img and for ours, in the form of img_cases.py."""

from __future__ import annotations

# A table of command lines, one beside the other:
# ruff: noqa: E501
from collections.abc import Iterator
from itertools import product

from tests.img_cases import Case

SETUP = (
    "create -q -f qcow2 none.q 4M",
    "create -q -f qcow2 two.q 4M",
    "bitmap --add two.q b0",
    "bitmap --add -g 512 two.q b1",
    "io two.q write -P 1 0 100k|write -P 2 1M 512|write -P 3 4193792 512",
    "bitmap --disable two.q b1",
    "create -q -f qcow2 -o cluster_size=512 small.q 4M",
    "bitmap --add -g 4k small.q b0",
    "bitmap --add -g 1M small.q b1",
    "bitmap --add -g 2G --disable small.q wide",
    "io small.q write -P 4 2M 900k|write -P 5 300k 1k",
    "create -q -f qcow2 -o cluster_size=2M,lazy_refcounts=on lazy.q 4M",
    "bitmap --add -g 64k lazy.q b1",
    "io lazy.q write -P 6 3M 64k",
    "create -q -f qcow2 large.q 8M",
    "bitmap --add large.q b0",
    "io large.q write -P 7 5M 1M",
    "create -q -f qcow2 odd.q 1000448",
    "bitmap --add -g 4k odd.q b0",
    "io odd.q write -P 8 999936 512",
    "create -q -f qcow2 -b two.q -F qcow2 over.q",
    "bitmap --add over.q b1",
    "io over.q write -P 9 2M 64k|write -z 64k 64k",
    "create -q -f qcow2 -o compat=0.10 v2.q 4M",
    "create -q -f raw disk.raw 4M",
    "create -q -f qcow2 snap.q 4M",
    "io snap.q write -P 1 0 64k",
    "snapshot -c s snap.q",
    "bitmap --add snap.q b0",
    "io snap.q write -P 2 64k 64k",
)
"""Beside these: used.q and used1.q (bitmaps in use), stale.q, stale2.q (version 2): made by hand from two.q."""

GOOD = ("two.q", "small.q", "lazy.q", "large.q", "odd.q", "over.q", "snap.q")
IMAGES = (*GOOD, "none.q", "used.q", "used1.q", "stale.q", "stale2.q", "v2.q", "disk.raw", "missing")
ACTIONS = ("--add", "--remove", "--clear", "--enable", "--disable", "--merge b0", "--merge b1", "--merge nope")


def generated() -> Iterator[Case]:
    """Cases over all combinations that make sense."""
    for image, action, name in product(IMAGES, ACTIONS, ("b0", "b1")):
        yield (f"bitmap {action} {image} {name}", f"info --output=json {image}")
    for granularity, image in product(("512", "1k", "64k", "1M", "2G"), ("none.q", "small.q", "large.q")):
        yield (f"bitmap --add -g {granularity} {image} new", f"bitmap --merge b0 {image} new", f"info {image}")
    for one, other in product(("two.q", "small.q", "lazy.q", "large.q", "used1.q", "none.q"), repeat=2):
        if one != other:
            yield (f"bitmap --merge b1 -b {other} -F qcow2 {one} b0",)
            yield (f"bitmap --add -g 128k --merge b0 --merge b1 -b {other} {one} both", f"info {one}")
    for image, size in product((*GOOD, "used.q", "used1.q", "stale.q"), ("8M", "1500160", "1500000")):
        yield (f"resize --shrink {image} {size}", f"info {image}")
    for image, options in product(
        IMAGES, ("", "-O qcow2", "-O qcow2 -o compat=0.10", "-O qcow2 -o cluster_size=512 --output=json")
    ):
        yield (f"measure {options} {image}",)
    for image, options in product(IMAGES, ("", "--skip-broken-bitmaps", "-o cluster_size=4k", "-o compat=0.10", "-c")):
        yield (f"convert --bitmaps -O qcow2 {options} {image} new.q", "info new.q")
    for image in IMAGES:
        yield (f"check {image}",)
        yield (f"check -r all {image}", f"check {image}")
        yield (f"info {image}",)
        yield (f"map {image}",)
        yield (f"convert -O qcow2 {image} new.q", "info new.q")
        yield (f"snapshot -c x {image}", f"snapshot -a x {image}", f"snapshot -d x {image}")
        yield (f"amend -o refcount_bits=64 {image}", f"info {image}")
        yield (f"rebase -u -b disk.raw -F raw {image}", f"info {image}")
        yield (f"compare {image} two.q",)
        yield (f"bench -q -c 4 -w -s 512 -S 65536 {image}", f"info {image}")


INTO_BITMAPS: tuple[Case, ...] = tuple(
    ("bitmap --add none.q b0", f"convert -n {options} -O qcow2 two.q none.q", "info none.q")
    for options in ("", "-c", "-C", "-W -m 4", "-S 0", "--target-is-zero", "-c -S 0 -m 2")
)
"""Every way in which convert writes: what it has written must be dirty."""

BY_HAND: tuple[Case, ...] = (
    ("bitmap",), ("bitmap two.q",), ("bitmap two.q b0 c",), ("bitmap --add two.q",), ("bitmap --add two.q a b",),
    ("bitmap -g 64k two.q b",), ("bitmap -g x",), ("bitmap -g x --add two.q b",), ("bitmap -g 64k --clear two.q b0",),
    ("bitmap -g -1 --add two.q b",), ("bitmap -g 0 --add two.q new", "info two.q"), ("bitmap -g 511 --add two.q b",),
    ("bitmap -g 256 --add two.q new",), ("bitmap -g 3k --add two.q new",), ("bitmap -g 4G --add two.q new",),
    ("bitmap -g 1T --add two.q new",), ("bitmap -g 64k -g 4k --add two.q new", "info two.q"), ("bitmap -g 64k --add two.q b0",),
    ("bitmap --add=1 two.q b",), ("bitmap --merge",), ("bitmap -U --add two.q b",), ("bitmap -q --add two.q b",),
    ("bitmap -p --add two.q b",), ("bitmap --add two.q %",), ("bitmap --remove two.q %",), ("bitmap --merge % two.q b0",),
    ("bitmap -F qcow2 two.q b",), ("bitmap -F qcow2 --clear two.q b0",), ("bitmap -b x -F qcow2 --clear two.q b0",),
    ("bitmap --merge b0 -b gone two.q b0",), ("bitmap --merge b0 -b large.q -F raw two.q b0",),
    ("bitmap --merge b0 -b large.q -F foo two.q b0",), ("bitmap --merge b0 -b % two.q b0",), ("bitmap --merge b0 -b two.q two.q b0",),
    ("bitmap --merge b0 -b disk.raw two.q b0",), ("bitmap --merge b0 two.q b0",), ("bitmap -f foo --add two.q b",),
    ("bitmap -f raw --add two.q b",), ("bitmap -f raw --remove two.q b0",), ("bitmap -f raw --merge b0 two.q b0",),
    ("bitmap --add --image-opts driver=qcow2,file.filename=two.q new", "info two.q"),
    ("bitmap --add --image-opts -f qcow2 driver=qcow2,file.filename=two.q b",),
    ("bitmap --object secret,id=x --add two.q b",), ("bitmap --object secret,id=x,data=y --add two.q new",),
    ("bitmap --add --disable two.q new", "info two.q"), ("bitmap --add --merge b1 --disable two.q new", "info two.q"),
    ("bitmap --clear --merge b1 --merge b1 two.q b0",), ("bitmap --remove --add two.q b0", "info two.q"),
    ("bitmap --remove --remove two.q b0", "info two.q"), ("bitmap --add --remove two.q new", "info two.q"),
    ("bitmap --disable --enable --disable two.q b0", "info two.q"), ("bitmap --clear --add two.q b0", "info two.q"),
    ("bitmap --add --add two.q new", "info two.q"), ("bitmap --clear --merge nope two.q b1", "info two.q"),
    ("bitmap --remove two.q b0", "bitmap --remove two.q b1", "info two.q", "check two.q"),
    ("bitmap --remove used.q b0", "info used.q", "bitmap --remove used.q b1", "check used.q"),
    ("bitmap --remove used1.q b1", "bitmap --clear used1.q b0", "info used1.q"),
    ("bitmap --add used.q new", "info used.q"), ("bitmap --add stale.q new", "info stale.q", "check -r leaks stale.q"),
    ("bitmap --add stale2.q new", "info stale2.q"), ("check -r leaks stale.q", "info stale.q"), ("check -q stale.q",),
    (f"bitmap --add two.q {'n' * 1023}", "check two.q", f"bitmap --remove two.q {'n' * 1023}"), (f"bitmap --add two.q {'n' * 1024}",),
    ("bitmap --add two.q \u0431\u0438\u0442", "info --output=json two.q", "bitmap --remove two.q \u0431\u0438\u0442"),
    ("create -q -f qcow2 huge.q 1P", "bitmap --add -g 512 huge.q b", "bitmap --add -g 2G huge.q b", "info huge.q"),
    ("create -q -f qcow2 huge.q 8T", "bitmap --add huge.q b", "bitmap --add -g 512 huge.q c", "check huge.q"),
    ("convert --bitmaps -O qcow2 two.q large.q new.q",), ("convert --bitmaps -f raw -O qcow2 two.q new.q",),
    ("convert --bitmaps -O raw two.q new",), ("convert --bitmaps -n -O raw two.q disk.raw",), ("convert --bitmaps -O qcow2 disk.raw new.q",),
    ("convert --bitmaps -n -O qcow2 two.q none.q", "info none.q"), ("convert --bitmaps -n -O qcow2 odd.q large.q",),
    ("convert --bitmaps -n -O qcow2 odd.q none.q", "info none.q"), ("convert --bitmaps -n -O qcow2 snap.q small.q", "info small.q"),
    ("convert --bitmaps -n -O qcow2 two.q v2.q",), ("convert --bitmaps -l s -O qcow2 snap.q new.q", "info new.q"),
    ("convert --skip-broken-bitmaps -O qcow2 two.q new.q",), ("measure -l s -O qcow2 snap.q",),
    ("convert --bitmaps -O qcow2 -B two.q -F qcow2 over.q new.q", "info new.q"),
    ("commit over.q", "info two.q", "info over.q"), ("commit -d over.q", "info two.q"), ("resize over.q 5M", "commit over.q", "info two.q"),
    ("rebase -u -b % over.q", "info over.q"), ("rebase -b none.q -F qcow2 over.q", "info over.q", "check over.q"),
    ("info --backing-chain over.q",), ("info --image-opts driver=qcow2,file.filename=two.q",), ("info -U two.q",),
    ('info json:{"driver":"qcow2","file":{"driver":"file","filename":"two.q"}}',), ("info -f raw two.q",),
    ("amend -o compat=0.10 none.q",), ("amend -o lazy_refcounts=on two.q", "info two.q"), ("amend -o size=16M two.q", "info two.q"),
    ("amend -o compat=1.1 stale2.q", "info stale2.q"), ("amend -o compat=0.10 two.q", "info two.q"),
    ("convert -n -O qcow2 two.q small.q",), ("convert -n -W -O qcow2 snap.q two.q",), ("dd -n -O qcow2 if=two.q of=none.q",),
    ("resize --preallocation=full two.q 5M", "info two.q"), ("resize --preallocation=metadata small.q 5M", "info small.q"),
    ("resize --shrink two.q 65k", "resize two.q 4M", "bitmap --merge b1 two.q b0"), ("dd -O qcow2 if=two.q of=new.q bs=1M", "info new.q"),
)  # fmt: skip


def all_cases() -> list[Case]:
    """Every case once."""
    cases = (*INTO_BITMAPS, *BY_HAND, *generated())
    return list(dict.fromkeys(tuple(" ".join(line.split()) for line in case) for case in cases))
