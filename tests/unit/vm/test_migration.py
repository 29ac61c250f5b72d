"""libvirt's verdicts on live migration, rule by rule."""

import pytest

from thinvirt.vm.migration import DiskPlace, judge

NEW, OLD = (7, 2), (3, 1)


@pytest.mark.parametrize(
    ("disk", "qemu", "safe", "rule"),
    [
        (DiskPlace(name="d", storage="empty"), NEW, True, "empty"),
        (DiskPlace(name="d", file_system="ext4", read_only=True), NEW, True, "read-only"),
        (DiskPlace(name="d", file_system="ext4", copied=True), NEW, True, "copied"),
        (DiskPlace(name="d", storage="network", cache="writeback"), OLD, True, "network"),
        (DiskPlace(name="d", storage="nvme"), NEW, False, "nvme"),
        (DiskPlace(name="d", file_system="ext4"), NEW, False, "not-shared"),
        (DiskPlace(name="d", file_system="ext4", cache="none"), NEW, False, "not-shared"),
        (DiskPlace(name="d", file_system="fuse.glusterfs", cache="unsafe"), OLD, True, "cluster"),
        (DiskPlace(name="d", file_system="nfs", cache="none"), OLD, True, "no-page-cache"),
        (DiskPlace(name="d", file_system="nfs", cache="directsync"), OLD, True, "no-page-cache"),
        (DiskPlace(name="d", file_system="nfs", shareable=True), OLD, True, "no-page-cache"),
        (DiskPlace(name="d", file_system="nfs", cache="writeback"), NEW, True, "drops-cache"),
        (DiskPlace(name="d", file_system="nfs"), OLD, False, "page-cache"),
        (DiskPlace(name="d", storage="block"), OLD, False, "page-cache"),
        (DiskPlace(name="d", storage="block", cache="none"), OLD, True, "no-page-cache"),
    ],
)
def test_the_rules_in_their_order(
    disk: DiskPlace, qemu: tuple[int, int], safe: bool, rule: str
) -> None:
    (verdict,) = judge([disk], same_host=False, qemu=qemu)
    assert (verdict.safe, verdict.rule) == (safe, rule)
    assert bool(verdict.ways_out) != safe
    assert verdict.reason


def test_one_kernel_is_coherent_and_unsafe_is_always_told() -> None:
    (verdict,) = judge(
        [DiskPlace(name="d", file_system="ext4", cache="unsafe")], same_host=True, qemu=OLD
    )
    assert verdict.safe
    assert "flushes" in verdict.warning


def test_the_outdated_rule_is_dated() -> None:
    disk = DiskPlace(name="d", file_system="nfs")
    for qemu in (NEW, OLD):
        (verdict,) = judge([disk], same_host=False, qemu=qemu)
        assert "QEMU 4.0 and libvirt 5.7" in verdict.reason
