"""Scripts for qemu-io and for ours: written by hand for what a person would try, generated for the combinations."""

import random
from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True)
class Case:
    """One call of the program on copies of the same images (test_io_differential.IMAGES)."""

    name: str
    commands: tuple[str, ...] = ()
    image: str | None = "disk.qcow2"
    options: tuple[str, ...] = ()
    stdin: str | None = None
    known: str = ""
    """Why the output may differ; exit status and images are compared all the same."""


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


# -- by hand: one command each, most of them wrong -------------------------------------------------

SINGLE = """
read; read 0; read 0 0; read 0 1; read -C 0 512; read -q 0 512; read 0 x; read x 0; read -1 0; read 0 -1; read 0 2G
read 0 2147483136; read 0 2147483647; read 4M 512; read 4194303 2; read -P 0 2M 64k; read -P 1 2M 64k
read -P 300 0 512; read -P x 0 512; read -P -1 0 512; read -s 0 0 512; read -l 0 0 512; read -P 0x11 -s 512 0 512
read -P 0x11 -s 512 -l 512 0 512; read -P 0x11 -s 1k 0 1k; read -P 0x11 -l 1025 0 1k; read -P 0x11 -s 512 0 1k
read -P 1 -s 1 0 1k; read -P 0 -s x 0 1k; read -P 0 -l x 0 1k; read -b 0 512; read -b 1 512; read -b 0 1; read -p 0 512
read -pb 0 512; read -z 0 512; read -v 0 40; read -v 65530 20; read -v 0 0; read 0 1k 5; read 0 1.5k; read 0x10 0x10
read 010 10; read 0 1kk; read 0 1b; read 0 9E; read 1e 512; read 0 0x1k; read 0 1.5; read 0 .5k; read 0 1e3; read 0 1.0
read 0 +1; read 0 1.7777k; read 0 0x; read 0 1.; read 0 1.k; read 0 512b; read 0 1K; read -P 0x10 0 1; read -P 010 0 1
read -P 1k 0 1; read -P255 0 1; read -qP0x11 0 1; read 0 512 -q; read -P; read 9223372036854775807 1; read 7E 512
read 9223372036854775808 1; read 18446744073709551616 1; read -- 0 512; read -a 0 512
writev -C 0 512; writev -q 0 512 512; read -h; read --help; read  0   512
write; write 0; write 0 0; write 0 512; write -C 0 64k; write -q 0 1; write -P 300 0 1; write -P 0xcd 4M 1
write -z 0 64k; write -zu 0 64k; write -zn 0 64k; write -n 0 64k; write -u 0 64k; write -z -P 0 0 64k
write -z -b 0 64k; write -c 3M 64k; write -c 3M 32k; write -c -z 0 64k; write -b 0 512; write -bp 0 512; write -f 0 64k
write -zf 0 64k; write -bf 0 512; write -cf 0 64k; write -bz 0 64k; write -s /nonexist 0 64k; write -s /dev/null 0 64k
write -s pattern 0 100k; write -s pattern -P 1 0 100; write -s pattern -z 0 100; write 0 2G; write -z 0 2G
write -z 0 4M
write -z 0 8E; write -z 0 7E; write -z 0 0; write -z 100 200k; write -zu 100 200k; write -c 0 64k; write -c 512 512
write -c 3M 128k; write -b 64k 512; write -c 0 0; write 0 -1; write -1 1; write -s; write -C -q 0 512
write -c 4032k 64k
writev 0; writev 0 512; writev 0 512 512 1k; writev 0 0; writev 0 x; writev x 512; writev 4M 512; writev 0 3G
writev 0 1G 1G; writev -P x 0 512; writev -z 0 512; writev 0 512 -1; writev 0 512 0; writev -f -P 3 100 300 77 1
readv 0; readv 0 512; readv 0 512 512; readv -P 0x11 0 512 512; readv -P 0xce 0 512 512; readv -v 0 8 8; readv 0 0
readv 0 x; readv 4M 512; readv 0 1G 1G 1G; readv -q 0 512; readv -C 0 512 512; readv -x 0 1
aio_read; aio_read 0; aio_read 0 512; aio_read -C 0 512; aio_read -q 0 512; aio_read -i 0 512; aio_read -P 1 0 512
aio_read -v 0 16; aio_read 4M 512; aio_read x 0; aio_read 0 x; aio_read -P x 0 1; aio_read 0 512 512 512
aio_write; aio_write 0; aio_write 0 512; aio_write -z 0 512; aio_write -z 0 512 512; aio_write -zu 0 64k
aio_write -u 0 64k; aio_write -z -P 1 0 64k; aio_write -f 0 512; aio_write 4M 512; aio_write -z 4M 512; aio_write 0 0
aio_write -C -z 0 64k; aio_write -i 0 512; aio_write -P 300 0 1; aio_write -y 0 1; aio_write x 1; aio_write 0 512 x
aio_flush; aio_flush 1; flush; flush 1; discard; discard 0; discard 0 64k; discard -C 0 64k; discard -q 0 64k
discard 0 0; discard 0 x; discard x 0; discard 4M 1; discard 0 3G; discard 512 512; discard 1 1; discard -x 0 1
discard 100 200k; truncate; truncate x; truncate 8M; truncate -1; truncate -m full 5M; truncate -m falloc 5M
truncate -m metadata 5M; truncate -m foo 8M; truncate 2000000; truncate -x 1; truncate 8M 2; length; length 1; map
map 1; alloc; alloc 0; alloc 0 1M; alloc x; alloc 0 x; alloc 512 512; alloc 513 512; alloc 0 100; alloc 8M; alloc 8M 1
alloc -1; alloc 0 -1; alloc 0 8E; alloc 0 512 3; alloc 4M 0; alloc 0 0; alloc 0 4M; info; info 1; close; close 1
break; break foo a; break write_aio a; resume; resume a; resume a b; remove_break a; remove_break; wait_break
sigraise; sigraise x; sigraise 0; sigraise 15; sigraise -1; sigraise 99; sigraise 9; sigraise 6; sleep; sleep x; sleep 0
sleep 10; sleep -1; sleep 1k; sleep 1.5; sleep 0x10; abort; abort 1; quit; q; quit 1; help foo; help read write
reopen; reopen -r; reopen -w; reopen -rw; reopen -c none; reopen -c foo; reopen -o lazy-refcounts=on; reopen -o foo=bar
reopen -o driver=raw; reopen x; reopen -x; reopen -o; reopen -r -r; reopen -o l2-cache-size=x
reopen -o overlap-check=foo; reopen -r -o read-only=on; reopen -c none -o cache.direct=on; open; open disk.qcow2
open -x; open a b; open -o driver=raw disk.qcow2; w 0 512; r 0 512; rv 0 512; f; l; d 0 64k; t 5M; i; c; o; s; ab; foo
wait; #foo; read 0 512, read 0 512;
"""

