# SPDX-License-Identifier: Apache-2.0
"""Choose the build of vLLM that `make setup` installs: for NVIDIA GPUs, or for CPUs.

Run with the system's Python before anything is installed. It prints `gpu` or `cpu`.
"""

from __future__ import annotations  # so that older Pythons get as far as the message

import ctypes
import sys

CPU, GPU = "cpu", "gpu"
# PyTorch and vLLM in requirements/serve-gpu.txt are built for CUDA 13.0; the driver must support that.
CUDA_WANTED = (13, 0)
DRIVER_WANTED = "580"
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class DeviceError(Exception):
    """The GPU cannot be used; the message says how to fix it."""


class Driver:
    """NVIDIA's driver library."""

    def __init__(self, name: str = "libcuda.so.1") -> None:
        """Load the library; raises OSError if there is none."""
        self._library = ctypes.CDLL(name)

    def gpus(self) -> int:
        """Count the GPUs that CUDA_VISIBLE_DEVICES does not hide; raises DeviceError if the driver fails."""
        status = self._library.cuInit(0)
        if status == _NO_DEVICE:
            return 0
        count = ctypes.c_int()
        _check("cuInit", status)
        _check("cuDeviceGetCount", self._library.cuDeviceGetCount(ctypes.byref(count)))
        return count.value

    def cuda_version(self) -> tuple[int, int]:
        """Return the newest CUDA version that the driver supports, as (major, minor)."""
        number = ctypes.c_int()
        _check("cuDriverGetVersion", self._library.cuDriverGetVersion(ctypes.byref(number)))
        return number.value // 1000, number.value % 1000 // 10


def _check(function: str, status: int) -> None:
    if status != 0:
        raise DeviceError(
            f"{function} of NVIDIA's driver returned error {status}: check `nvidia-smi`, or set DEVICE=cpu"
        )


def find_device(driver: Driver | None) -> str:
    """Return `gpu` if there is an NVIDIA GPU, else `cpu`. driver: None if the library is missing.

    Raises DeviceError if the driver fails or is too old.
    """
    if driver is None or not driver.gpus():
        return CPU
    version = driver.cuda_version()
    if version < CUDA_WANTED:
        found, wanted = ("{}.{}".format(*one) for one in (version, CUDA_WANTED))
        raise DeviceError(
            f"the NVIDIA driver supports CUDA {found}, but the GPU build needs {wanted}: install driver "
            f"{DRIVER_WANTED} or later, use a container image (docs/containers.md), or set DEVICE=cpu"
        )
    return GPU


def load_driver() -> Driver | None:
    """Load NVIDIA's driver library; None if there is none."""
    try:
        return Driver()
    except OSError:
        return None


def main() -> int:
    """Print the device; returns 1 if the GPU cannot be used."""
    try:
        print(find_device(load_driver()))
    except DeviceError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
