//! The guest's time as the host sees it.

use std::time::{Duration, Instant, SystemTime};

use cellule_abi::clock::Clock;
use cellule_abi::page::{CLOCK_LIMIT_OFFSET, VIRTUAL_NOW_OFFSET, WALL_OFFSET_OFFSET};
use cellule_abi::tasks::NEVER;
use cellule_channel::PageLost;
use cellule_hv::{GuestClock, Partition, RunError};

use crate::page::ChannelPage;

/// What makes a guest's time pass.
///
/// ```
/// use cellule::{Image, Sandbox, Time};
///
/// # let image = Image::from_bytes(cellule_test_guests::basics())?;
/// // For a guest with timers: an hour of its time takes no time of the host's.
/// let mut sandbox = Sandbox::builder(&image)
///     .time(Time::Virtual)
/// #   .backend(cellule::Backend::for_development())
///     .build()?;
/// # sandbox.call::<()>("nothing", ())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Time {
    /// The processor's time-stamp counter. It also passes while nobody runs the
    /// sandbox; what became due then is done when it runs again.
    #[default]
    Real,
    /// Nothing but the guest: its clock stands still while a task can run, and
    /// jumps to the next timer when every task waits. It starts at 1970-01-01.
    Virtual,
}

/// A wall offset that is off by less is left as it is: it saves a write.
const WALL_SLACK_NS: u64 = 100_000;

/// The clock that a guest was given.
#[derive(Debug)]
pub(crate) struct Timekeeper {
    time: Time,
    published: Clock,
    wall_offset_ns: u64,
    /// How far a virtual clock may go, as published.
    limit_ns: u64,
}

/// One point in time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The guest's monotonic time.
    pub(crate) ns: u64,
    /// The host's.
    pub(crate) at: Instant,
}

impl Moment {
    /// When the guest's clock shows `ns`: not before. `None` if that is further
    /// away than the host can tell.
    pub(crate) fn instant(&self, ns: u64) -> Option<Instant> {
        // Both clocks are rounded down by up to a nanosecond in conversions.
        let left = Duration::from_nanos(ns.saturating_sub(self.ns)).checked_add(ROUNDING)?;
        self.at.checked_add(left)
    }
}

const ROUNDING: Duration = Duration::from_nanos(2);

impl Timekeeper {
    /// A clock that shows zero now. Real time is one read of the partition's counter.
    pub(crate) fn start(time: Time, partition: &mut dyn Partition) -> Result<Self, RunError> {
        let published = match time {
            Time::Virtual => Clock::still(),
            Time::Real => {
                let GuestClock { tsc_khz, tsc, .. } = partition.clock()?;
                Clock::of_counter(tsc_khz.saturating_mul(1000), tsc, 0)
            }
        };
        Ok(Self { time, published, wall_offset_ns: 0, limit_ns: NEVER })
    }

    /// What the guest's boot block says of it.
    pub(crate) fn published(&self) -> Clock {
        self.published
    }

    pub(crate) fn time(&self) -> Time {
        self.time
    }

    /// The guest's time now. A virtual one is what the guest says that it is.
    pub(crate) fn now(
        &self,
        partition: &mut dyn Partition,
        page_gva: cellule_hv::Gva,
    ) -> Result<Moment, RunError> {
        match self.time {
            Time::Real => {
                let GuestClock { tsc, at, .. } = partition.clock()?;
                Ok(Moment { ns: self.published.nanoseconds(tsc), at })
            }
            Time::Virtual => {
                let page = ChannelPage { memory: partition.memory(), gva: page_gva };
                let ns = page.load_u64(VIRTUAL_NOW_OFFSET).unwrap_or(0);
                Ok(Moment { ns, at: Instant::now() })
            }
        }
    }

    /// Tells the guest what the wall clock shows, if it does not know.
    pub(crate) fn publish_wall(
        &mut self,
        page: ChannelPage<'_>,
        now: Moment,
    ) -> Result<(), PageLost> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Nanoseconds since 1970 fit until 2554.
        let unix_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let offset = unix_ns.wrapping_sub(now.ns);
        let off_by = offset.wrapping_sub(self.wall_offset_ns);
        if off_by.min(off_by.wrapping_neg()) < WALL_SLACK_NS {
            return Ok(());
        }
        self.wall_offset_ns = offset;
        page.store_u64(WALL_OFFSET_OFFSET, offset)
    }

    /// Says how far a virtual clock may go.
    pub(crate) fn publish_limit(
        &mut self,
        page: ChannelPage<'_>,
        limit_ns: u64,
    ) -> Result<(), PageLost> {
        if limit_ns == self.limit_ns {
            return Ok(());
        }
        self.limit_ns = limit_ns;
        page.store_u64(CLOCK_LIMIT_OFFSET, limit_ns)
    }
}
