"""The qemu.qmp package does what can be done with a disk of the machine at the socket sys.argv[1],
which has room for files in the directory sys.argv[2]; the machine is as before then."""

import asyncio
import sys

from qemu.qmp import ExecuteError, QMPClient

SIZE = 4 << 20
JOBS = ("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", "BLOCK_JOB_ERROR")


class Disk:
    """The drive `disk0`, and what is heard of its jobs."""

    def __init__(self, client, events, files):
        self.client, self.events, self.files = client, events, files

    def path(self, name):
        return f"{self.files}/disk0-{name}"

    async def run(self, command, **arguments):
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return await self.client.execute(command, {"device": "disk0", **named})

    async def refused(self, text, command, arguments):
        try:
            await self.client.execute(command, arguments)
        except ExecuteError as error:
            assert str(error) == text, error
        else:
            raise AssertionError(f"{command} was not refused")

    async def told(self):
        drives = await self.client.execute("query-block")
        return next(drive for drive in drives if drive["device"] == "disk0")["inserted"]

    async def on(self, name, depth):
        told = await self.told()
        assert (told["file"], told["backing_file_depth"]) == (self.path(name), depth), told

    async def heard(self, name, kind, error=None):
        event = await asyncio.wait_for(self.events.get(), 30)
        data = event["data"]
        assert (event["event"], data["device"], data["type"]) == (name, "disk0", kind), event
        assert data.get("error") == error and data["len"] == SIZE, event
        if name != "BLOCK_JOB_READY":
            assert await self.client.execute("query-block-jobs") == []
        return data

    async def done(self, kind):
        data = await self.heard("BLOCK_JOB_COMPLETED", kind)
        assert data["offset"] == data["len"], data

    async def pivot(self, kind):
        await self.heard("BLOCK_JOB_READY", kind)
        await self.run("block-job-complete")
        await self.done(kind)

    async def snapshot(self, name):
        await self.run("blockdev-snapshot-sync", snapshot_file=self.path(name))


async def begin(client, disk):
    """A file by way of a character device, and a disk on it."""
    out = {"type": "file", "data": {"out": disk.path("base")}}
    await client.execute("chardev-add", {"id": "makes-a-file", "backend": out})
    await client.execute("chardev-remove", {"id": "makes-a-file"})
    file = {"driver": "file", "filename": disk.path("base")}
    await client.execute("blockdev-add",
                         {"options": {"driver": "raw", "id": "disk0", "file": file}})
    await disk.run("block_resize", size=SIZE)
    assert (await disk.told())["image"]["virtual-size"] == SIZE


async def chains(disk):
    for depth, name in enumerate(("one", "two", "three"), 1):
        await disk.snapshot(name)
        await disk.on(name, depth)
    await disk.run("block-commit", top=disk.path("two"), base=disk.path("one"))
    await disk.done("commit")
    await disk.on("three", 2)
    await disk.run("block-stream", base=disk.path("base"))
    await disk.done("stream")
    await disk.on("three", 1)
    await disk.run("block-commit", top=disk.path("three"))
    await disk.pivot("commit")
    await disk.on("base", 0)
    await disk.snapshot("four")
    await disk.run("block-stream")
    await disk.done("stream")
    await disk.on("four", 0)


async def copies(disk):
    await disk.run("drive-backup", target=disk.path("backup"), sync="full", format="qcow2")
    await disk.done("backup")
    await disk.run("drive-mirror", target=disk.path("mirror"), sync="full", format="qcow2")
    await disk.pivot("mirror")
    await disk.on("mirror", 0)
    # A mirror that is left in step has done what it was to do.
    await disk.run("drive-mirror", target=disk.path("left"), sync="full", format="raw")
    await disk.heard("BLOCK_JOB_READY", "mirror")
    await disk.run("block-job-cancel")
    await disk.done("mirror")
    await disk.on("mirror", 0)


async def steering(disk):
    await disk.run("drive-backup", target=disk.path("none"), sync="none", format="qcow2")
    only = {"device": "disk0"}
    await disk.refused("Device 'disk0' is in use", "eject", only)
    await disk.refused("The active block job for device 'disk0' cannot be completed",
                       "block-job-complete", only)
    await disk.run("block-job-set-speed", speed=65536)
    await disk.run("block-job-pause")
    (job,) = await disk.client.execute("query-block-jobs")
    assert (job["type"], job["paused"], job["speed"]) == ("backup", True, 65536), job
    await disk.refused("The block job for device 'disk0' is currently paused",
                       "block-job-cancel", only)
    await disk.run("block-job-resume")
    await disk.run("block-job-cancel")
    await disk.heard("BLOCK_JOB_CANCELLED", "backup")
    for command in ("cancel", "pause", "resume", "complete"):
        await disk.refused("No active block job on device 'disk0'", f"block-job-{command}", only)


async def transactions(disk):
    def snapshot(name):
        data = {"device": "disk0", "snapshot-file": disk.path(name)}
        return {"type": "blockdev-snapshot-sync", "data": data}

    target = {"device": "disk0", "target": disk.path("moment"), "sync": "full", "format": "qcow2"}
    backup = {"type": "drive-backup", "data": target}
    inside = {"type": "blockdev-snapshot-internal-sync", "data": {"device": "disk0", "name": "i"}}
    abort = {"type": "abort", "data": {}}
    await disk.refused("Transaction aborted using Abort action", "transaction",
                       {"actions": [inside, snapshot("lost"), backup, abort]})
    await disk.heard("BLOCK_JOB_CANCELLED", "backup")
    await disk.on("mirror", 0)
    assert "snapshots" not in (await disk.told())["image"]
    await disk.client.execute("transaction", {"actions": [inside, snapshot("five"), backup]})
    await disk.done("backup")
    await disk.on("five", 1)
    below = (await disk.told())["image"]["backing-image"]
    assert [found["name"] for found in below["snapshots"]] == ["i"], below


async def exports(disk):
    client = disk.client
    await disk.refused("NBD server not running", "nbd-server-add", {"device": "disk0"})
    addr = {"addr": {"type": "unix", "data": {"path": disk.path("nbd")}}}
    await client.execute("nbd-server-start", addr)
    await disk.refused("NBD server already running", "nbd-server-start", addr)
    await disk.run("nbd-server-add", writable=True)
    await disk.refused("NBD server already exporting device 'disk0'", "nbd-server-add",
                       {"device": "disk0"})
    await client.execute("nbd-server-stop")


async def main(path, files):
    client = QMPClient("disks")
    await client.connect(path)
    with client.listener(JOBS) as events:
        disk = Disk(client, events, files)
        await begin(client, disk)
        await chains(disk)
        await copies(disk)
        await steering(disk)
        await transactions(disk)
        await exports(disk)
        said = await client.execute("human-monitor-command", {"command-line": "drive_del disk0"})
        assert said == "", said
        assert events.empty()
    await client.disconnect()


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2]), 100))