OVERLAY = """
map; alloc 0 4M; read -P 0x11 0 64k; read -P 0x22 1M 64k; read -P 0x33 2M 64k; read -P 0 3584k 512k; write 0 512
write -z 0 64k; write -zu 0 64k; write -z 100 100; write -zu 1M 1M; write -c 2M 64k; write -c 512k 64k; discard 0 64k
discard 0 4M; discard 100 200k; truncate 8M; info; length; writev 60k 8k 8k; reopen -r; close; alloc 1M 64k
write -f 128k 128k; aio_write -P 9 1000k 100k; write -b 0 64k
"""

RAW = """
info; map; alloc 0 1M; length; read -P 0x11 0 64k; write 0 512; write -c 0 64k; write -b 0 512; read -b 0 512
write -z 0 64k; write -zu 0 64k; write -zn 64k 64k; discard 0 64k; truncate 1M; truncate 2M; truncate -m falloc 2M
truncate -m full 2M; truncate 0; reopen -r; aio_write 0 64k; writev 100 100 100; readv -v 65530 3 3; write 1M 512; flush
"""

V2 = """
info; write -z 0 64k; write -zu 0 64k; discard 0 64k; map; write -c 3M 64k; truncate 8M; read -P 0x11 0 64k; alloc 0 4M
write 100 100k; reopen -o lazy-refcounts=on
"""

