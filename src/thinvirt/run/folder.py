"""The files of a VM's two folders: ``run/ID/`` while it runs, ``log/ID/`` until it is removed."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VmFolder:
    """The run-time files of one VM.

    Attributes:
        run: the folder that exists only while the VM runs, mode 0700.
        log: the folder of its recorded output.
    """

    run: Path
    log: Path

    @property
    def alive(self) -> Path:
        """The liveness file: QEMU holds a lock on it as long as it lives."""
        return self.run / "alive"

    @property
    def state(self) -> Path:
        """Facts of the running QEMU, as JSON (`liveness.RunState`)."""
        return self.run / "state.json"

    @property
    def qmp_socket(self) -> Path:
        """QEMU's control socket: one client at a time, so hold it for a command, not for long."""
        return self.run / "qmp.sock"

    @property
    def events_socket(self) -> Path:
        """A second control socket, for whoever watches the VM for as long as it lives."""
        return self.run / "events.sock"

    @property
    def console_socket(self) -> Path:
        """The serial console, ttyS0."""
        return self.run / "console.sock"

    @property
    def agent_socket(self) -> Path:
        """The channel of the guest agent."""
        return self.run / "agent.sock"

    @property
    def seed(self) -> Path:
        """The NoCloud seed disc (ISO 9660)."""
        return self.run / "seed.iso"

    @property
    def password(self) -> Path:
        """The password of the screen, while QEMU starts."""
        return self.run / "password"

    @property
    def console_log(self) -> Path:
        """Everything the guest ever wrote to its serial console since it was last started."""
        return self.log / "console.log"

    @property
    def firmware_log(self) -> Path:
        """What the firmware said on its debug port."""
        return self.log / "firmware.log"

    @property
    def qemu_log(self) -> Path:
        """QEMU's own standard error."""
        return self.log / "qemu.log"

    @property
    def event_record(self) -> Path:
        """What QEMU recorded of its events while the VM is installed (`event_record`)."""
        return self.log / "events"

    @property
    def watch_log(self) -> Path:
        """What the process that waits for the installer's restart had to say."""
        return self.log / "watch.log"

    @property
    def tpm_log(self) -> Path:
        """What the TPM's process said."""
        return self.log / "swtpm.log"

    @property
    def known_hosts(self) -> Path:
        """The host keys of the guest, as ``thinvirt ssh`` first saw them."""
        return self.log / "known_hosts"
