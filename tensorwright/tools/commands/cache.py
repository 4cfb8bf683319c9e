"""`tw cache`."""

from __future__ import annotations

import time
from pathlib import Path

import rich_click as click

from tensorwright.base.errors import ArtifactError
from tensorwright.driver.objects import LIMIT, ObjectCache, cache_folder, checked
from tensorwright.driver.programs import program_cache
from tensorwright.tools.options import command as tw_command
from tensorwright.tools.output import Column, Output, size


@click.group(cls=click.RichGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Look after the compiled kernels and programs on disk.

    \b
        tw cache info
        tw cache ls
        tw cache verify
        tw cache clear

    The folder is the user's cache folder, or TW_CACHE; TW_CACHE=off keeps nothing. It may be shared
    by processes, copied to another machine, and deleted at any time. TW_CACHE_PROGRAMS is how many
    MiB of whole programs it may hold beside the kernels; 0 keeps none.
    """


def open_cache() -> ObjectCache:
    folder = cache_folder()
    if folder is None:
        raise ArtifactError("there is no cache: TW_CACHE is off", help="unset TW_CACHE")
    return ObjectCache(folder)


@tw_command()
def info(output: Output) -> None:
    """Where the cache is and how much is in it."""
    cache = open_cache()
    entries = [s for _, s in cache.entries()]
    total = sum(s.st_size for s in entries)
    programs = program_cache(cache.folder)
    whole = [s.st_size for _, s in programs.entries()]
    if output.as_json:
        output.json({"folder": cache.folder, "entries": len(entries), "bytes": total,
                     "limit": LIMIT, "programs": len(whole), "program_bytes": sum(whole),
                     "program_limit": programs.limit})  # fmt: skip
        return
    used = age(max(s.st_mtime for s in entries)) if entries else "never"
    output.pairs([
        ("folder", cache.folder), ("kernels", len(entries)), ("size", size(total)),
        ("limit", size(LIMIT)), ("last used", used), ("programs", len(whole)),
        ("their size", size(sum(whole))), ("their limit", size(programs.limit)),
    ])  # fmt: skip


@tw_command()
@click.option("--all", "everything", is_flag=True, help="Not only the 20 used last.")
def ls(output: Output, everything: bool) -> None:
    """List the compiled kernels, the last used first."""
    entries = list(open_cache().entries())[::-1]
    if output.as_json:
        output.json([{"key": p.stem, "bytes": s.st_size, "used": s.st_mtime} for p, s in entries])
        return
    shown = entries if everything else entries[:20]
    columns = (Column("key", style="bold"), Column("size", True), Column("last used", True))
    output.table(columns, [(p.stem[:16], size(s.st_size), age(s.st_mtime)) for p, s in shown])
    if len(shown) < len(entries):
        output.remark(f"and {len(entries) - len(shown)} more, shown by --all")


@tw_command()
def clear(output: Output) -> None:
    """Remove all compiled kernels and programs."""
    cache = open_cache()
    removed, programs = cache.trim(0), program_cache(cache.folder).trim(0)
    if output.as_json:
        output.json({"removed": removed, "programs": programs})
    else:
        output.print(f"removed {removed} kernels and {programs} programs")


@tw_command()
@click.option("--repair", is_flag=True, help="Remove what is damaged.")
def verify(output: Output, repair: bool) -> int:
    """Check every compiled kernel against its checksum. Exit code 1 if some are damaged."""
    entries = [p for p, _ in open_cache().entries()]
    damaged = [p for p in entries if not is_whole(p)]
    for p in damaged if repair else ():
        p.unlink(missing_ok=True)
    if output.as_json:
        output.json({"checked": len(entries), "damaged": damaged, "repaired": repair})
    else:
        output.print(f"{len(entries)} kernels checked, {len(damaged)} damaged")
        for p in damaged:
            output.print(f"  {p}{' (removed)' if repair else ''}", "red")
    return 1 if damaged and not repair else 0


def is_whole(path: Path) -> bool:
    try:
        return path.suffix == ".o" and checked(path.read_bytes()) is not None
    except OSError:
        return False


def age(when: float) -> str:
    seconds = max(time.time() - when, 0)
    for unit, scale in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


for sub in (info, ls, verify, clear):
    command.add_command(sub)