SCRIPTS = {
    "overwrite": "write -P 1 0 64k; write -P 2 512 512; read -P 1 0 512; read -P 2 512 512; read -P 1 1k 63k; map",
    "zero-then-read": "write -P 1 0 256k; write -z 64k 64k; read -P 0 64k 64k; read -P 1 0 64k; "
    "read -P 1 128k 128k; map",
    "unmap-then-read": "write -P 1 0 256k; write -zu 64k 64k; read -P 0 64k 64k; map; alloc 0 256k",
    "discard-then-read": "write -P 1 0 256k; discard 64k 64k; read -P 0 64k 64k; map; alloc 0 256k",
    "compressed-then-plain": "write -c -P 5 3M 64k; read -P 5 3M 64k; write -P 6 3080k 1k; read -P 5 3M 8k; map",
    "compressed-twice": "write -c -P 5 3M 64k; write -c -P 6 3M 64k; read -P 6 3M 64k; read -P 5 3M 64k",
    "compressed-over-plain": "write -P 5 3M 64k; write -c -P 6 3M 64k; read -P 5 3M 64k",
    "compressed-over-zero": "write -z 3M 64k; write -c -P 6 3M 64k; read -P 6 3M 64k",
    "vm-state": "write -b -P 7 0 64k; read -b -P 7 0 64k; read -b -P 0 64k 64k; write -b -P 8 1M 512; "
    "read -b -P 8 1M 512",
    "grow-and-write": "truncate 8M; length; write -P 3 7M 1M; read -P 0 4M 3M; read -P 3 7M 1M; map",
    "shrink": "write -P 3 0 4M; truncate 1M; length; read -P 3 0 1M; read 1M 512; map",
    "shrink-and-grow": "write -P 3 0 4M; truncate 1M; truncate 4M; read -P 3 0 1M; read -P 0 1M 3M",
    "aio-many": "aio_write -P 1 0 64k; aio_flush; aio_write -P 2 64k 64k; aio_flush; aio_read -P 1 0 64k; aio_flush",
    "aio-overlapping": "aio_write -P 1 0 64k; aio_write -P 2 0 64k; aio_write -P 3 0 64k; aio_flush; read -P 3 0 64k",
    "aio-length-between": "aio_write 0 64k; length; aio_flush",
    "aio-map-between": "aio_write 2M 64k; aio_flush; map",
    "aio-quit": "aio_write 0 64k; quit; length",
    "aio-sleep": "aio_read 0 512; sleep 200; length",
    "aio-pattern": "aio_read -P 1 0 64k; aio_flush; aio_read -P 0x11 0 64k; aio_flush",
    "aio-end": "aio_write 0 64k",
    "quit-early": "quit; length",
    "errors-go-on": "read 0 x; length; read 8M 1; length; foo; length",
    "close-and-length": "close; length",
    "close-twice": "close; close",
    "close-and-open": "close; open disk.qcow2; length; read -P 0x11 0 512",
    "open-twice": "open disk.qcow2; length; close; open other.raw; close",
    "read-only-twice": "reopen -r; write 0 512; reopen -w; write 0 512",
    "read-only-all": "reopen -r; write -z 0 512; aio_write 0 512; discard 0 512; truncate 8M; writev 0 1; "
    "read 0 1; flush",
    "fua": "write -f -P 4 0 1M; write -f -z 0 64k; read -P 0 0 64k; read -P 4 64k 960k",
    "unaligned": "write -P 9 4095 2; read -v 4090 12; read -P 9 4095 2; write -P 8 65535 2; read -v 65530 12",
    "patterned-file": "write -s pattern 10 1000; read -v 0 64; read -v 1000 20",
    "last-bytes": "write -P 5 4194303 1; read -P 5 4194303 1; write 4194303 2; read 4194304 0; read 4194305 0",
    "reopen-lazy": "reopen -o lazy-refcounts=on; write -P 3 2M 1M; flush; reopen -o lazy-refcounts=off; write 3M 64k",
    "whole-disk": "write -P 1 0 4M; read -P 1 0 4M; discard 0 4M; read -P 0 0 4M; map; alloc 0 4M",
    "zero-whole": "write -z 0 4M; map; write -zu 0 4M; map; read -P 0 0 4M",
}

