"""A session of the qemu.qmp package with the machine at the socket sys.argv[1], which runs."""

import asyncio
import sys

from qemu.qmp import ExecuteError, QMPClient


async def refused(client, command, arguments, error_class):
    try:
        await client.execute(command, arguments)
    except ExecuteError as error:
        assert error.error.error.class_ == error_class, error
        return str(error)
    raise AssertionError(f"{command} was not refused")


async def main(path):
    client = QMPClient("session")
    await client.connect(path)
    assert client.greeting.QMP.version["qemu"]["major"] >= 1

    commands = {item["name"] for item in await client.execute("query-commands")}
    assert {"query-status", "stop", "cont", "quit", "query-cpus"} <= commands, commands
    status = await client.execute("query-status")
    assert status == {"status": "running", "singlestep": False, "running": True}, status
    cpus = await client.execute("query-cpus")
    assert [cpu["CPU"] for cpu in cpus] == list(range(len(cpus))), cpus

    # Events come to whoever listens for them.
    with client.listener(("STOP", "RESUME")) as listener:
        await client.execute("stop")
        assert (await listener.get())["event"] == "STOP"
        assert (await client.execute("query-status"))["status"] == "paused"
        await client.execute("cont")
        assert (await listener.get())["event"] == "RESUME"

    # Many at once: each answer finds its question.
    questions = ["query-status", "query-version", "query-kvm", "query-target"] * 50
    answers = await asyncio.gather(*(client.execute(question) for question in questions))
    members = {"query-status": "running", "query-version": "qemu", "query-kvm": "enabled",
               "query-target": "arch"}
    for question, answer in zip(questions, answers):
        assert members[question] in answer, (question, answer)

    text = await refused(client, "query-status", {"x": 1}, "GenericError")
    assert text == "Invalid parameter 'x'", text
    await refused(client, "no-such-command", {}, "CommandNotFound")
    await client.disconnect()


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
