"""Boots an image whose user space sleeps for an hour; prints the wall and the CPU seconds that the hour took."""

import sys
import tempfile
import time
from pathlib import Path

from harness.catalogue import load, ramdisk_with
from stub.domain.config import DomainConfig
from stub.machine import Machine

MAIN = b"#!/bin/sh\necho asleep\nsleep 3600\necho awake\n"

image = load(sys.argv[1])
assert image.ramdisk
with tempfile.TemporaryDirectory() as folder:
    ramdisk = Path(folder, "ramdisk")
    ramdisk.write_bytes(ramdisk_with(image.ramdisk, {"/pvstub/main": MAIN}))
    config = DomainConfig(kernel=image.kernel, ramdisk=ramdisk, cmdline="console=hvc0 pvstub=exec", memory=image.memory)
    with Machine(config, Path(folder, "run")) as machine:
        machine.run(until=lambda: b"asleep" in machine.console.output)
        wall, cpu = time.perf_counter(), time.process_time()
        machine.run(until=lambda: b"awake" in machine.console.output)
        print(time.perf_counter() - wall, time.process_time() - cpu)
        assert b"awake" in machine.console.output