OPENING = """
-o driver=qcow2 disk.qcow2; -r -o driver=raw disk.qcow2; -o driver=qcow2,file.filename=disk.qcow2
-o driver=qcow2; -o foo=1 disk.qcow2; -o lazy-refcounts=on disk.qcow2; -o lazy-refcounts=foo disk.qcow2
-o l2-cache-size=64k disk.qcow2; -o l2-cache-size=x disk.qcow2; -o cache-size=1M,l2-cache-size=2M disk.qcow2
-o refcount-cache-size=1M disk.qcow2; -o overlap-check=all disk.qcow2; -o overlap-check=foo disk.qcow2
-o overlap-check.template=none disk.qcow2; -o overlap-check.foo=off disk.qcow2; -o pass-discard-request=on disk.qcow2
-o pass-discard-snapshot=on,pass-discard-other=off disk.qcow2; -o discard=unmap disk.qcow2; -o discard=foo disk.qcow2
-o detect-zeroes=on disk.qcow2; -o detect-zeroes=unmap,discard=unmap disk.qcow2; -o detect-zeroes=foo disk.qcow2
-o backing.file.filename=other.raw,backing.driver=raw over.qcow2; -o backing.foo=1 over.qcow2
-o file.filename=disk.qcow2; -o file.foo=1 disk.qcow2; -o file.locking=off disk.qcow2
-o file.driver=blkdebug,file.image.filename=disk.qcow2; -o encrypt.key-secret=x disk.qcow2
-o encrypt.format=aes,encrypt.key-secret=x disk.qcow2; -r disk.qcow2; -n disk.qcow2; -t foo disk.qcow2
-t none disk.qcow2; -t writethrough disk.qcow2; -t directsync disk.qcow2; -t unsafe disk.qcow2; -d foo disk.qcow2
-d unmap disk.qcow2; -d off disk.qcow2; -U disk.qcow2; -U -r disk.qcow2; -s disk.qcow2; -C over.qcow2; -i foo disk.qcow2
-i threads disk.qcow2; -k disk.qcow2; -C -r disk.qcow2; nope; -o read-only=on disk.qcow2; -r -o read-only=on disk.qcow2
-o cache.direct=on disk.qcow2; -o node-name=x disk.qcow2; -o auto-read-only=on disk.qcow2; -o file=disk.qcow2
-o size=512,driver=raw other.raw; -o offset=512,driver=raw other.raw; -o offset=512,size=512,driver=raw other.raw
-o offset=1M,size=512,driver=raw other.raw; -o size=513,driver=raw other.raw; -o cache-clean-interval=5 disk.qcow2
-o backing= over.qcow2; -o driver= disk.qcow2; -o = disk.qcow2; -o lazy-refcounts disk.qcow2; -o driver=qcow2,x
-o read-only=foo disk.qcow2; -o lazy-refcounts=on v2.qcow2; -o driver=null-co,size=1M; -o driver=null-co,foo=1M
-o driver=file,filename=disk.qcow2; -o driver=blkdebug,image.filename=disk.qcow2; -o driver=blkdebug
-o driver=blkverify; -r other.raw; lost.qcow2; -o driver=qcow2 other.raw; ./disk.qcow2; file:disk.qcow2; nosuch:foo
blkdebug::disk.qcow2; blkdebug:disk.qcow2; blkdebug:nope:disk.qcow2; blkdebug::nope; blkverify:nope:disk.qcow2
null-co:; .; -q disk.qcow2; -t; disk.qcow2 other.raw
json:{"driver":"qcow2","file":{"driver":"file","filename":"disk.qcow2"}}
json:{"driver":"qcow2","file.filename":"disk.qcow2"}; json:[]; json:{"driver":"foo"}; json:{"driver":"qcow2"}; json:{}
json:{"driver":"raw","size":512,"file":{"driver":"file","filename":"other.raw"}}
json:{"driver":"raw","foo":512,"file":{"driver":"file","filename":"other.raw"}}
json:{"driver":"null-co","size":1024}; json:{"driver":"raw","file":{"driver":"null-co","size":65536}}
-o backing.driver=qcow2,backing.file.filename=v2.qcow2 over.qcow2; -o backing.lazy-refcounts=on over.qcow2
-o backing.l2-cache-size=64k over.qcow2
-o backing.driver=qcow2,backing.overlap-check=all,backing.file.filename=base.qcow2 over.qcow2
-o backing.driver=qcow2,backing.file.driver=blkdebug,backing.file.image.filename=base.qcow2 over.qcow2
-o backing.driver=null-co over.qcow2; -o backing.driver=qcow2 over.qcow2
-o backing.driver=raw,backing.offset=0,backing.size=64k,backing.file.filename=copy.raw over.qcow2
-o backing.driver=raw,backing.size=64k over.qcow2; -o backing.driver=foo,backing.file.filename=copy.raw over.qcow2
-o backing.driver=qcow2,backing.foo=1,backing.file.filename=base.qcow2 over.qcow2
-o backing.driver=qcow2,backing.file.foo=1,backing.file.filename=base.qcow2 over.qcow2
-o backing.read-only=off over.qcow2; -o backing.file.locking=off,backing.file.filename=base.qcow2 over.qcow2
-o backing.file.locking=off over.qcow2
-o backing.driver=qcow2,backing.encrypt.key-secret=x,backing.file.filename=base.qcow2 over.qcow2
-o file.driver=file,file.aio=threads disk.qcow2
-o file.driver=blkdebug,file.image.filename=disk.qcow2,file.inject-error.0.event=read_aio disk.qcow2
-o overlap-check=none,lazy-refcounts=on,l2-cache-size=1M,refcount-cache-size=256k disk.qcow2
-o overlap-check.template=all,overlap-check.inactive-l2=off disk.qcow2
-o pass-discard-request=off,pass-discard-snapshot=on,pass-discard-other=on disk.qcow2; -o backing.backing= over.qcow2
-o backing.driver=raw,backing.file.filename=base.qcow2 over.qcow2
"""

