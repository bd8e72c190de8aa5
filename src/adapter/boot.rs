//! Which boot of the host this is: what was only told to the system, and not yet on its disk, is lost with a boot.

/// Where Linux says it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where no boot can be told from another.
pub(super) const UNKNOWN_BOOT: &str = "unknown";

/// This boot of this host, or a word that never counts as the same boot.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).map_or_else(|_| UNKNOWN_BOOT.to_owned(), |text| text.trim().to_owned())
}
