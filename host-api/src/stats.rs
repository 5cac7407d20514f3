//! What a sandbox did and what that cost.

/// Counters since a sandbox was created, exact.
///
/// A warm call costs one exit and, on KVM, one hypervisor call; each host call within
/// it one more of both.
///
/// ```
/// # use cellule::{Image, Sandbox};
/// # let image = Image::from_bytes(cellule_test_guests::basics())?;
/// # let backend = cellule::Backend::for_development();
/// # let mut sandbox = Sandbox::builder(&image).backend(backend).build()?;
/// sandbox.call::<i32>("add", (1, 2))?;
/// sandbox.call::<i32>("add", (3, 4))?;
/// assert_eq!((sandbox.stats().calls, sandbox.stats().exits), (2, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Guest functions called.
    pub calls: u64,
    /// Host calls asked for by the guest, denied ones included.
    pub host_calls: u64,
    /// Log records that the guest wrote, dropped ones included.
    pub log_records: u64,
    /// Log records of a level that the policy allows, and that its budgets dropped.
    pub log_dropped: u64,
    /// Times that the guest was left for the host.
    pub exits: u64,
    /// Calls into the hypervisor after creation (ioctls; where there is none, the system
    /// calls that take its place).
    pub hypervisor_calls: u64,
    /// Bytes of arguments and replies copied into the guest.
    pub bytes_in: u64,
    /// Bytes of results, host-call arguments and log records copied out.
    pub bytes_out: u64,
    /// Times that the host diverted the guest to its upcall entry.
    pub upcalls: u64,
    /// Times that an alarm, a reply or an interrupt stopped the guest, or kept it
    /// from being entered.
    pub kicks: u64,
    /// Deferred host calls in flight now.
    pub in_flight: u32,
    /// Faults of tasks that the guest was left to handle.
    pub task_faults: u64,
}