COMMAND_LINES = (
    Case("no-file", ("read 0 512",), None),
    Case("no-file-info", ("info", "map", "length", "flush", "aio_flush", "sleep 1", "sigraise 0"), None),
    Case("missing", ("length",), "nope.qcow2"),
    Case("missing-backing", ("length",), "lost.qcow2"),
    Case("empty-name", ("length",), ""),
    Case("directory", ("length",), "."),
    Case("unknown-format", ("length",), options=("-f", "foo")),
    Case("not-qcow2", ("length",), "other.raw", ("-f", "qcow2")),
    Case("probed-raw", ("write 0 512", "write 64k 512"), "other.raw"),
    Case("probed-raw-ro", ("length",), "other.raw", ("-r",)),
    Case("stale-bitmaps", ("write 0 512", "length"), "stale.qcow2"),
    Case("stale-bitmaps-read-only", ("length",), "stale.qcow2", ("-r",)),
    Case("read-only-write", ("write 0 512", "read 0 512"), options=("-r",)),
    Case("snapshot", ("write -P 9 0 512", "read -P 9 0 512", "read -P 0x11 512 512", "map", "info"), options=("-s",)),
    Case("snapshot-over", ("write -P 9 0 512", "read -P 0x22 1M 64k", "map"), "over.qcow2", ("-s",)),
    Case("cache-foo", ("length",), options=("-t", "foo")),
    Case("cache-off", ("length",), options=("-t", "off")),
    Case("cache-writethrough", ("write 0 64k", "read -P 0xcd 0 64k"), options=("-t", "writethrough")),
    Case("cache-none", ("write 1 2", "read -P 0xcd 1 2"), options=("-n",)),
    Case("cache-unsafe", ("write 1 2", "read -P 0xcd 1 2"), options=("--cache=unsafe",)),
    Case("discard-foo", ("length",), options=("-d", "foo")),
    Case("discard-unmap", ("discard 0 64k", "read -P 0 0 64k"), options=("-d", "unmap")),
    Case("aio-foo", ("length",), options=("-i", "foo")),
    Case("aio-threads", ("length",), options=("-i", "threads")),
    Case("aio-native", ("length",), options=("-k",)),
    Case("cor", ("read -P 0x22 1M 64k", "map", "read 0 1", "map"), "over.qcow2", ("-C",)),
    Case("cor-read-only", ("length",), "over.qcow2", ("-C", "-r")),
    Case("misaligned", ("write -P 3 1 4096", "read -P 3 1 4096"), options=("-m",)),
    Case("force-share", ("length",), options=("-U",)),
    Case("force-share-ro", ("length",), options=("-U", "-r")),
    Case("unknown-long", ("length",), options=("--foo",), known="help"),
    Case("unknown-short", ("length",), options=("-q",), known="help"),
    Case("two-files", ("length",), options=("other.raw",), known="help"),
    Case("command-lacks-value", (), options=("-c",), image=None, known="help"),
    Case("long-abbreviated", ("length",), options=("--read", "--form=qcow2")),
    *(
        Case(f"long{option}", ("write -P 9 0 64k", "read -P 9 0 64k", "map"), "over.qcow2", (option, *more))
        for option, *more in (
            ("--cmd=length",),
            ("--format=qcow2",),
            ("--read-only",),
            ("--snapshot",),
            ("--nocache",),
            ("--copy-on-read",),
            ("--misalign",),
            ("--native-aio", "-n"),
            ("--aio=threads",),
            ("--discard=unmap",),
            ("--force-share", "-r"),
            ("--trace=nothing",),
        )
    ),
    Case("image-opts", ("length",), "driver=qcow2,file.filename=disk.qcow2", ("--image-opts",)),
    Case("image-opts-name", ("length",), "disk.qcow2", ("--image-opts",)),
    Case("image-opts-and-format", ("length",), "file.filename=disk.qcow2", ("--image-opts", "-f", "qcow2")),
    Case("image-opts-guess", ("length",), "file.filename=disk.qcow2", ("--image-opts",)),
    Case("image-opts-missing", ("length",), "file.filename=nope", ("--image-opts",)),
    Case("object-secret", ("length",), options=("--object", "secret,id=s,data=abc")),
    Case("object-foo", ("length",), options=("--object", "foo,id=s")),
    Case("object-no-id", ("length",), options=("--object", "secret")),
    Case("encrypted-no-key", ("length",), "locked.qcow2"),
    Case(
        "encrypted",
        ("read -P 0x44 0 64k", "write -P 5 100 1000", "read -P 5 100 1000", "read -P 0x44 0 100"),
        "driver=qcow2,encrypt.key-secret=s,file.filename=locked.qcow2",
        ("--object", "secret,id=s,data=geheim", "--image-opts"),
    ),
    Case(
        "encrypted-no-such-secret",
        ("length",),
        "driver=qcow2,encrypt.key-secret=zz,file.filename=locked.qcow2",
        ("--image-opts",),
    ),
    Case("null-co", ("length", "read -P 0 0 512", "read -P 0xab 0 512", "write 0 512"), "null-co://", ("-f", "raw")),
    Case("null-aio", ("length", "read -P 0 0 512"), "null-aio://", ("-f", "raw")),
    Case("stdin", stdin="length\nread 0 512\nx\n\nquit\nlength"),
    Case("stdin-no-newline", stdin="length\nread 0 x\nlength"),
    Case("stdin-empty", stdin=""),
    Case("stdin-no-file", stdin="read 0 1\nopen disk.qcow2\nlength\nclose\nlength\n", image=None),
    Case("stdin-aio", stdin="aio_write 0 64k\nlength\naio_flush\n"),
    Case("stdin-aio-quit", stdin="aio_write 0 64k\nquit\n"),
    Case("stdin-abort", stdin="write 0 512\nabort\n"),
    Case("stdin-blank", stdin="\n  \n\nlength\n"),
    Case(
        "verify-same", ("read -P 0x11 0 64k", "write -P 9 0 100k", "read -P 9 0 100k"), "blkverify:copy.raw:disk.qcow2"
    ),
    Case("verify-differs", ("read 1M 64k", "length"), "blkverify:wrong.raw:disk.qcow2"),
)

