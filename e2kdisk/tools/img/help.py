"""The text of --help."""

from __future__ import annotations

COMMANDS = {
    "amend": "[-p] [-q] [-f FMT] [-t CACHE] -o OPTIONS FILE",
    "bench": "[-c COUNT] [-d DEPTH] [-f FMT] [--flush-interval=N] [-o OFFSET] [-s SIZE] [-S STEP] [-w] FILE",
    "bitmap": "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b FILE [-F FMT]] "
    "[-g GRANULARITY] [-f FMT] FILE BITMAP",
    "check": "[-q] [-f FMT] [--output=human|json] [-r leaks|all] [-T CACHE] [-U] FILE",
    "commit": "[-q] [-f FMT] [-t CACHE] [-b BASE] [-d] [-p] FILE",
    "compare": "[-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] FILE1 FILE2",
    "convert": "[-c] [-C] [-n] [-p] [-q] [-f FMT] [-O FMT] [-B FILE [-F FMT]] [-o OPTIONS] [-l SNAPSHOT] [-S SIZE] "
    "[-m N] [-W] [--salvage] [--target-is-zero] [--bitmaps [--skip-broken-bitmaps]] [-U] FILE... TARGET",
    "create": "[-q] [-f FMT] [-b FILE [-F FMT]] [-u] [-o OPTIONS] FILE [SIZE]",
    "dd": "[-f FMT] [-O FMT] [-U] [bs=SIZE] [count=N] [skip=N] if=FILE of=FILE",
    "info": "[-f FMT] [--output=human|json] [--backing-chain] [-U] FILE",
    "map": "[-f FMT] [--start-offset=OFFSET] [--max-length=SIZE] [--output=human|json] [-U] FILE",
    "measure": "[--output=human|json] [-O FMT] [-o OPTIONS] (--size SIZE | [-f FMT] [-l SNAPSHOT] FILE)",
    "rebase": "[-q] [-f FMT] [-t CACHE] [-T CACHE] [-p] [-u] -b FILE [-F FMT] FILE",
    "resize": "[-f FMT] [--preallocation=MODE] [-q] [--shrink] FILE [+|-]SIZE",
    "snapshot": "[-U] [-q] [-l | -a NAME | -c NAME | -d NAME] FILE",
}


def help_text(program: str) -> str:
    """What --help prints."""
    from textwrap import fill

    import e2kdisk

    commands = "\n".join(
        fill(f"{name} {arguments}", 79, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
        for name, arguments in COMMANDS.items()
    )
    return f"""\
{program} (e2kdisk) version {e2kdisk.__version__}: images of qcow2 and raw disks
usage: {program} [-h] [-V] [-T PATTERN] COMMAND [OPTION...]

{commands}

All of them also take --object secret,id=...,data=... (or file=...) and
--image-opts: then FILE is driver=qcow2,file.filename=... . The options, the
output and the exit status are those of qemu-img 7.2.

exit status: 0 done, 1 not done (one line says why); check: 2 corrupt, 3 leaks,
63 cannot be checked; compare: 1 different, 2 and more: not compared."""