DEBUG = {
    "suspend": "break write_aio A; aio_write -qP 1 2M 64k; wait_break A; aio_write -qP 2 2112k 64k; resume A; "
    "aio_flush",
    "length-while-suspended": "break write_aio A; aio_write -qP 1 2M 64k; wait_break A; length; resume A; aio_flush",
    "remove-suspended": "break write_aio A; aio_write -qP 1 2M 64k; wait_break A; remove_break A; aio_flush; "
    "read -P 1 2M 64k",
    "two-breaks": "break write_aio A; break write_aio B; remove_break B; remove_break A; remove_break Z; resume Z; "
    "write 0 1",
    "unknown-event": "break foo A; break write_aio A; remove_break A",
    # The interleavings that the reference commit ("Handle dependencies earlier") is about.
    "dependent-write-waits": "break write_aio A; aio_write -qP 1 2056k 8k; wait_break A; aio_write -qP 2 2080k 8k; "
    "resume A; "
    "aio_flush; read -P 1 2056k 8k; read -P 2 2080k 8k; read -P 0 2064k 16k",
    "dependent-write-behind": "break write_aio A; aio_write -qP 1 2M 128k; wait_break A; aio_write -qP 2 2112k 128k; "
    "resume A; aio_flush; read -P 1 2M 64k; read -P 2 2112k 128k",
    "independent-write-passes": "break write_aio A; aio_write -qP 1 2M 64k; wait_break A; write -P 2 3M 64k; resume A; "
    "aio_flush; read -P 1 2M 64k; read -P 2 3M 64k",
    "read-of-new-cluster": "break write_aio A; aio_write -qP 1 2M 64k; wait_break A; read -P 0 2M 64k; resume A; "
    "aio_flush; "
    "read -P 1 2M 64k",
    "three-in-one-cluster": "break write_aio A; aio_write -qP 1 2M 4k; wait_break A; aio_write -qP 2 2052k 4k; "
    "aio_write -qP 3 2056k 4k; resume A; aio_flush; read -P 1 2M 4k; read -P 2 2052k 4k; read -P 3 2056k 4k",
    "zero-while-allocating": "break write_aio A; aio_write -qP 1 2M 64k; wait_break A; aio_write -qz 2M 64k; resume A; "
    "aio_flush; read -P 0 2M 64k",
    "in-place-then-zero": "write -P 1 2M 64k; break write_aio A; aio_write -qP 2 2M 64k; wait_break A; length; "
    "resume A; "
    "aio_flush; write -z 2M 64k; read -P 0 2M 64k",
    "cow-suspended": "break write_aio A; aio_write -qP 1 1028k 4k; wait_break A; read -P 0x22 1M 64k; resume A; "
    "aio_flush; read -P 1 1028k 4k; read -P 0x22 1M 4k",
}

RULES = {
    "write-enospc-once": (("write_aio", "28", "on"), "write 2M 64k; write 2M 64k; read -P 0xcd 2M 64k"),
    "write-eio-always": (("write_aio", "5", "off"), "write 2M 64k; write 2M 64k"),
    "read-eio-once": (("read_aio", "5", "on"), "read 0 64k; read -P 0x11 0 64k"),
    "read-eio-always": (("read_aio", "5", "off"), "read 0 64k; read 0 64k; read -P 0 3M 64k"),
    "l2-load": (("l2_load", "5", "on"), "read 0 64k; read -P 0x11 0 64k"),
    "l2-update": (("l2_update", "28", "on"), "write 2M 64k; flush; write 2M 64k; flush"),
    "l1-update": (("l1_update", "5", "on"), "write 1k 1k; flush"),
    "refblock-update": (("refblock_update_part", "28", "on"), "write 2M 64k; flush"),
    "cluster-alloc": (("cluster_alloc", "28", "on"), "write 2M 64k; write 2M 64k; read -P 0xcd 2M 64k"),
    "flush": (("flush_to_disk", "5", "on"), "write 2M 64k; flush; flush"),
    "aio-error": (("write_aio", "5", "on"), "aio_write 2M 64k; aio_flush; aio_write -P 7 2M 64k; aio_flush"),
    "cow-write": (("cow_write", "5", "on"), "write 2M 4k; write 2M 4k; read -P 0 2052k 4k"),
    "compressed": (("write_compressed", "5", "on"), "write -c 3M 64k; write -c 3M 64k"),
}


def _generated(seed: int, image: str, length: int, count: int) -> tuple[str, ...]:
    """A random script: requests of all kinds, aligned and not, each followed by what shows its effect."""
    dice = random.Random(f"{image} {seed}")
    commands = []

    def place() -> tuple[int, int]:
        unit = dice.choice((1, 512, 4 * KIB, 64 * KIB, 64 * KIB))
        offset = dice.randrange(0, length, unit)
        most = max(1, min(length - offset, 300 * KIB) // unit)
        return offset, min(dice.randint(1, most) * unit, length - offset)

    for _ in range(count):
        offset, size = place()
        pattern = dice.randrange(1, 256)
        kind = dice.choice(
            ("write", "write", "write", "zero", "unmap", "discard", "writev", "aio", "fua", "alloc", "read")
        )
        here = f"{offset} {size}"
        if kind == "write":
            commands += [f"write -P {pattern} {here}", f"read -P {pattern} {here}"]
        elif kind == "zero":
            commands += [f"write -z {here}", f"read -P 0 {here}"]
        elif kind == "unmap":
            # Of what was just written: where nothing is allocated, ours has no need of zero clusters (DIFFERENCES).
            commands += [f"write -P {pattern} {here}", f"write -zu {here}", f"read -P 0 {here}"]
        elif kind == "discard":
            commands += [f"discard {here}"]
        elif kind == "writev":
            commands += [f"writev -P {pattern} {offset} {size // 2} {size - size // 2}", f"readv -P {pattern} {here}"]
        elif kind == "aio":
            commands += [f"aio_write -P {pattern} {here}", "aio_flush", f"aio_read -P {pattern} {here}", "aio_flush"]
        elif kind == "fua":
            commands += [f"write -f -P {pattern} {here}", "flush"]
        elif kind == "alloc":
            commands += [f"alloc {here}"]
        else:
            commands += [f"read -q {here}"]
    return (*commands, "flush" if image == "v2.qcow2" else "map")


def cases() -> list[Case]:
    """All cases, in an order that spreads the kinds: every n-th is a fair sample."""
    found = [Case(command or "empty", (command,)) for text in SINGLE.splitlines() for command in _split(text)]
    found += [
        Case(f"overlay {command}", (command,), "over.qcow2") for t in OVERLAY.splitlines() for command in _split(t)
    ]
    found += [
        Case(f"raw {command}", (command,), "other.raw", ("-f", "raw"))
        for t in RAW.splitlines()
        for command in _split(t)
    ]
    found += [Case(f"v2 {command}", (command,), "v2.qcow2") for t in V2.splitlines() for command in _split(t)]
    for image in ("disk.qcow2", "over.qcow2"):
        found += [Case(f"{image} {name}", _split(text), image) for name, text in SCRIPTS.items()]
    for text in OPENING.splitlines():
        found += [Case(f"open {words}", (f"open {words}", "length", "read 0 512"), None) for words in _split(text)]
    found += COMMAND_LINES
    for image in ("disk.qcow2", "over.qcow2"):
        found += [Case(f"debug {image} {name}", _split(text), f"blkdebug::{image}") for name, text in DEBUG.items()]
    found += [
        Case(f"rule {name}", _split(text), f"blkdebug:{name}.conf:disk.qcow2") for name, (_, text) in RULES.items()
    ]
    for image in ("disk.qcow2", "over.qcow2", "v2.qcow2", "small.qcow2", "large.qcow2", "other.raw"):
        options = ("-f", "raw") if image.endswith(".raw") else ()
        length = (1 if image in ("small.qcow2", "other.raw") else 4) * KIB * KIB
        found += [Case(f"generated {image} {n}", _generated(n, image, length, 12), image, options) for n in range(10)]
    return found
